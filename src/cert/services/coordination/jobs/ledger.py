"""What tenants have spent, by model and day; kept when the jobs are gone."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from cert.services.coordination.jobs.schema import JOBS, SPENDING
from cert.services.coordination.jobs.table import JobTable

__all__ = ["Ledger", "Spent"]

_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Spent:
    """Answers that were paid for; micro-dollars.

    Attributes:
        model: that was asked.
        day: days since 1970-01-01, UTC.
        calls: how many.
        micro_dollars: what they cost.
    """

    model: str
    day: int
    calls: int
    micro_dollars: int


class Ledger:
    """The books behind the costs of jobs.

    Args:
        table: where the jobs are.
    """

    def __init__(self, table: JobTable) -> None:
        self._table = table

    async def book(self, job: str, tenant: str, model: str, micro_dollars: int) -> None:
        """Book one answer that was paid for.

        Raises:
            StoreError: it could not be kept.
        """

        def insert(connection: sa.Connection) -> None:
            at = self._table.now(connection)
            row = {"job": job, "tenant": tenant, "model": model, "micro_dollars": micro_dollars}
            connection.execute(SPENDING.insert(), row | {"at": at, "day": int(at // _DAY_SECONDS)})

        await self._table.write(insert)

    async def spent(self, tenant: str, seconds: float | None = None) -> int:
        """Return the micro-dollars of a tenant, of the last seconds or of all time."""

        def add(connection: sa.Connection) -> int:
            asked = sa.select(sa.func.sum(SPENDING.c.micro_dollars)).where(SPENDING.c.tenant == tenant)
            if seconds is not None:
                asked = asked.where(SPENDING.c.at > self._table.now(connection) - seconds)
            return int(connection.scalar(asked) or 0)

        return await self._table.read(add)

    async def by_model_and_day(self, tenant: str, days: int) -> tuple[Spent, ...]:
        """Return what a tenant spent in the last days, the latest first."""

        def add(connection: sa.Connection) -> tuple[Spent, ...]:
            model, day = SPENDING.c.model, SPENDING.c.day
            since = int(self._table.now(connection) // _DAY_SECONDS) - days + 1
            asked = (
                sa.select(model, day, sa.func.count(), sa.func.sum(SPENDING.c.micro_dollars))
                .where(SPENDING.c.tenant == tenant, day >= since)
                .group_by(model, day)
                .order_by(day.desc(), model)
            )
            return tuple(
                Spent(row[0], int(row[1]), int(row[2]), int(row[3])) for row in connection.execute(asked)
            )

        return await self._table.read(add)

    async def saved(self, tenant: str) -> int:
        """Return the micro-dollars that answers which were there saved, of the jobs that are kept."""
        asked = sa.select(sa.func.sum(JOBS.c.saved_micro_dollars)).where(JOBS.c.tenant == tenant)
        return await self._table.read(lambda connection: int(connection.scalar(asked) or 0))
