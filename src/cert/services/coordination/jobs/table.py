"""A table of jobs in a database: its connections, its clock, its cipher, and rows as records."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import sqlalchemy as sa

from cert.coordination.store.databases import open_database
from cert.coordination.store.faults import store_error
from cert.coordination.store.statements import NOW
from cert.core.errors import ConfigurationError, StoreError
from cert.services.coordination.jobs.cipher import Cipher
from cert.services.coordination.jobs.records import Job
from cert.services.coordination.jobs.schema import ABOUT, EVENTS, JOB_SCHEMA, JOBS, SPENDING

__all__ = ["JobTable"]

T = TypeVar("T")


class JobTable:
    """What everything that works with jobs shares.

    Args:
        place: a path, or the URL of a database.
        cipher: seals texts.
        timeout: seconds to wait for a lock, a connection, or an answer of the database.
        now: tells the time to SQLite, for tests; PostgreSQL has its own.

    Raises:
        ConfigurationError: no URL of a database that is known here.
    """

    def __init__(
        self, place: str, cipher: Cipher, *, timeout: float = 10.0, now: Callable[[], float] = time.time
    ) -> None:
        self.cipher = cipher
        self._database = open_database(place, timeout, JOB_SCHEMA.prepare)
        self._own_clock = now
        self.name = self._database.name

    async def prepare(self) -> None:
        """Make the tables where there are none, and see that the key is the one they were written with.

        Raises:
            ConfigurationError: it is another key.
            StoreError: the database cannot be used.
        """

        def key_of(connection: sa.Connection) -> str:
            is_key = ABOUT.c.name == "key"
            known = connection.scalar(sa.select(ABOUT.c.value).where(is_key))
            if known is None:
                connection.execute(ABOUT.insert(), {"name": "key", "value": self.cipher.key_id})
            return str(known or self.cipher.key_id)

        if await self.write(key_of) != self.cipher.key_id:
            raise ConfigurationError(
                "the jobs of this database were written with another key",
                hint="set CERT_JOBS_KEY to that key, or CERT_DATABASE_URL to another database",
            )

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

    def seal(self, job: str, what: str, data: Any) -> bytes:
        """Return JSON-ready data, or text, as a column of a job holds it."""
        text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        return self.cipher.seal(text.encode(), f"job:{job}:{what}")

    def open(self, job: str, what: str, sealed: bytes) -> Any:
        """Return the data of `seal`."""
        return json.loads(self.open_text(job, what, sealed))

    def open_text(self, job: str, what: str, sealed: bytes) -> str:
        """Return the text of `seal`."""
        return self.cipher.open(bytes(sealed), f"job:{job}:{what}").decode()

    def job(self, connection: sa.Connection, where: sa.ColumnElement[bool]) -> Job | None:
        """Return the one job of a condition, ``None`` where there is none."""
        row = connection.execute(sa.select(JOBS).where(where)).mappings().first()
        return None if row is None else self.job_of(connection, row)

    def job_of(self, connection: sa.Connection, row: sa.RowMapping) -> Job:
        """Return the job of a row."""
        spent = sa.select(sa.func.coalesce(sa.func.sum(SPENDING.c.micro_dollars), 0)).where(
            SPENDING.c.job == row["id"]
        )
        return Job(
            number=row["number"],
            id=row["id"],
            tenant=row["tenant"],
            state=row["state"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            request=self.open(row["id"], "request", row["request"]),
            done=row["done"],
            total=row["total"],
            spent_micro_dollars=int(connection.scalar(spent) or 0),
            saved_micro_dollars=row["saved_micro_dollars"],
            cancel_requested=bool(row["cancel_requested"]),
            error=self._opened(row, "error"),
            summary=self._opened(row, "summary"),
        )

    def tell(self, connection: sa.Connection, job: str, name: str, data: dict[str, Any]) -> None:
        """Add an event to a job, in the transaction that changes it."""
        this = JOBS.c.id == job
        connection.execute(JOBS.update().where(this).values(events=JOBS.c.events + 1))
        number = int(connection.scalar(sa.select(JOBS.c.events).where(this)) or 0)
        sealed = self.seal(job, f"event:{number}", data)
        connection.execute(EVENTS.insert(), {"job": job, "number": number, "name": name, "data": sealed})

    def _opened(self, row: sa.RowMapping, what: str) -> dict[str, Any] | None:
        return None if row[what] is None else self.open(row["id"], what, row[what])

    async def _told(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except Exception as error:
            told = None if isinstance(error, StoreError) else store_error(error, self.name)
            if told is None:
                raise
            raise told from error
