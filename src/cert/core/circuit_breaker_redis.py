"""A circuit breaker that replicas share through Redis.

The states are changed by a script inside Redis, by Redis's own time, so that of all replicas one probes.
When Redis cannot be used, each process goes on with a breaker of its own and says so (`ComponentDegraded`);
it asks Redis again after a moment, one call at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from cert.core.circuit_breaker import Breaker, CircuitBreaker, classify
from cert.core.circuit_state import REMEMBERED, BreakerPolicy, CircuitState, Outcome, Permit, Refusal
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import ConfigurationError, DependencyMissingError
from cert.core.events import CircuitChanged, ComponentDegraded, EventHub, default_hub

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

__all__ = ["RedisCircuitBreaker"]

# A circuit that nobody has used for so long is forgotten, that is: closed.
_FORGET_MILLISECONDS = 3_600_000


class RedisCircuitBreaker(Breaker):
    """A breaker whose state is in Redis.

    Give the client for plain calls, the one for ``async`` calls, or both; each with a short time-out of its
    own (``socket_timeout``), since a call waits for it.

    Args:
        name: of the circuit: the same in all replicas that share it.
        client: for `check`, `acquire`, `record` and ``with``.
        async_client: for their ``async`` twins.
        policy: when it opens and how it comes back; the same in all replicas.
        classify: says what an error means.
        clock: measures how long Redis has been away, and drives the local breaker.
        events: told of each change of state that this process sees, and when Redis goes and comes back.
        prefix: of the keys.
        retry_seconds: after Redis failed, until it is asked again.
        time: seconds, in place of Redis's own time; for tests.
    """

    def __init__(
        self,
        name: str,
        *,
        client: Redis | None = None,
        async_client: AsyncRedis | None = None,
        policy: BreakerPolicy | None = None,
        classify: Callable[[BaseException | None], Outcome] = classify,
        clock: Clock = SYSTEM_CLOCK,
        events: EventHub | None = None,
        prefix: str = "cert:circuit:",
        retry_seconds: float = 1.0,
        time: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(name, classify)
        try:
            from redis.exceptions import RedisError
        except ImportError as error:
            raise DependencyMissingError(
                "a circuit breaker in Redis needs the package redis",
                hint="pip install 'cert-framework[redis]'",
            ) from error
        if client is None and async_client is None:
            raise ConfigurationError(f"the shared circuit {name!r} needs a client, an async_client, or both")
        policy = policy or BreakerPolicy()
        script = resources.files("cert.core").joinpath("circuit_breaker.lua").read_text("utf-8")
        self._run: Any = self._no_client if client is None else client.register_script(script)
        self._run_async: Any = (
            self._no_client if async_client is None else async_client.register_script(script)
        )
        # In braces: one hash slot of a Redis cluster for the three.
        self._keys = [f"{prefix}{{{name}}}", f"{prefix}{{{name}}}:results", f"{prefix}{{{name}}}:failures"]
        self._settings = _settings(policy)
        self._time = time
        self._clock = clock
        self._events = events or default_hub()
        self._gone = (RedisError, OSError, TimeoutError)
        self._local = CircuitBreaker(name, policy, classify=classify, clock=clock, events=events)
        self._lock = threading.Lock()
        self._retry_seconds = retry_seconds
        self._ask_again: float | None = None
        self._seen = CircuitState.CLOSED
        self._refusing = False

    @property
    def state(self) -> CircuitState:
        """The state that this process last saw."""
        return self._local.state if self.degraded else self._seen

    @property
    def degraded(self) -> bool:
        """Whether Redis could not be used at the last try, so that this process decides by itself."""
        return self._ask_again is not None

    def check(self) -> None:
        """Raise as `acquire` would if a call were surely refused just now; takes nothing.

        While the circuit was last seen closed this does not ask Redis: `acquire` will.
        """
        if self._worth_asking() and not self._looks_closed():
            try:
                answer = self._run(keys=self._keys, args=self._arguments("check"))
            except self._gone:
                self._went()
            else:
                self._admit(self._read(answer))
                return
        if self.degraded:
            self._local.check()

    async def check_async(self) -> None:
        """Do what `check` does."""
        if self._worth_asking() and not self._looks_closed():
            try:
                answer = await self._run_async(keys=self._keys, args=self._arguments("check"))
            except self._gone:
                self._went()
            else:
                self._admit(self._read(answer))
                return
        if self.degraded:
            self._local.check()

    def acquire(self) -> Permit:
        """Return the permit for one call, as `Breaker.acquire` says."""
        if self._worth_asking():
            try:
                answer = self._run(keys=self._keys, args=self._arguments("acquire"))
            except self._gone:
                self._went()
            else:
                return self._admitted(answer)
        return self._local.acquire()

    async def acquire_async(self) -> Permit:
        """Do what `acquire` does."""
        if self._worth_asking():
            try:
                answer = await self._run_async(keys=self._keys, args=self._arguments("acquire"))
            except self._gone:
                self._went()
            else:
                return self._admitted(answer)
        return self._local.acquire()

    def record(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Report the result of a call to the machine that let it through; never raises for want of Redis."""
        if not permit.shared:
            self._local.record(permit, outcome, retry_after)
        elif self._worth_asking():
            try:
                answer = self._run(
                    keys=self._keys, args=self._arguments("record", permit, outcome, retry_after)
                )
            except self._gone:
                self._went()
            else:
                self._read(answer)

    async def record_async(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Do what `record` does."""
        if not permit.shared:
            self._local.record(permit, outcome, retry_after)
        elif self._worth_asking():
            arguments = self._arguments("record", permit, outcome, retry_after)
            try:
                answer = await self._run_async(keys=self._keys, args=arguments)
            except self._gone:
                self._went()
            else:
                self._read(answer)

    def _arguments(
        self,
        action: str,
        permit: Permit | None = None,
        outcome: Outcome | None = None,
        retry_after: float | None = None,
    ) -> list[str | int | float]:
        now = "" if self._time is None else _micros(self._time())
        common = [action, now, *self._settings]
        if permit is None or outcome is None:
            return common
        asked = "" if retry_after is None or not retry_after > 0 else _micros(min(retry_after, 1e6))
        return [*common, permit.epoch, permit.probe, outcome.value, asked]

    def _admitted(self, answer: list[Any]) -> Permit:
        permit = self._admit(self._read(answer))
        assert permit is not None
        return permit

    def _read(self, answer: list[Any]) -> Permit | Refusal:
        """Take note of what Redis answered, and return what it means."""
        state, epoch, probe, refused = (_text(part) for part in answer[:4])
        paused = bool(int(answer[4]))
        with self._lock:
            if self._ask_again is not None:
                self._ask_again = None
                self._seen = self._local.state
                self._say(active=False)
            self._refusing = paused
            self._see(CircuitState(state))
        seconds = int(refused) / 1e6
        if seconds > 0:
            return Refusal(seconds, paused)
        return Permit(int(epoch), int(probe), shared=True)

    def _looks_closed(self) -> bool:
        return not self.degraded and self._seen is CircuitState.CLOSED and not self._refusing

    def _worth_asking(self) -> bool:
        """Say whether to ask Redis: always while it answers, else one call now and then."""
        with self._lock:
            if self._ask_again is None:
                return True
            now = self._clock.monotonic()
            if now < self._ask_again:
                return False
            self._ask_again = now + self._retry_seconds
            return True

    def _went(self) -> None:
        with self._lock:
            if self._ask_again is None:
                self._say(active=True)
                self._see(self._local.state)
            self._ask_again = self._clock.monotonic() + self._retry_seconds

    def _see(self, state: CircuitState) -> None:
        before, self._seen = self._seen, state
        if before is not state:
            self._events.emit(CircuitChanged(circuit=self.name, before=before.value, after=state.value))

    def _no_client(self, **_: Any) -> Any:
        raise ConfigurationError(
            f"the shared circuit {self.name!r} has no client for this kind of call",
            hint="Give client= for plain calls and async_client= for async ones.",
        )

    def _say(self, *, active: bool) -> None:
        self._events.emit(ComponentDegraded(component=f"circuit:{self.name}", mode="local", active=active))


def _settings(policy: BreakerPolicy) -> list[str | int | float]:
    return [
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


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _text(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)
