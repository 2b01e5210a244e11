"""The books of a budget: what is spent in the last hour and in all, and what is set aside, without I/O."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from cert.core.clock import Clock

__all__ = [
    "Account",
    "BudgetLimits",
    "BudgetSnapshot",
    "BudgetStore",
    "Ledger",
    "LocalBudgetStore",
    "Outcome",
]

HOUR_SECONDS = 3600
# Names of agents that have an account of their own. They come from callers: without a bound, one that makes
# names up could fill the memory. All others share one account.
MOST_AGENTS = 1000
OTHER_AGENTS = "other"


@dataclass(frozen=True)
class BudgetLimits:
    """What a budget allows, in micro-dollars; ``None`` is no limit.

    Attributes:
        expires_after: seconds until a reservation that nobody settles counts as spent, in full.
    """

    per_hour: int | None = None
    total: int | None = None
    expires_after: float = 900.0


@dataclass(frozen=True)
class Account:
    """What one agent has spent in all and has set aside, in micro-dollars."""

    spent: int
    reserved: int


@dataclass(frozen=True)
class BudgetSnapshot:
    """A budget at one moment, in micro-dollars.

    Attributes:
        spent_in_hour: in the rolling hour, kept up to one second longer.
        spent_in_total: since the budget began.
        reserved: set aside for calls in flight.
        agents: by name, of those that were named; beyond the first thousand names all together as ``other``.
    """

    spent_in_hour: int
    spent_in_total: int
    reserved: int
    agents: Mapping[str, Account]
    limits: BudgetLimits


@dataclass(frozen=True)
class Outcome:
    """What a step in the books came to.

    Attributes:
        refused_by: the limit that refuses a reservation, ``hour`` or ``total``; ``None`` if it is granted.
        charged: what closing a reservation added to the spending; ``None`` if it was closed before.
        late: what this step added to the spending besides, for reservations that expired.
        hour: spent in the rolling hour, after the step.
        total: spent in all, after the step.
        reserved: set aside, after the step.
    """

    refused_by: str | None
    charged: int | None
    late: int
    hour: int
    total: int
    reserved: int


class BudgetStore(Protocol):
    """Where the books are: in this process, or shared. Each step is atomic."""

    @property
    def degraded(self) -> str | None:
        """What the store does instead of its work just now; ``None`` when all is well."""
        ...

    def reserve(self, identifier: str, amount: int, agent: str | None) -> Outcome:
        """Set an amount aside, or say which limit refuses."""
        ...

    async def reserve_async(self, identifier: str, amount: int, agent: str | None) -> Outcome:
        """Do what `reserve` does without holding up the event loop."""
        ...

    def close(self, identifier: str, spent: int | None) -> Outcome:
        """Turn a reservation into spending; ``None`` spends all that was set aside."""
        ...

    async def close_async(self, identifier: str, spent: int | None) -> Outcome:
        """Do what `close` does without holding up the event loop."""
        ...

    def snapshot(self) -> tuple[BudgetSnapshot, Outcome]:
        """Return the state of the books."""
        ...

    async def snapshot_async(self) -> tuple[BudgetSnapshot, Outcome]:
        """Do what `snapshot` does without holding up the event loop."""
        ...


@dataclass
class _Held:
    amount: int
    agent: str | None
    expires_at: float


class Ledger:
    """The books, as a state machine that is told the time.

    At every moment: spent in the hour + reserved ≤ the limit of the hour, and the same in all, as long as
    nobody spends more than was set aside. Spending is dated when it is settled, which is not before it was
    made, and kept in slots of one second, each dated at its end: it is never forgotten too early.
    """

    def __init__(self, limits: BudgetLimits) -> None:
        self.limits = limits
        self._hour = self._total = self._reserved = 0
        self._slots: deque[list[int]] = deque()
        self._held: dict[str, _Held] = {}
        self._agents: dict[str, list[int]] = {}
        self._now = -math.inf

    def reserve(self, identifier: str, amount: int, agent: str | None, now: float) -> Outcome:
        """Set an amount aside if every limit has room for all of it."""
        late = self._advance(now)
        refused_by = self._refusal(amount)
        if refused_by is None:
            agent = self._known(agent)
            self._held[identifier] = _Held(amount, agent, self._now + self.limits.expires_after)
            self._reserved += amount
            self._account(agent)[1] += amount
        return self._outcome(refused_by=refused_by, late=late)

    def close(self, identifier: str, spent: int | None, now: float) -> Outcome:
        """Turn a reservation into spending; does nothing if it is closed or has expired."""
        late = self._advance(now)
        return self._outcome(charged=self._close(identifier, spent), late=late)

    def snapshot(self, now: float) -> tuple[BudgetSnapshot, Outcome]:
        """Return the state of the books."""
        late = self._advance(now)
        agents = {agent: Account(*sums) for agent, sums in self._agents.items()}
        state = BudgetSnapshot(self._hour, self._total, self._reserved, MappingProxyType(agents), self.limits)
        return state, self._outcome(late=late)

    def _refusal(self, amount: int) -> str | None:
        sought = self._reserved + amount
        if self.limits.per_hour is not None and self._hour + sought > self.limits.per_hour:
            return "hour"
        if self.limits.total is not None and self._total + sought > self.limits.total:
            return "total"
        return None

    def _advance(self, now: float) -> int:
        self._now = max(self._now, now)
        late = 0
        # All live equally long, so the oldest is the first to expire.
        while self._held and next(iter(self._held.values())).expires_at <= self._now:
            late += self._close(next(iter(self._held)), None) or 0
        while self._slots and self._slots[0][0] + HOUR_SECONDS <= self._now:
            self._hour -= self._slots.popleft()[1]
        return late

    def _close(self, identifier: str, spent: int | None) -> int | None:
        held = self._held.pop(identifier, None)
        if held is None:
            return None
        charged = held.amount if spent is None else spent
        slot = math.ceil(self._now)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append([slot, 0])
        self._slots[-1][1] += charged
        self._hour += charged
        self._total += charged
        self._reserved -= held.amount
        account = self._account(held.agent)
        account[0] += charged
        account[1] -= held.amount
        return charged

    def _known(self, agent: str | None) -> str | None:
        if agent is None or agent in self._agents or len(self._agents) < MOST_AGENTS:
            return agent
        return OTHER_AGENTS

    def _account(self, agent: str | None) -> list[int]:
        return [0, 0] if agent is None else self._agents.setdefault(agent, [0, 0])

    def _outcome(
        self, *, refused_by: str | None = None, charged: int | None = None, late: int = 0
    ) -> Outcome:
        return Outcome(refused_by, charged, late, self._hour, self._total, self._reserved)


class LocalBudgetStore:
    """The books of one process: a ledger behind a lock that is held for microseconds."""

    degraded = None

    def __init__(self, limits: BudgetLimits, clock: Clock) -> None:
        self._ledger = Ledger(limits)
        self._clock = clock
        self._lock = threading.Lock()

    def reserve(self, identifier: str, amount: int, agent: str | None) -> Outcome:
        """Set an amount aside, or say which limit refuses."""
        with self._lock:
            return self._ledger.reserve(identifier, amount, agent, self._clock.monotonic())

    async def reserve_async(self, identifier: str, amount: int, agent: str | None) -> Outcome:
        """Do what `reserve` does."""
        return self.reserve(identifier, amount, agent)

    def close(self, identifier: str, spent: int | None) -> Outcome:
        """Turn a reservation into spending."""
        with self._lock:
            return self._ledger.close(identifier, spent, self._clock.monotonic())

    async def close_async(self, identifier: str, spent: int | None) -> Outcome:
        """Do what `close` does."""
        return self.close(identifier, spent)

    def snapshot(self) -> tuple[BudgetSnapshot, Outcome]:
        """Return the state of the books."""
        with self._lock:
            return self._ledger.snapshot(self._clock.monotonic())

    async def snapshot_async(self) -> tuple[BudgetSnapshot, Outcome]:
        """Do what `snapshot` does."""
        return self.snapshot()
