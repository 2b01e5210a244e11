"""Connections to SQLite and PostgreSQL, as a store of paid answers needs them.

Work is a plain function of a connection. PostgreSQL runs it over asyncpg, on the event loop. SQLite runs it
on a thread, all of it in one step: drivers that go to a thread for each statement take five steps for one
answer, and on a busy machine each step is a millisecond.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from cert.coordination.store.files import make_file
from cert.coordination.store.schema import prepare
from cert.coordination.store.uninterrupted import uninterrupted
from cert.core.errors import ConfigurationError, StoreError

__all__ = ["Database", "PostgresDatabase", "SqliteDatabase", "open_database"]

T = TypeVar("T")
Prepare: TypeAlias = Callable[[sa.Connection, str], None]

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_EXAMPLE = "A path, or such as postgresql://user:password@host/database."


class Database(Protocol):
    """Where work is done.

    Attributes:
        name: for people, without a password.
        shared_clock: whether it tells the time to all that use it.
    """

    name: str
    shared_clock: bool

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work that reads, each statement by itself."""
        ...

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work in one transaction."""
        ...

    async def aclose(self) -> None:
        """Close the connections; a later use opens new ones."""
        ...


def open_database(store: str, timeout: float, prepare: Prepare = prepare) -> Database:
    """Return the database of a path or URL; it connects when it is used.

    Args:
        store: a path, or the URL of a database.
        timeout: seconds to wait for a lock, a connection, or an answer.
        prepare: makes the tables, given a connection and the database's name; by default those of answers.

    Raises:
        ConfigurationError: no URL, or one of another database.
        ModuleNotFoundError: its driver is not installed.
    """
    if "://" not in store:
        return SqliteDatabase(Path(store), timeout, prepare)
    try:
        url = sa.make_url(store)
    except sa.exc.ArgumentError as error:
        # It may hold a password, so it is not repeated.
        raise ConfigurationError("the store's URL is not one", hint=_EXAMPLE) from error
    dialect = url.drivername.partition("+")[0]
    if dialect not in _DRIVERS:
        raise ConfigurationError(f"{dialect} is no store for answers", hint=_EXAMPLE)
    if dialect != "sqlite":
        return PostgresDatabase(url.set(drivername=_DRIVERS[dialect]), timeout, prepare)
    if not url.database or url.database == ":memory:":
        raise ConfigurationError("SQLite needs a file", hint="Leave the store out to keep answers in memory.")
    return SqliteDatabase(Path(url.database), timeout, prepare)


class SqliteDatabase:
    """A file, for the processes of this machine.

    WAL mode, so that nobody who reads waits for one who writes; ``synchronous=FULL``, since a paid answer
    must be on the disk before it is used. Transactions of this process wait in a line for its one thread that
    writes, and only the first of them for the file's lock.

    Args:
        path: of the file, which is made where there is none.
        timeout: seconds to wait for the lock.
        prepare: as of `open_database`.
    """

    shared_clock = False

    def __init__(self, path: Path, timeout: float, prepare: Prepare = prepare) -> None:
        self._path = path.expanduser().absolute()
        self._timeout = timeout
        self._tables = prepare
        self._was_busy_at = -timeout
        self.name = str(self._path)
        url = sa.URL.create("sqlite", database=self.name)
        options: dict[str, Any] = {"connect_args": {"timeout": timeout}, "hide_parameters": True}
        self._reader = sa.create_engine(url, pool_reset_on_return=None, **options)
        self._writer = sa.create_engine(url, **options)
        for engine in (self._reader, self._writer):
            sa.event.listen(engine, "connect", _settle)
        sa.event.listen(self._writer, "begin", _begin_immediate)
        self._threads: tuple[ThreadPoolExecutor, ThreadPoolExecutor] | None = None
        self._prepared = False

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work that reads, each statement by itself."""

        def reading() -> T:
            with self._reader.connect() as connection:
                return work(connection)

        await self._prepare()
        return await self._on_thread(0, reading)

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work in one transaction."""
        asked_at = time.monotonic()
        await self._prepare()
        return await uninterrupted(self._on_thread(1, lambda: self._writing(work, asked_at)))

    async def aclose(self) -> None:
        """Close the connections; a later use opens new ones."""
        threads, self._threads = self._threads, None
        if threads is not None:
            # In their turn, after what is still being done.
            await asyncio.wrap_future(threads[0].submit(self._reader.dispose))
            await asyncio.wrap_future(threads[1].submit(self._writer.dispose))
            for pool in threads:
                pool.shutdown(wait=False)

    def _writing(self, work: Callable[[sa.Connection], T], asked_at: float) -> T:
        # Whoever has been in the line while the first waited in vain has waited for the lock too.
        if asked_at < self._was_busy_at and time.monotonic() - asked_at >= self._timeout:
            raise StoreError(
                f"'{self.name}' is locked",
                hint="Another program holds it. Try again, or allow more time.",
                context={"store": self.name, "reason": "busy"},
            )
        try:
            with self._writer.begin() as connection:
                return work(connection)
        except sa.exc.OperationalError as error:
            if str(getattr(error.orig, "sqlite_errorname", "")).startswith("SQLITE_BUSY"):
                self._was_busy_at = time.monotonic()
            raise

    async def _prepare(self) -> None:
        if self._prepared:
            return

        def making() -> None:
            if not self._prepared:
                make_file(self._path, self._timeout)
                with self._writer.begin() as connection:
                    self._tables(connection, self.name)
                self._prepared = True

        await self._on_thread(1, making)

    async def _on_thread(self, which: int, work: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = (
                ThreadPoolExecutor(1, "cert-store-read"),
                ThreadPoolExecutor(1, "cert-store-write"),
            )
        return await asyncio.get_running_loop().run_in_executor(self._threads[which], work)


def _settle(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we begin our transactions ourselves
    # What is deleted is overwritten with zeros.
    for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and writes then could find that another has written in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


class PostgresDatabase:
    """A database that machines share.

    Args:
        url: of it, with the driver.
        timeout: seconds to wait for a connection and for each answer.
        prepare: as of `open_database`.
    """

    shared_clock = True

    def __init__(self, url: sa.URL, timeout: float, prepare: Prepare = prepare) -> None:
        self._url = url
        self._timeout = timeout
        self._tables = prepare
        self.name = url.render_as_string(hide_password=True)
        self._by_loop: dict[asyncio.AbstractEventLoop, AsyncEngine] = {}
        self._prepared = False
        self._engine()  # names a driver that is missing before anything is asked

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work that reads, each statement by itself."""
        return await uninterrupted(self._reading(work))

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work in one transaction."""
        return await uninterrupted(self._writing(work))

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later use opens new ones."""
        engine = self._by_loop.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.dispose()

    # A cancellation in the middle of a statement would cost the connection.

    async def _reading(self, work: Callable[[sa.Connection], T]) -> T:
        await self._prepare()
        alone = self._engine_of_loop().execution_options(isolation_level="AUTOCOMMIT")
        async with alone.connect() as connection:
            return await connection.run_sync(work)

    async def _writing(self, work: Callable[[sa.Connection], T]) -> T:
        await self._prepare()
        async with self._engine_of_loop().begin() as connection:
            return await connection.run_sync(work)

    async def _prepare(self) -> None:
        if not self._prepared:
            async with self._engine_of_loop().begin() as connection:
                await connection.run_sync(self._tables, self.name)
            self._prepared = True

    def _engine_of_loop(self) -> AsyncEngine:
        # A connection belongs to the loop that opened it.
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            # Those of loops that have ended can be neither used nor closed.
            self._by_loop = {other: held for other, held in self._by_loop.items() if not other.is_closed()}
            self._by_loop[loop] = self._engine()
        return self._by_loop[loop]

    def _engine(self) -> AsyncEngine:
        return create_async_engine(
            self._url,
            connect_args={"timeout": self._timeout, "command_timeout": self._timeout},
            pool_size=8,
            max_overflow=0,
            pool_timeout=None,  # tasks of our own wait their turn; only the database has a time-out
            pool_pre_ping=True,  # a connection goes stale while a run waits for its models
            hide_parameters=True,
        )
