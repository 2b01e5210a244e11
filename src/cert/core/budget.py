"""A hard limit on dollars, an hour and in all: before a call, what it may cost is set aside.

::

    budget = Budget(limit_per_hour=micro_dollars(Decimal("20")), limit_total=None)
    reservation = budget.reserve(upper_bound, agent="critic")
    ...                            # the call
    reservation.settle(actual)     # billed: what it cost
    reservation.keep()             # timeout or cancel: it may be billed, all that was set aside counts
    reservation.release()          # surely not billed: refused before it was worked on

All amounts are whole micro-dollars. A reservation that nobody closes, since its process died, becomes
spending at its full amount after ``expires_after`` seconds: giving it back could overshoot the limit.
"""

from __future__ import annotations

import functools
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.core.bounds import positive
from cert.core.budget_ledger import (
    Account,
    BudgetLimits,
    BudgetSnapshot,
    BudgetStore,
    LocalBudgetStore,
    Outcome,
)
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import BudgetExceededError, ConfigurationError, InputError, StoreError
from cert.core.events import BudgetRefused, BudgetSettled, EventHub, default_hub
from cert.core.money import MOST_MICRO_DOLLARS, dollars, micro_dollars
from cert.core.redis_scripts import RedisScripts
from cert.core.redis_steps import Step

if TYPE_CHECKING:
    from cert.core.budget_redis import RedisBudgetStore

__all__ = [
    "Account",
    "Budget",
    "BudgetLimits",
    "BudgetSnapshot",
    "Reservation",
    "dollars",
    "micro_dollars",
]


class Budget:
    """Refuses a call that could cost more than is left.

    In this process by default; shared by replicas, and kept over restarts, with ``redis``. A shared budget
    whose Redis is gone, slow, full or has lost the books refuses (`StoreError`) and says so with a
    `ComponentDegraded` event.

    Args:
        limit_per_hour: micro-dollars in any rolling hour; ``None`` is no limit.
        limit_total: micro-dollars in all: over the life of this object, or of the books in Redis.
        name: for events, and the key of shared books.
        expires_after: seconds until an unsettled reservation counts as spent; longer than any call.
        redis: where replicas share the books.
        clock: for tests.
        hub: where events go; the process's own by default.

    Raises:
        ConfigurationError: a limit is not a whole number from 1 to 10^15, or ``expires_after`` not above 0.
    """

    def __init__(
        self,
        limit_per_hour: int | None = None,
        limit_total: int | None = None,
        *,
        name: str = "default",
        expires_after: float = 900.0,
        redis: RedisScripts | None = None,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
    ) -> None:
        _check_limit("limit_per_hour", limit_per_hour)
        _check_limit("limit_total", limit_total)
        positive("expires_after", expires_after)
        self.name = name
        self.limits = BudgetLimits(limit_per_hour, limit_total, expires_after)
        self._hub = hub or default_hub()
        self.redis = redis
        self._store: BudgetStore
        self._shared: RedisBudgetStore | None = None
        if redis is None:
            self._store = LocalBudgetStore(self.limits, clock)
        else:
            from cert.core.budget_redis import RedisBudgetStore

            self._shared = RedisBudgetStore(redis, name, self.limits, clock=clock, hub=self._hub)
            self._store = self._shared

    @property
    def degraded(self) -> str | None:
        """``fail_closed`` while the shared books cannot be used; ``None`` when all is well."""
        return self._store.degraded

    def reserve(self, micro_dollars: int, agent: str | None = None) -> Reservation:
        """Set aside what a call may cost at most.

        Raises:
            BudgetExceededError: a limit has no room for all of it.
            StoreError: the shared books cannot be used, so that nothing may be spent.
            InputError: the amount or the agent's name is none.
        """
        asked = self._ask(micro_dollars, agent)
        return self._granted(asked, self._store.reserve(asked.identifier, micro_dollars, agent))

    async def reserve_async(self, micro_dollars: int, agent: str | None = None) -> Reservation:
        """Do what `reserve` does without holding up the event loop."""
        asked = self._ask(micro_dollars, agent)
        return self._granted(asked, await self._store.reserve_async(asked.identifier, micro_dollars, agent))

    def reserving(self, micro_dollars: int, agent: str | None = None) -> Step[Reservation]:
        """Return what `reserve` would ask of shared books, to be taken with other steps (`redis_steps`).

        Raises:
            InputError: as `reserve` does; all else is raised by the step's result.
        """
        assert self._shared is not None
        asked = self._ask(micro_dollars, agent)
        return self._shared.reserving(
            asked.identifier, micro_dollars, agent, functools.partial(self._known, asked)
        )

    def snapshot(self) -> BudgetSnapshot:
        """Return what is spent and set aside, in all and by agent.

        Raises:
            StoreError: the shared books cannot be read.
        """
        snapshot, outcome = self._store.snapshot()
        self._tell_late(outcome)
        return snapshot

    async def snapshot_async(self) -> BudgetSnapshot:
        """Do what `snapshot` does without holding up the event loop."""
        snapshot, outcome = await self._store.snapshot_async()
        self._tell_late(outcome)
        return snapshot

    def _close(self, identifier: str, spent: int | None) -> bool:
        try:
            return self._closed(self._store.close(identifier, spent))
        except StoreError:
            return False

    async def _close_async(self, identifier: str, spent: int | None) -> bool:
        try:
            return self._closed(await self._store.close_async(identifier, spent))
        except StoreError:
            return False

    def _closing(self, identifier: str, spent: int | None) -> Step[bool]:
        assert self._shared is not None
        return self._shared.closing(identifier, spent, self._known_closed)

    def _known(self, asked: Reservation, outcome: Outcome | StoreError) -> Reservation:
        if isinstance(outcome, StoreError):
            raise outcome
        return self._granted(asked, outcome)

    def _known_closed(self, outcome: Outcome | StoreError) -> bool:
        return not isinstance(outcome, StoreError) and self._closed(outcome)

    def _ask(self, amount: int, agent: str | None) -> Reservation:
        check_amount("micro_dollars", amount)
        if agent is not None and not 1 <= len(agent) <= 200:
            raise InputError("an agent's name has 1 to 200 characters")
        return Reservation(self, secrets.token_hex(16), amount, agent)

    def _granted(self, asked: Reservation, outcome: Outcome) -> Reservation:
        self._tell_late(outcome)
        if outcome.refused_by is None:
            return asked
        self._hub.emit(BudgetRefused(budget=self.name, micro_dollars=asked.micro_dollars))
        by_hour = outcome.refused_by == "hour"
        limit = self.limits.per_hour if by_hour else self.limits.total
        raise BudgetExceededError(
            f"the budget {'an hour' if by_hour else 'in total'} has no room for a call of up to "
            f"${dollars(asked.micro_dollars)}",
            hint="wait until earlier spending is an hour old, or raise the limit"
            if by_hour
            else "raise the limit",
            context={
                "budget": self.name,
                "limit": outcome.refused_by,
                "limit_micro_dollars": limit,
                "spent_micro_dollars": outcome.hour if by_hour else outcome.total,
                "reserved_micro_dollars": outcome.reserved,
                "asked_micro_dollars": asked.micro_dollars,
            },
        )

    def _closed(self, outcome: Outcome) -> bool:
        self._tell_late(outcome)
        if outcome.charged is None:
            return False
        self._tell_settled(outcome.charged, outcome)
        return True

    def _tell_late(self, outcome: Outcome) -> None:
        if outcome.late:
            self._tell_settled(outcome.late, outcome)

    def _tell_settled(self, amount: int, outcome: Outcome) -> None:
        by_hour = self.limits.per_hour is not None
        self._hub.emit(
            BudgetSettled(
                budget=self.name,
                micro_dollars=amount,
                spent_micro_dollars=outcome.hour if by_hour else outcome.total,
                limit_micro_dollars=self.limits.per_hour if by_hour else self.limits.total,
            )
        )


@dataclass(frozen=True)
class Reservation:
    """Dollars that are set aside for one call.

    The first of `settle`, `keep` and `release` counts, from whatever thread; later ones do nothing. They
    never raise for trouble with shared books: the answer that was paid for must not be lost to it. The
    closing is sent again when Redis is back; until then, and at the latest when the reservation expires,
    its full amount counts.
    """

    _budget: Budget
    identifier: str
    micro_dollars: int
    agent: str | None

    def settle(self, actual: int) -> bool:
        """Replace the reservation by what the call cost, in micro-dollars.

        More than was set aside is booked as it is: then the upper bound was none.

        Returns:
            Whether this call closed the reservation and the books know.

        Raises:
            InputError: the amount is not a whole number from 0 to 10^15.
        """
        check_amount("actual", actual)
        return self._budget._close(self.identifier, actual)

    async def settle_async(self, actual: int) -> bool:
        """Do what `settle` does without holding up the event loop."""
        check_amount("actual", actual)
        return await self._budget._close_async(self.identifier, actual)

    def closing(self, spent: int | None) -> Step[bool]:
        """Return what `settle` (or `keep`: ``None``, or `release`: 0) would ask of shared books.

        To be taken with other steps (`redis_steps`).
        """
        if spent is not None:
            check_amount("actual", spent)
        return self._budget._closing(self.identifier, spent)

    def keep(self) -> bool:
        """Count all that was set aside as spent: the call timed out or was cancelled, and may be billed."""
        return self._budget._close(self.identifier, None)

    async def keep_async(self) -> bool:
        """Do what `keep` does without holding up the event loop."""
        return await self._budget._close_async(self.identifier, None)

    def release(self) -> bool:
        """Give all of it back: the call is surely not billed."""
        return self._budget._close(self.identifier, 0)

    async def release_async(self) -> bool:
        """Do what `release` does without holding up the event loop."""
        return await self._budget._close_async(self.identifier, 0)


def check_amount(name: str, amount: int) -> None:
    """Refuse what is not whole micro-dollars.

    Raises:
        InputError: the amount is not a whole number from 0 to 10^15.
    """
    if not _whole(amount) or not 0 <= amount <= MOST_MICRO_DOLLARS:
        raise InputError(f"{name} is {amount!r}; it must be whole micro-dollars from 0 to 10^15")


def _check_limit(name: str, limit: int | None) -> None:
    if limit is not None and not (_whole(limit) and 1 <= limit <= MOST_MICRO_DOLLARS):
        raise ConfigurationError(
            f"{name} is {limit!r}; it must be whole micro-dollars from 1 to 10^15, or None for no limit",
            context={"setting": name},
        )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
