"""The books of a budget in Redis, shared by replicas: each step one Lua script, in Redis's own steady time.

The books carry a random generation and a count of steps. A replica that has worked with them before refuses
books that are missing, others, or older than it has seen: Redis has lost data (no `appendonly`, a flush, an
old backup, a failover that lagged), and going on from there could spend the limit twice. One that has just
started has nothing to compare with; books that begin are therefore told of (`BudgetBegun`).
"""

from __future__ import annotations

import secrets
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from cert.core.budget_ledger import HOUR_SECONDS, Account, BudgetLimits, BudgetSnapshot, Outcome
from cert.core.budget_script import budget_step
from cert.core.clock import Clock
from cert.core.errors import StoreError
from cert.core.events import BudgetBegun, EventHub
from cert.core.outage import Outage
from cert.core.redis_scripts import RedisScripts
from cert.core.redis_steps import Step, take, take_async
from cert.core.redis_time import TimeWitness

__all__ = ["RedisBudgetStore"]

T = TypeVar("T")

# Closings that Redis has not heard of yet; those beyond are left to expire into spending.
_MOST_PENDING = 10_000
_PENDING_A_STEP = 50

# An id and what it cost; None is all that was set aside.
_Late: TypeAlias = tuple[str, int | None]


class RedisBudgetStore:
    """Books that replicas share.

    Args:
        redis: where they are. It must keep what it has acknowledged (`appendonly yes`) and evict nothing
            (`maxmemory-policy noeviction`).
        name: the key of the books.
        limits: of this replica; all are meant to have the same.
        clock: monotonic, of this replica: it guards against jumps of Redis's wall clock.
        hub: told when books begin, when they cannot be used, and when they can again.
    """

    def __init__(
        self, redis: RedisScripts, name: str, limits: BudgetLimits, *, clock: Clock, hub: EventHub
    ) -> None:
        self._redis = redis
        self._name = name
        self.limits = limits
        self.script = budget_step(limits)
        self.clock = clock
        self._hub = hub
        # The braces make all keys live on one node of a cluster, as a script needs.
        self.keys = [
            f"cert:budget:{{{name}}}:{part}" for part in ("state", "slots", "order", "open", "held", "agents")
        ]
        self._outage = Outage(f"budget.{name}", "fail_closed", hub)
        self._witness = TimeWitness()
        self._lock = threading.Lock()
        self._generation = ""
        self._steps = 0
        self._lost_at: float | None = None
        self._pending: deque[_Late] = deque(maxlen=_MOST_PENDING)

    @property
    def degraded(self) -> str | None:
        """``fail_closed`` while the books cannot be used."""
        return self._outage.mode

    def reserving(
        self, identifier: str, amount: int, agent: str | None, then: Callable[[Outcome | StoreError], T]
    ) -> Step[T]:
        """Return the step that does what `reserve` does; ``then`` makes its result."""
        return _Reserving(self, identifier, amount, agent, then)

    def closing(
        self, identifier: str, spent: int | None, then: Callable[[Outcome | StoreError], T]
    ) -> Step[T]:
        """Return the step that does what `close` does; ``then`` makes its result."""
        return _Closing(self, identifier, spent, then)

    def reserve(self, identifier: str, amount: int, agent: str | None) -> Outcome:
        """Set an amount aside, or say which limit refuses.

        Raises:
            StoreError: the books cannot be used; what Redis may have set aside all the same is given back.
        """
        step = self.reserving(identifier, amount, agent, _or_raise)
        take(self._redis, [step])
        return step.result()

    async def reserve_async(self, identifier: str, amount: int, agent: str | None) -> Outcome:
        """Do what `reserve` does without holding up the event loop."""
        step = self.reserving(identifier, amount, agent, _or_raise)
        await take_async(self._redis, [step])
        return step.result()

    def close(self, identifier: str, spent: int | None) -> Outcome:
        """Turn a reservation into spending.

        Raises:
            StoreError: the books cannot be used; the closing is sent again with a later step.
        """
        step = self.closing(identifier, spent, _or_raise)
        take(self._redis, [step])
        return step.result()

    async def close_async(self, identifier: str, spent: int | None) -> Outcome:
        """Do what `close` does without holding up the event loop."""
        step = self.closing(identifier, spent, _or_raise)
        await take_async(self._redis, [step])
        return step.result()

    def snapshot(self) -> tuple[BudgetSnapshot, Outcome]:
        """Return the state of the books.

        Raises:
            StoreError: they cannot be read.
        """
        step = _Looking(self)
        take(self._redis, [step])
        return step.result()

    async def snapshot_async(self) -> tuple[BudgetSnapshot, Outcome]:
        """Do what `snapshot` does without holding up the event loop."""
        step = _Looking(self)
        await take_async(self._redis, [step])
        return step.result()

    def closed(self) -> StoreError | None:
        """Return why the books are not to be asked just now; ``None`` lets the caller ask."""
        wait = self._outage.closed_for(self.clock.monotonic())
        if wait == 0:
            return None
        return StoreError(
            "the shared budget cannot be used just now, so that nothing may be spent",
            hint="see that Redis runs, is not full and keeps its data",
            retry_after=wait,
        )

    def gone(self) -> None:
        """Take note that Redis could not be asked."""
        self._outage.failed(self.clock.monotonic())

    def take_pending(self) -> list[_Late]:
        """Return closings that Redis has yet to hear of; they go with a step, or back to `send_later`."""
        with self._lock:
            return [self._pending.popleft() for _ in range(min(len(self._pending), _PENDING_A_STEP))]

    def send_later(self, closings: list[_Late]) -> None:
        """Keep closings for a later step."""
        with self._lock:
            self._pending.extend(closings)

    def header(self, asked_at: float) -> list[str | int]:
        """Return what every step begins with."""
        with self._lock:
            if self._lost_at is not None and self.limits.total is None:
                lost_for = asked_at - self._lost_at
                # What the lost books held is older than an hour by then, reservations included.
                if lost_for > HOUR_SECONDS + self.limits.expires_after:
                    self._generation, self._steps, self._lost_at = "", 0, None
            return [
                *self._witness.evidence(asked_at),
                self._generation,
                self._steps,
                "" if self._generation else secrets.token_hex(8),
            ]

    def read(self, asked_at: float, answer: list[Any]) -> Outcome:
        """Take note of an answer, and return what it means."""
        word = _text(answer[0])
        if word == "lost":
            self._lose(asked_at)
        steps, now, hour, total, reserved, late, charged = (int(number) for number in answer[2:9])
        with self._lock:
            self._generation, self._lost_at = _text(answer[1]), None
            self._steps = max(self._steps, steps)
        self._witness.saw(now, asked_at=asked_at, heard_at=self.clock.monotonic())
        self._outage.worked()
        if steps == 1:
            self._hub.emit(BudgetBegun(budget=self._name))
        return Outcome(
            refused_by=None if word == "ok" else word,
            charged=None if charged < 0 else charged,
            late=late,
            hour=hour,
            total=total,
            reserved=reserved,
        )

    def _lose(self, now: float) -> None:
        with self._lock:
            if self._lost_at is None:
                self._lost_at = now
        self._outage.failed(self.clock.monotonic())
        raise StoreError(
            "the shared Redis has lost the books of the budget, so that nothing may be spent",
            hint="restore its data (it needs appendonly yes and no eviction), or restart every replica to "
            "begin anew",
            context={"store": "redis", "reason": "lost"},
        )

    def snapshot_of(self, outcome: Outcome, book: list[Any]) -> BudgetSnapshot:
        """Return the state of the books from an answer."""
        flat = [_text(part) for part in book]
        sums = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
        agents = {
            agent: Account(sums.get(f"s:{agent}", 0), sums.get(f"r:{agent}", 0))
            for agent in sorted({field[2:] for field in sums})
        }
        return BudgetSnapshot(
            outcome.hour, outcome.total, outcome.reserved, MappingProxyType(agents), self.limits
        )


class _BookStep(Step[T]):
    """One step in the books."""

    def __init__(self, store: RedisBudgetStore) -> None:
        self.script = store.script
        self.keys = store.keys
        self._store = store
        self._late: list[_Late] = []
        self._outcome: Outcome | BaseException | None = None

    @property
    def rides(self) -> bool:
        return self._store.degraded is None

    def begin(self) -> bool:
        closed = self._store.closed()
        if closed is not None:
            self.refuse(closed)
        return closed is None

    def refuse(self, error: StoreError) -> None:
        """Take that Redis is not asked."""
        self._outcome = error
        self.pending = False

    def arguments(self) -> list[str | int]:
        store = self._store
        self._asked_at = store.clock.monotonic()
        return [*store.header(self._asked_at), *self.question()]

    @abstractmethod
    def question(self) -> list[str | int]:
        """Return the arguments after the header."""

    def answered(self, answer: list[Any]) -> None:
        self._outcome = self._store.read(self._asked_at, answer)

    def failed(self, error: BaseException) -> None:
        self._outcome = error
        if isinstance(error, StoreError):
            self._store.gone()

    def passed_over(self) -> None:
        self._store.send_later(self._late)

    def known(self) -> Outcome | StoreError:
        """Return what came of it, or why that is not known."""
        assert isinstance(self._outcome, Outcome | StoreError)
        return self._outcome


class _Reserving(_BookStep[T]):
    def __init__(
        self,
        store: RedisBudgetStore,
        identifier: str,
        amount: int,
        agent: str | None,
        then: Callable[[Outcome | StoreError], T],
    ) -> None:
        super().__init__(store)
        self._identifier = identifier
        self._amount = amount
        self._agent = agent
        self._then = then

    def question(self) -> list[str | int]:
        self._late = self._store.take_pending()
        return ["reserve", self._identifier, self._amount, self._agent or "", *_flat(self._late)]

    def failed(self, error: BaseException) -> None:
        super().failed(error)
        # Cancelled or failed on the way: Redis may have set it aside, but the call is not made.
        self._store.send_later([*self._late, (self._identifier, 0)])

    def result(self) -> T:
        return self._then(self.known())


class _Closing(_BookStep[T]):
    def __init__(
        self,
        store: RedisBudgetStore,
        identifier: str,
        spent: int | None,
        then: Callable[[Outcome | StoreError], T],
    ) -> None:
        super().__init__(store)
        self._own = (identifier, spent)
        self._then = then

    def refuse(self, error: StoreError) -> None:
        super().refuse(error)
        self._store.send_later([self._own])

    def question(self) -> list[str | int]:
        self._late = self._store.take_pending()
        return ["close", *_flat([*self._late, self._own])]

    def failed(self, error: BaseException) -> None:
        super().failed(error)
        self._store.send_later([*self._late, self._own])

    def result(self) -> T:
        return self._then(self.known())


class _Looking(_BookStep[tuple[BudgetSnapshot, Outcome]]):
    def question(self) -> list[str | int]:
        return ["snapshot"]

    def answered(self, answer: list[Any]) -> None:
        super().answered(answer)
        self._book = answer[9]

    def result(self) -> tuple[BudgetSnapshot, Outcome]:
        outcome = _or_raise(self.known())
        return self._store.snapshot_of(outcome, self._book), outcome


def _or_raise(known: Outcome | StoreError) -> Outcome:
    if isinstance(known, StoreError):
        raise known
    return known


def _flat(closings: list[_Late]) -> list[str | int]:
    return [part for identifier, spent in closings for part in (identifier, -1 if spent is None else spent)]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
