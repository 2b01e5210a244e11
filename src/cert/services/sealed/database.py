"""A database with sealed texts: its connections, clock and errors, and the keys that it was written with."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import sqlalchemy as sa

from cert.coordination.store.databases import open_database
from cert.coordination.store.faults import store_error
from cert.coordination.store.schema import Schema
from cert.coordination.store.statements import NOW
from cert.core.errors import ConfigurationError, DependencyMissingError, StoreError
from cert.services.sealed.cipher import Cipher

__all__ = ["SealedDatabase"]

T = TypeVar("T")

_KEY = "key:"


class SealedDatabase:
    """What everything that works with one set of tables shares.

    Args:
        place: a path, or the URL of a database.
        schema: its tables.
        cipher: seals texts.
        timeout: seconds to wait for a lock, a connection, or an answer of the database.
        now: tells the time to SQLite, for tests; PostgreSQL has its own.

    Raises:
        ConfigurationError: no URL of a database that is known here.
        DependencyMissingError: its driver is not installed.
    """

    def __init__(
        self,
        place: str,
        schema: Schema,
        cipher: Cipher,
        *,
        timeout: float = 10.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.cipher = cipher
        self._about = schema.about
        try:
            self._database = open_database(place, timeout, schema.prepare)
        except ModuleNotFoundError as error:
            raise DependencyMissingError(
                f"this database needs the package {error.name}",
                hint="pip install 'cert-framework[services,postgres]'",
            ) from error
        self._own_clock = now
        self.name = self._database.name

    async def prepare(self) -> None:
        """Make the tables where there are none, and see that there is every key they were written with.

        From now on the tables are known to have texts of the present key.

        Raises:
            ConfigurationError: a key is missing.
            StoreError: the database cannot be used.
        """

        def register(connection: sa.Connection) -> set[str]:
            name, value = self._about.c.name, self._about.c.value
            # Of an earlier form: the only key.
            only = connection.scalar(sa.select(value).where(name == "key"))
            found = sa.select(name).where(name.startswith(_KEY))
            known = {told.removeprefix(_KEY) for told in connection.scalars(found)}
            wanted = {self.cipher.key_ids[0]} | ({only} if only is not None else set())
            missing = (known | wanted) - set(self.cipher.key_ids)
            if not missing:
                connection.execute(self._about.delete().where(name == "key"))
                for key in wanted - known:
                    connection.execute(self._about.insert(), {"name": _KEY + key, "value": key})
            return missing

        if missing := await self.write(register):
            raise ConfigurationError(
                f"texts of this database were written with another key: {', '.join(sorted(missing))}",
                hint=f"{self.cipher.setting} has to have that key too, or the database has to be another",
            )

    async def forget_other_keys(self) -> None:
        """Say that no text is left of any key but the present one: the others may be taken away.

        Raises:
            StoreError: the database cannot be used.
        """
        name = self._about.c.name

        def forget(connection: sa.Connection) -> None:
            others = self._about.delete().where(name.startswith(_KEY))
            connection.execute(others.where(name != _KEY + self.cipher.key_ids[0]))

        await self.write(forget)

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work that reads, each statement by itself.

        Raises:
            StoreError: the database cannot be used.
        """
        return await self._told(self._database.read(work))

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work in one transaction.

        Raises:
            StoreError: the database cannot be used.
        """
        return await self._told(self._database.write(work))

    async def aclose(self) -> None:
        """Close the connections; a later use opens new ones."""
        await self._database.aclose()

    def now(self, connection: sa.Connection) -> float:
        """Return the time that all replicas share."""
        if self._database.shared_clock:
            return float(connection.scalar(NOW) or 0.0)
        return self._own_clock()

    async def _told(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except Exception as error:
            told = None if isinstance(error, StoreError) else store_error(error, self.name)
            if told is None:
                raise
            raise told from error
