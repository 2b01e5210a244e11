"""The budget of each tenant: `cert.core.budget`, with what other replicas and earlier processes spent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from cert.core.budget import Budget
from cert.core.errors import StoreError
from cert.core.redis_scripts import RedisScripts
from cert.services.coordination.jobs.ledger import Ledger
from cert.services.coordination.options import CoordinationOptions

__all__ = ["BudgetState", "TenantBudget", "TenantBudgets"]

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A tenant's budget at one moment; micro-dollars, ``None`` is no limit."""

    per_hour: int | None
    total: int | None
    spent_in_hour: int
    spent_in_total: int
    reserved: int


@dataclass
class TenantBudget:
    """The budget of one tenant in this process.

    Attributes:
        budget: asked before each call.
        before: spent before the last hour when this process began: no part of the budget's own books.
        known: of the ledger, what the budget's books hold.
    """

    tenant: str
    budget: Budget
    ledger: Ledger
    before: int
    known: int
    unkept: list[tuple[str, str, int]] = field(default_factory=list)

    async def catch_up(self) -> None:
        """Take over what others have spent, so that the limits count it; shared books need no such thing."""
        await self._keep_unkept()
        if self.budget.redis is not None:
            return
        foreign = await self.ledger.spent(self.tenant) - self.known
        if foreign > 0:
            self.known += foreign
            (await self.budget.reserve_async(0)).settle(foreign)

    async def book(self, job: str, model: str, micro_dollars: int) -> None:
        """Book an answer of this process; one that cannot be kept now is kept before the next call."""
        self.known += micro_dollars
        self.unkept.append((job, model, micro_dollars))
        try:
            await self._keep_unkept()
        except StoreError:
            return  # the answer is paid and must not be lost to it; `catch_up` raises before the next one

    async def _keep_unkept(self) -> None:
        while self.unkept:
            job, model, amount = self.unkept.pop()
            try:
                await self.ledger.book(job, self.tenant, model, amount)
            except BaseException:
                self.unkept.append((job, model, amount))
                raise

    async def state(self) -> BudgetState:
        """Return where the budget stands.

        Raises:
            StoreError: the books cannot be read.
        """
        await self.catch_up()
        now = await self.budget.snapshot_async()
        total = now.limits.total
        return BudgetState(
            per_hour=now.limits.per_hour,
            total=None if total is None else total + self.before,
            spent_in_hour=now.spent_in_hour,
            spent_in_total=now.spent_in_total + self.before,
            reserved=now.reserved,
        )


class TenantBudgets:
    """Makes each tenant's budget once.

    Args:
        options: with the limits, which are those of each tenant.
        ledger: with what was spent before.
        redis: where replicas share the books; without it each counts the others' calls once they are paid.
    """

    def __init__(
        self, options: CoordinationOptions, ledger: Ledger, redis: RedisScripts | None = None
    ) -> None:
        self._options = options
        self._ledger = ledger
        self._redis = redis
        self._made: dict[str, TenantBudget] = {}
        self._making = asyncio.Lock()

    async def of(self, tenant: str) -> TenantBudget:
        """Return a tenant's budget.

        Raises:
            StoreError: what was spent before cannot be read.
        """
        async with self._making:
            if tenant not in self._made:
                self._made[tenant] = await self._new(tenant)
            return self._made[tenant]

    async def _new(self, tenant: str) -> TenantBudget:
        per_hour, total = self._options.per_hour, self._options.total
        before = 0
        if self._redis is None:
            before = await self._ledger.spent(tenant) - await self._ledger.spent(tenant, _HOUR)
            total = None if total is None else max(1, total - before)
        budget = Budget(per_hour, total, name=f"coordination:{tenant}", redis=self._redis)
        return TenantBudget(tenant, budget, self._ledger, before, before)
