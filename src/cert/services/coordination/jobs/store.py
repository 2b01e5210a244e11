"""The jobs of tenants: made, looked at, cancelled, deleted when their time is over."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from cert.core.errors import OverloadedError
from cert.services.common.errors import ConflictError, NotFoundError, TooManyRequestsError
from cert.services.coordination.jobs.records import FINAL, Job, JobEvent, JobState
from cert.services.coordination.jobs.schema import EVENTS, JOBS
from cert.services.coordination.jobs.table import JobTable

__all__ = ["JobStore"]

T = TypeVar("T")

# Of all tenants together, as a multiple of what one may have waiting.
_TENANTS_WORTH = 20
_MOST_EVENTS_AT_ONCE = 200


class JobStore:
    """What callers can do with jobs. Whatever is another tenant's is not there.

    Args:
        table: where they are.
        queue: jobs of one tenant that may wait.
    """

    def __init__(self, table: JobTable, queue: int = 100) -> None:
        self._table = table
        self._queue = queue

    async def create(
        self, tenant: str, request: dict[str, Any], total: int, idempotency: str | None = None
    ) -> tuple[Job, bool]:
        """Return a new job and true, or the job that the same key has made before and false.

        Raises:
            ConflictError: the key has made a job of another request.
            TooManyRequestsError: as many of this tenant's wait as may.
            OverloadedError: too many of all tenants' wait.
            StoreError: it could not be kept; there is no job.
        """
        told = json.dumps(request, sort_keys=True)
        cipher = self._table.cipher
        # Under every key: a repeated request is the same one while keys are replaced too.
        names = () if idempotency is None else cipher.names("idempotency", tenant, idempotency)
        fingerprints = cipher.names("request", told)

        def insert(connection: sa.Connection) -> tuple[Job, bool]:
            _one_at_a_time(connection, tenant)
            known = self._known(connection, names, fingerprints)
            if known is not None:
                return known, False
            self._room(connection, tenant)
            identifier = f"m_{secrets.token_hex(12)}"
            row = {
                "id": identifier,
                "tenant": tenant,
                "state": "queued",
                "created_at": self._table.now(connection),
                "idempotency": names[0] if names else None,
                "fingerprint": fingerprints[0],
                "request": self._table.seal(identifier, "request", request),
                "done": 0,
                "total": total,
                "saved_micro_dollars": 0,
                "cancel_requested": False,
                "events": 0,
                "fence": 0,
                "deaths": 0,
            }
            connection.execute(JOBS.insert(), row)
            self._table.tell(connection, identifier, "state", {"state": "queued"})
            made = self._table.job(connection, JOBS.c.id == identifier)
            assert made is not None
            return made, True

        return await self._table.write(insert)

    async def get(self, tenant: str, identifier: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: this tenant has none of this id.
            StoreError: the database cannot be read.
        """
        found = await self._table.read(
            lambda connection: self._table.job(connection, _of(tenant, identifier))
        )
        return _there(found)

    async def page(
        self, tenant: str, limit: int, before: int | None = None, state: JobState | None = None
    ) -> tuple[tuple[Job, ...], int | None]:
        """Return jobs, the latest first, and the place to go on from; ``None`` where there are no more."""
        where = [JOBS.c.tenant == tenant]
        where += [] if before is None else [JOBS.c.number < before]
        where += [] if state is None else [JOBS.c.state == state]
        asked = sa.select(JOBS).where(*where).order_by(JOBS.c.number.desc()).limit(limit + 1)

        def look(connection: sa.Connection) -> tuple[Job, ...]:
            rows = connection.execute(asked).mappings().all()
            return tuple(self._table.job_of(connection, row) for row in rows)

        found = await self._table.read(look)
        more = found[limit - 1].number if len(found) > limit else None
        return found[:limit], more

    async def outcome(self, tenant: str, identifier: str, what: str) -> str:
        """Return the ``result`` (JSON) or the ``report`` (HTML) of a job.

        Raises:
            NotFoundError: as `get`.
            ConflictError: the job has none: it is not done, or it failed.
        """

        def look(connection: sa.Connection) -> tuple[str, bytes | None] | None:
            asked = sa.select(JOBS.c.state, JOBS.c[what]).where(_of(tenant, identifier))
            row = connection.execute(asked).first()
            return None if row is None else (row[0], row[1])

        state, sealed = _there(await self._table.read(look))
        if sealed is None:
            done = state in FINAL
            raise ConflictError(
                f"the measurement has no {what}: it is {state}",
                hint="a new measurement goes on with what was paid for" if done else "wait for its end",
            )
        return self._table.open_text(identifier, what, sealed)

    async def events(self, tenant: str, identifier: str, after: int) -> tuple[tuple[JobEvent, ...], bool]:
        """Return what happened to a job since an event, and whether nothing more will happen.

        Raises:
            NotFoundError: as `get`.
        """

        def look(connection: sa.Connection) -> tuple[Sequence[Any], str, int] | None:
            asked = sa.select(JOBS.c.state, JOBS.c.events).where(_of(tenant, identifier))
            row = connection.execute(asked).first()
            if row is None:
                return None
            newer = (
                sa.select(EVENTS.c.number, EVENTS.c.name, EVENTS.c.data)
                .where(EVENTS.c.job == identifier, EVENTS.c.number > after)
                .order_by(EVENTS.c.number)
                .limit(_MOST_EVENTS_AT_ONCE)
            )
            return connection.execute(newer).all(), row[0], row[1]

        rows, state, last = _there(await self._table.read(look))
        told = tuple(
            JobEvent(number, name, self._table.open(identifier, f"event:{number}", data))
            for number, name, data in rows
        )
        return told, state in FINAL and (told[-1].number if told else after) >= last

    async def cancel(self, tenant: str, identifier: str) -> Job:
        """Ask for the end of a job: at once where it waits, within one call where it is at work.

        A second time changes nothing.

        Raises:
            NotFoundError: as `get`.
            ConflictError: it succeeded or failed before.
        """

        def ask(connection: sa.Connection) -> Job | None:
            this = _of(tenant, identifier)
            at = self._table.now(connection)
            waiting = JOBS.update().where(this, JOBS.c.state == "queued")
            if connection.execute(
                waiting.values(state="cancelled", cancel_requested=True, finished_at=at)
            ).rowcount:
                self._table.tell(connection, identifier, "state", {"state": "cancelled"})
            connection.execute(
                JOBS.update().where(this, JOBS.c.state == "running").values(cancel_requested=True)
            )
            return self._table.job(connection, this)

        job = _there(await self._table.write(ask))
        if job.state in ("succeeded", "failed"):
            raise ConflictError(f"the measurement has ended before: it is {job.state}")
        return job

    async def delete(self, tenant: str, identifier: str) -> None:
        """Delete a job that has ended, with its texts and events; the books keep what it cost.

        Raises:
            NotFoundError: as `get`.
            ConflictError: it waits or is at work.
        """

        def remove(connection: sa.Connection) -> str | None:
            this = _of(tenant, identifier)
            # An ended job never begins again: no claim can write to it between these statements, or later.
            gone = connection.execute(JOBS.delete().where(this, JOBS.c.state.in_(FINAL))).rowcount
            if not gone:
                return connection.scalar(sa.select(JOBS.c.state).where(this))
            connection.execute(EVENTS.delete().where(EVENTS.c.job == identifier))
            return "deleted"

        state = _there(await self._table.write(remove))
        if state != "deleted":
            raise ConflictError(f"the measurement has not ended: it is {state}", hint="cancel it first")

    async def forget(self, retention_seconds: float) -> int:
        """Delete jobs that ended longer ago, with their texts and events; return how many."""

        def delete(connection: sa.Connection) -> int:
            until = self._table.now(connection) - retention_seconds
            old = sa.select(JOBS.c.id).where(JOBS.c.finished_at < until)
            connection.execute(EVENTS.delete().where(EVENTS.c.job.in_(old)))
            return connection.execute(JOBS.delete().where(JOBS.c.finished_at < until)).rowcount

        return await self._table.write(delete)

    async def oldest_open(self) -> float | None:
        """Return when the oldest job was made that has not ended, ``None`` where all have."""
        asked = sa.select(sa.func.min(JOBS.c.created_at)).where(JOBS.c.state.not_in(FINAL))
        return await self._table.read(lambda connection: connection.scalar(asked))

    async def counts(self) -> dict[str, int]:
        """Return how many jobs there are in each state that has any."""
        asked = sa.select(JOBS.c.state, sa.func.count()).group_by(JOBS.c.state)

        def count(connection: sa.Connection) -> dict[str, int]:
            return {row[0]: int(row[1]) for row in connection.execute(asked)}

        return await self._table.read(count)

    def _known(
        self, connection: sa.Connection, names: tuple[str, ...], fingerprints: tuple[str, ...]
    ) -> Job | None:
        if not names:
            return None
        row = connection.execute(sa.select(JOBS).where(JOBS.c.idempotency.in_(names))).mappings().first()
        if row is None:
            return None
        if row["fingerprint"] not in fingerprints:
            raise ConflictError("this Idempotency-Key has made a measurement of another request")
        return self._table.job_of(connection, row)

    def _room(self, connection: sa.Connection, tenant: str) -> None:
        waiting = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.state == "queued")
        if int(connection.scalar(waiting.where(JOBS.c.tenant == tenant)) or 0) >= self._queue:
            raise TooManyRequestsError(f"{self._queue} measurements wait already", retry_after=30.0)
        if int(connection.scalar(waiting) or 0) >= self._queue * _TENANTS_WORTH:
            raise OverloadedError("too many measurements wait already", retry_after=60.0)


def _of(tenant: str, identifier: str) -> sa.ColumnElement[bool]:
    return sa.and_(JOBS.c.id == identifier, JOBS.c.tenant == tenant)


def _there(found: T | None) -> T:
    if found is None:
        raise NotFoundError("there is no such measurement")
    return found


def _one_at_a_time(connection: sa.Connection, tenant: str) -> None:
    """Count and insert without another in between; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        lock = int.from_bytes(hashlib.sha256(f"cert-jobs:{tenant}".encode()).digest()[:8], signed=True)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
