"""A table of jobs in a database: sealed columns, and rows as records."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from cert.services.coordination.jobs.records import Job
from cert.services.coordination.jobs.schema import EVENTS, JOB_SCHEMA, JOBS, SPENDING
from cert.services.sealed.cipher import Cipher
from cert.services.sealed.database import SealedDatabase
from cert.services.sealed.resealing import Column, Resealed, reseal

__all__ = ["JobTable"]


class JobTable(SealedDatabase):
    """What everything that works with jobs shares.

    Args:
        place: a path, or the URL of a database.
        cipher: seals texts.
        timeout, now: as of `SealedDatabase`.

    Raises:
        ConfigurationError: no URL of a database that is known here.
    """

    def __init__(
        self, place: str, cipher: Cipher, *, timeout: float = 10.0, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(place, JOB_SCHEMA, cipher, timeout=timeout, now=now)

    def seal(self, job: str, what: str, data: Any) -> bytes:
        """Return JSON-ready data, or text, as a column of a job holds it."""
        text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        return self.cipher.seal(text.encode(), _place(job, what))

    def open(self, job: str, what: str, sealed: bytes) -> Any:
        """Return the data of `seal`."""
        return json.loads(self.open_text(job, what, sealed))

    def open_text(self, job: str, what: str, sealed: bytes) -> str:
        """Return the text of `seal`."""
        return self.cipher.open(bytes(sealed), _place(job, what)).decode()

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

    async def reseal(self) -> Resealed:
        """Seal every text anew that an earlier key sealed; see `cert.services.sealed.resealing.reseal`.

        Raises:
            StoreError: the database cannot be used.
        """
        done = Resealed(0, 0)
        for column in _SEALED:
            done += await reseal(self, self.cipher, column)
        return done


def _place(job: str, what: str) -> str:
    return f"job:{job}:{what}"


def _of_job(what: str) -> Column:
    return Column(JOBS.c[what], lambda row: _place(row["id"], what), (JOBS.c.id,))


_SEALED = (
    *map(_of_job, ("request", "result", "report", "summary", "error")),
    Column(EVENTS.c.data, lambda row: _place(row["job"], f"event:{row['number']}")),
)
