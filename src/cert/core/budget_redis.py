"""The books of a budget in Redis, shared by replicas: each step one Lua script, in Redis's own steady time.

The books carry a random generation and a count of steps. A replica that has worked with them before refuses
books that are missing, others, or older than it has seen: Redis has lost data (no `appendonly`, a flush, an
old backup, a failover that lagged), and going on from there could spend the limit twice. One that has just
started has nothing to compare with; books that begin are therefore told of (`BudgetBegun`).
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from types import MappingProxyType
from typing import Any, TypeAlias

from cert.core.budget_ledger import HOUR_SECONDS, Account, BudgetLimits, BudgetSnapshot, Outcome
from cert.core.budget_script import BUDGET_STEP
from cert.core.clock import Clock
from cert.core.errors import StoreError
from cert.core.events import BudgetBegun, EventHub
from cert.core.outage import Outage
from cert.core.redis_scripts import RedisScripts
from cert.core.redis_time import TimeWitness

__all__ = ["RedisBudgetStore"]

# Closings that Redis has not heard of yet; those beyond are left to expire into spending.
_MOST_PENDING = 10_000
_PENDING_A_STEP = 50

# An id and what it cost; None is all that was set aside.
_Closing: TypeAlias = tuple[str, int | None]


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
        self._limits = limits
        self._clock = clock
        self._hub = hub
        # The braces make all keys live on one node of a cluster, as a script needs.
        self._keys = [
            f"cert:budget:{{{name}}}:{part}" for part in ("state", "slots", "order", "open", "held", "agents")
        ]
        self._outage = Outage(f"budget.{name}", "fail_closed", hub)
        self._witness = TimeWitness()
        self._lock = threading.Lock()
        self._generation = ""
        self._steps = 0
        self._lost_at: float | None = None
        self._pending: deque[_Closing] = deque(maxlen=_MOST_PENDING)

    @property
    def degraded(self) -> str | None:
        """``fail_closed`` while the books cannot be used."""
        return self._outage.mode

    def reserve(self, identifier: str, amount: int, agent: str | None) -> Outcome:
        """Set an amount aside, or say which limit refuses.

        Raises:
            StoreError: the books cannot be used; what Redis may have set aside all the same is given back.
        """
        asked_at = self._begin()
        late = self._take_pending()
        try:
            return self._end(asked_at, self._run(self._reserve(identifier, amount, agent, late), asked_at))
        except BaseException:
            self._send_later([*late, (identifier, 0)])
            raise

    async def reserve_async(self, identifier: str, amount: int, agent: str | None) -> Outcome:
        """Do what `reserve` does without holding up the event loop."""
        asked_at = self._begin()
        late = self._take_pending()
        try:
            answer = await self._run_async(self._reserve(identifier, amount, agent, late), asked_at)
            return self._end(asked_at, answer)
        except BaseException:
            # Cancelled or failed on the way: Redis may have set it aside, but the call is not made.
            self._send_later([*late, (identifier, 0)])
            raise

    def close(self, identifier: str, spent: int | None) -> Outcome:
        """Turn a reservation into spending.

        Raises:
            StoreError: the books cannot be used; the closing is sent again with a later step.
        """
        closings = [*self._take_pending(), (identifier, spent)]
        try:
            asked_at = self._begin()
            return self._end(asked_at, self._run(["close", *_flat(closings)], asked_at))
        except BaseException:
            self._send_later(closings)
            raise

    async def close_async(self, identifier: str, spent: int | None) -> Outcome:
        """Do what `close` does without holding up the event loop."""
        closings = [*self._take_pending(), (identifier, spent)]
        try:
            asked_at = self._begin()
            return self._end(asked_at, await self._run_async(["close", *_flat(closings)], asked_at))
        except BaseException:
            self._send_later(closings)
            raise

    def snapshot(self) -> tuple[BudgetSnapshot, Outcome]:
        """Return the state of the books.

        Raises:
            StoreError: they cannot be read.
        """
        asked_at = self._begin()
        answer = self._run(["snapshot"], asked_at)
        outcome = self._end(asked_at, answer)
        return self._snapshot(outcome, answer), outcome

    async def snapshot_async(self) -> tuple[BudgetSnapshot, Outcome]:
        """Do what `snapshot` does without holding up the event loop."""
        asked_at = self._begin()
        answer = await self._run_async(["snapshot"], asked_at)
        outcome = self._end(asked_at, answer)
        return self._snapshot(outcome, answer), outcome

    def _begin(self) -> float:
        now = self._clock.monotonic()
        wait = self._outage.closed_for(now)
        if wait > 0:
            raise StoreError(
                "the shared budget cannot be used just now, so that nothing may be spent",
                hint="see that Redis runs, is not full and keeps its data",
                retry_after=wait,
            )
        return now

    def _take_pending(self) -> list[_Closing]:
        with self._lock:
            return [self._pending.popleft() for _ in range(min(len(self._pending), _PENDING_A_STEP))]

    def _send_later(self, closings: list[_Closing]) -> None:
        with self._lock:
            self._pending.extend(closings)

    def _run(self, step: list[str | int], asked_at: float) -> list[Any]:
        try:
            return self._redis.run(BUDGET_STEP, self._keys, [*self._header(asked_at), *step])
        except StoreError:
            self._outage.failed(self._clock.monotonic())
            raise

    async def _run_async(self, step: list[str | int], asked_at: float) -> list[Any]:
        try:
            return await self._redis.run_async(BUDGET_STEP, self._keys, [*self._header(asked_at), *step])
        except StoreError:
            self._outage.failed(self._clock.monotonic())
            raise

    def _header(self, asked_at: float) -> list[str | int]:
        with self._lock:
            if self._lost_at is not None and self._limits.total is None:
                lost_for = asked_at - self._lost_at
                # What the lost books held is older than an hour by then, reservations included.
                if lost_for > HOUR_SECONDS + self._limits.expires_after:
                    self._generation, self._steps, self._lost_at = "", 0, None
            return [*self._witness.evidence(asked_at), self._generation, self._steps, secrets.token_hex(8)]

    def _reserve(
        self, identifier: str, amount: int, agent: str | None, late: list[_Closing]
    ) -> list[str | int]:
        limits = self._limits
        return [
            "reserve",
            identifier,
            amount,
            agent or "",
            -1 if limits.per_hour is None else limits.per_hour,
            -1 if limits.total is None else limits.total,
            round(limits.expires_after * 1_000_000),
            *_flat(late),
        ]

    def _end(self, asked_at: float, answer: list[Any]) -> Outcome:
        word = _text(answer[0])
        if word == "lost":
            self._lose(asked_at)
        steps, now, hour, total, reserved, late, charged = (int(number) for number in answer[2:9])
        with self._lock:
            self._generation, self._lost_at = _text(answer[1]), None
            self._steps = max(self._steps, steps)
        self._witness.saw(now, asked_at=asked_at, heard_at=self._clock.monotonic())
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
        self._outage.failed(self._clock.monotonic())
        raise StoreError(
            "the shared Redis has lost the books of the budget, so that nothing may be spent",
            hint="restore its data (it needs appendonly yes and no eviction), or restart every replica to "
            "begin anew",
            context={"store": "redis", "reason": "lost"},
        )

    def _snapshot(self, outcome: Outcome, answer: list[Any]) -> BudgetSnapshot:
        flat = [_text(part) for part in answer[9]]
        sums = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
        agents = {
            agent: Account(sums.get(f"s:{agent}", 0), sums.get(f"r:{agent}", 0))
            for agent in sorted({field[2:] for field in sums})
        }
        return BudgetSnapshot(
            outcome.hour, outcome.total, outcome.reserved, MappingProxyType(agents), self._limits
        )


def _flat(closings: list[_Closing]) -> list[str | int]:
    return [part for identifier, spent in closings for part in (identifier, -1 if spent is None else spent)]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
