"""Who works on which job: leases that expire, and fencing tokens that tell an old holder from the new one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cert.coordination.store.processes import surely_dead, this_process
from cert.services.coordination.jobs.records import Claim, JobState, Standing
from cert.services.coordination.jobs.schema import EVENTS, JOBS
from cert.services.coordination.jobs.table import JobTable

__all__ = ["JobClaims"]

# Events of progress that are kept of one job, the latest.
_MOST_EVENTS = 300


class JobClaims:
    """What replicas can do with jobs.

    A job is at work under one claim at a time. Whoever has it gives a sign of life well before the lease
    expires; after that, or once its process is seen to be dead, another claims the job. Whatever an earlier
    claim still writes is refused by its number.

    Args:
        table: where the jobs are.
        lease_seconds: how long a claim holds without a sign of life.
        owner: the name of whoever claims; that of this process by default.
    """

    def __init__(self, table: JobTable, lease_seconds: float = 30.0, owner: str | None = None) -> None:
        self._table = table
        self.lease_seconds = lease_seconds
        self._owner = this_process() if owner is None else owner

    async def claim(self) -> Claim | None:
        """Take the job that should be worked on next: of the tenant with the fewest at work, the oldest.

        Raises:
            StoreError: the database cannot be used.
        """

        def take(connection: sa.Connection) -> Claim | None:
            now = self._table.now(connection)
            row = connection.execute(_next(connection, now)).mappings().first()
            if row is None:
                return None
            fence, died = row["fence"] + 1, row["state"] == "running"
            connection.execute(
                JOBS.update()
                .where(JOBS.c.id == row["id"])
                .values(
                    state="running",
                    started_at=sa.func.coalesce(JOBS.c.started_at, now),
                    fence=fence,
                    owner=self._owner,
                    lease_until=now + self.lease_seconds,
                    deaths=JOBS.c.deaths + int(died),
                )
            )
            told = {"state": "running", "claim": fence, "resumed": fence > 1}
            self._table.tell(connection, row["id"], "state", told)
            job = self._table.job(connection, JOBS.c.id == row["id"])
            assert job is not None
            return Claim(job, fence, row["deaths"] + int(died))

        return await self._table.write(take)

    async def renew(self, claim: Claim) -> Standing:
        """Give a sign of life, and hear how the claim stands.

        Raises:
            StoreError: the database cannot be used.
        """

        def push(connection: sa.Connection) -> Standing:
            until = self._table.now(connection) + self.lease_seconds
            if not connection.execute(JOBS.update().where(_held(claim)).values(lease_until=until)).rowcount:
                return "lost"
            return _standing(connection, claim)

        return await self._table.write(push)

    async def standing(self, claim: Claim) -> Standing:
        """Say whether a call may still be paid for under a claim.

        Raises:
            StoreError: the database cannot be read; the call must not be made.
        """
        return await self._table.read(lambda connection: _standing(connection, claim))

    async def progress(self, claim: Claim, done: int, saved: int, data: dict[str, Any]) -> bool:
        """Keep how far a job is; ``False`` says that it is another's by now."""

        def keep(connection: sa.Connection) -> bool:
            # A run that is gone on with counts from nothing again; readers see the larger number.
            further = sa.case((JOBS.c.done > done, JOBS.c.done), else_=done)
            saying = JOBS.update().where(_held(claim)).values(done=further, saved_micro_dollars=saved)
            if not connection.execute(saying).rowcount:
                return False
            self._table.tell(connection, claim.job.id, "progress", data)
            last = int(connection.scalar(sa.select(JOBS.c.events).where(JOBS.c.id == claim.job.id)) or 0)
            connection.execute(
                EVENTS.delete().where(
                    EVENTS.c.job == claim.job.id,
                    EVENTS.c.name == "progress",
                    EVENTS.c.number <= last - _MOST_EVENTS,
                )
            )
            return True

        return await self._table.write(keep)

    async def release(self, claim: Claim) -> bool:
        """Give a job back, so that another goes on with it at once."""

        def give(connection: sa.Connection) -> bool:
            back = JOBS.update().where(_held(claim)).values(state="queued", owner=None, lease_until=None)
            if not connection.execute(back).rowcount:
                return False
            self._table.tell(connection, claim.job.id, "state", {"state": "queued", "resumed": True})
            return True

        return await self._table.write(give)

    async def finish(
        self,
        claim: Claim,
        state: JobState,
        *,
        result: str | None = None,
        report: str | None = None,
        summary: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
        done: int | None = None,
    ) -> bool:
        """End a job, once; ``False`` says that it is another's by now, and nothing was kept."""
        identifier = claim.job.id
        texts = {"result": result, "report": report, "summary": summary, "error": error}
        sealed = {
            name: self._table.seal(identifier, name, text) for name, text in texts.items() if text is not None
        }

        def end(connection: sa.Connection) -> bool:
            values: dict[str, Any] = {
                "state": state,
                "finished_at": self._table.now(connection),
                "owner": None,
                "lease_until": None,
                **sealed,
            }
            if done is not None:
                values["done"] = done
            if not connection.execute(JOBS.update().where(_held(claim)).values(**values)).rowcount:
                return False
            told: dict[str, Any] = {"state": state}
            if error is not None:
                told["error"] = error
            self._table.tell(connection, identifier, "state", told)
            return True

        return await self._table.write(end)


def _next(connection: sa.Connection, now: float) -> sa.Select[Any]:
    owners = sa.select(JOBS.c.owner).where(JOBS.c.state == "running", JOBS.c.owner.is_not(None)).distinct()
    dead = [owner for owner in connection.scalars(owners) if surely_dead(owner)]
    gone = sa.and_(JOBS.c.state == "running", sa.or_(JOBS.c.lease_until <= now, JOBS.c.owner.in_(dead)))
    other = JOBS.alias()
    at_work = (
        sa.select(sa.func.count())
        .select_from(other)
        .where(other.c.tenant == JOBS.c.tenant, other.c.state == "running")
        .scalar_subquery()
    )
    return (
        sa.select(JOBS)
        .where(sa.or_(JOBS.c.state == "queued", gone))
        .order_by(at_work, JOBS.c.number)
        .limit(1)
        .with_for_update(skip_locked=True, of=JOBS)  # SQLite has one writer, and leaves this out
    )


def _held(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.and_(JOBS.c.id == claim.job.id, JOBS.c.fence == claim.fence, JOBS.c.state == "running")


def _standing(connection: sa.Connection, claim: Claim) -> Standing:
    asked = sa.select(JOBS.c.cancel_requested).where(_held(claim))
    wanted = connection.scalar(asked)
    if wanted is None:
        return "lost"
    return "cancel" if wanted else "held"
