"""A circuit breaker that replicas share through Redis.

The states are changed by a script inside Redis, by Redis's own time, so that of all replicas one probes.
When Redis cannot be used, each process goes on with a breaker of its own and says so (`ComponentDegraded`);
it asks Redis again after a moment, one call at a time.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from importlib import resources
from typing import Any, TypeVar

from cert.core.bounds import positive
from cert.core.circuit_breaker import Breaker, CircuitBreaker, classify
from cert.core.circuit_state import REMEMBERED, BreakerPolicy, CircuitState, Outcome, Permit, Refusal
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import StoreError
from cert.core.events import CircuitChanged, EventHub, default_hub
from cert.core.outage import Outage
from cert.core.redis_scripts import RedisScripts, Script
from cert.core.redis_steps import Step, take, take_async

__all__ = ["RedisCircuitBreaker"]

T = TypeVar("T")

# A circuit that nobody has used for so long is forgotten, that is: closed.
_FORGET_MILLISECONDS = 3_600_000


class RedisCircuitBreaker(Breaker):
    """A breaker whose state is in Redis.

    Args:
        name: of the circuit: the same in all replicas that share it.
        redis: where they share it.
        policy: when it opens and how it comes back; the same in all replicas.
        classify: says what an error means.
        clock: measures how long Redis has been away, and drives the local breaker.
        hub: told of each change of state that this process sees, and when Redis goes and comes back.
        retry_seconds: after Redis failed, until it is asked again.
        time: seconds, in place of Redis's own time; for tests.
    """

    def __init__(
        self,
        name: str,
        redis: RedisScripts,
        policy: BreakerPolicy | None = None,
        *,
        classify: Callable[[BaseException | None], Outcome] = classify,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
        retry_seconds: float = 1.0,
        time: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(name, classify)
        positive("retry_seconds", retry_seconds)
        policy = policy or BreakerPolicy()
        self.redis = redis
        self.script = _script(policy)
        # In braces: one hash slot of a Redis cluster for the three.
        key = f"cert:circuit:{{{name}}}"
        self.keys = [key, f"{key}:results", f"{key}:failures"]
        self._time = time
        self._clock = clock
        self._hub = hub or default_hub()
        self._local = CircuitBreaker(name, policy, classify=classify, clock=clock, hub=EventHub())
        self._outage = Outage(f"circuit:{name}", "local", self._hub, retry_seconds)
        self._lock = threading.Lock()
        self._seen = CircuitState.CLOSED
        self._refusing = False

    @property
    def state(self) -> CircuitState:
        """The state that this process last saw: the shared one, or its own while Redis is gone."""
        return self._local.state if self.degraded else self._seen

    @property
    def degraded(self) -> str | None:
        """``local`` while Redis cannot be used and this process decides by itself; else ``None``."""
        return self._outage.mode

    def check(self) -> None:
        """Raise as `acquire` would if a call were surely refused just now; takes nothing.

        While the circuit was last seen closed this does not ask Redis: `acquire` will.
        """
        if not self._looks_closed():
            self._ask(self._checking())

    async def check_async(self) -> None:
        """Do what `check` does."""
        if not self._looks_closed():
            await self._ask_async(self._checking())

    def acquire(self) -> Permit:
        """Return the permit for one call, as `Breaker.acquire` says."""
        return self._ask(self.acquiring())

    async def acquire_async(self) -> Permit:
        """Do what `acquire` does."""
        return await self._ask_async(self.acquiring())

    def record(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Report the result of a call to the machine that let it through; never raises for want of Redis."""
        if permit.shared:
            self._ask(self.recording(permit, outcome, retry_after))
        else:
            self._record_locally(permit, outcome, retry_after)

    async def record_async(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Do what `record` does."""
        if permit.shared:
            await self._ask_async(self.recording(permit, outcome, retry_after))
        else:
            self._record_locally(permit, outcome, retry_after)

    def acquiring(self) -> Step[Permit]:
        """Return what `acquire` would ask of Redis, to be taken with other steps (`redis_steps`)."""
        return _Question(self, ["acquire"], self._admitted)

    def recording(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> Step[None]:
        """Return what `record` would ask of Redis for a shared permit; see `acquiring`."""
        asked = "" if retry_after is None or not retry_after > 0 else _micros(min(retry_after, 1e6))
        return _Question(
            self, ["record", permit.epoch, permit.probe, outcome.value, asked], lambda _answer: None
        )

    def _checking(self) -> Step[None]:
        def read(answer: Permit | Refusal | None) -> None:
            self._local.check() if answer is None else self._admit(answer)

        return _Question(self, ["check"], read)

    def _record_locally(self, permit: Permit, outcome: Outcome, retry_after: float | None) -> None:
        self._local.record(permit, outcome, retry_after)
        if self.degraded:
            self._see(self._local.state)

    def _ask(self, step: Step[T]) -> T:
        take(self.redis, [step])
        return step.result()

    async def _ask_async(self, step: Step[T]) -> T:
        await take_async(self.redis, [step])
        return step.result()

    def may_ask(self) -> bool:
        """Say whether Redis is to be asked just now."""
        return self._outage.closed_for(self._clock.monotonic()) == 0

    def gone(self) -> None:
        """Take note that Redis could not be asked."""
        self._outage.failed(self._clock.monotonic())

    def arguments(self, question: list[str | int]) -> list[str | int]:
        """Return the arguments of the script for an action and what belongs to it."""
        now = "" if self._time is None else _micros(self._time())
        return [question[0], now, *question[1:]]

    def _admitted(self, answer: Permit | Refusal | None) -> Permit:
        if answer is None:
            permit: Permit | None = self._local.acquire()
            self._see(self._local.state)
        else:
            permit = self._admit(answer)
        assert permit is not None
        return permit

    def read(self, answer: list[Any]) -> Permit | Refusal:
        """Take note of what Redis answered, and return what it means."""
        state, epoch, probe, refused = (_text(part) for part in answer[:4])
        paused = bool(int(answer[4]))
        self._outage.worked()
        self._refusing = paused
        self._see(CircuitState(state))
        seconds = int(refused) / 1e6
        return Refusal(seconds, paused) if seconds > 0 else Permit(int(epoch), int(probe), shared=True)

    def _see(self, state: CircuitState) -> None:
        with self._lock:
            before, self._seen = self._seen, state
            if before is not state:
                self._hub.emit(CircuitChanged(circuit=self.name, before=before.value, after=state.value))

    def _looks_closed(self) -> bool:
        return not self.degraded and self._seen is CircuitState.CLOSED and not self._refusing


class _Question(Step[T]):
    """One question to the shared machine: what to do, and what the answer means (``None``: there is none)."""

    def __init__(
        self,
        breaker: RedisCircuitBreaker,
        question: list[str | int],
        then: Callable[[Permit | Refusal | None], T],
    ) -> None:
        self.script = breaker.script
        self.keys = breaker.keys
        self._breaker = breaker
        self._question = question
        self._then = then
        self._answer: Permit | Refusal | None = None

    @property
    def rides(self) -> bool:
        return self._breaker.degraded is None

    def begin(self) -> bool:
        self.pending = self._breaker.may_ask()
        return self.pending

    def arguments(self) -> list[str | int]:
        return self._breaker.arguments(self._question)

    def answered(self, answer: list[Any]) -> None:
        self._answer = self._breaker.read(answer)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, StoreError):
            self._breaker.gone()

    def result(self) -> T:
        return self._then(self._answer)


@functools.cache
def _script(policy: BreakerPolicy) -> Script:
    settings = [
        policy.failure_rate,
        policy.minimum_calls,
        _micros(policy.window_seconds),
        policy.failures_in_a_row,
        _micros(policy.recovery_seconds),
        _micros(policy.probe_seconds),
        _micros(policy.pause_seconds),
        _micros(policy.pause_maximum_seconds),
        REMEMBERED,
        _FORGET_MILLISECONDS,
    ]
    source = resources.files("cert.core").joinpath("circuit_breaker.lua").read_text("utf-8")
    return Script(source.replace("= SETTINGS", "= " + ", ".join(map(repr, settings))))


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _text(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)
