"""A circuit breaker as a state machine without clock, lock or I/O.

::

    closed ── too many failures ──> open ── recovery time ──> half_open
      ^                              ^                         │     │
      │                              └────── the probe fails ──┘     │
      └───────────────────── the probe succeeds ─────────────────────┘

Half-open has one probe slot, which is leased: a probe that says nothing until its lease is over no longer
keeps others from probing. Every change of state starts a new epoch; what a call reports for an earlier epoch
is ignored. A server that asks to slow down (429) pauses calls in whatever state; it is not a failure.

`circuit_breaker.lua` is the same machine inside Redis; the tests drive both and compare.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from cert.core.bounds import at_least, positive, share

__all__ = ["BreakerPolicy", "CircuitMachine", "CircuitState", "Outcome", "Permit", "Refusal"]

# At most so many results are remembered: enough for any rate, and a bound on memory.
REMEMBERED = 10_000


class CircuitState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(StrEnum):
    """What a call says about the server.

    ``THROTTLED``: it asks to slow down. ``NEUTRAL``: nothing, such as a rejected request or a cancellation.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    THROTTLED = "throttled"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a circuit opens, and how it comes back; all times in seconds.

    Attributes:
        failure_rate: share of failures at which it opens, once there are ``minimum_calls`` in the window.
        minimum_calls: results in the window that a rate needs.
        window_seconds: how far back results count.
        failures_in_a_row: that open it while there are fewer than ``minimum_calls`` results in the window.
        recovery_seconds: from opening to the first probe.
        probe_seconds: lease of the probe slot. The longest time from a server's recovery to the next probe is
            ``recovery_seconds + probe_seconds``.
        pause_seconds: after a 429 that names no time.
        pause_maximum_seconds: the longest pause that a 429 may ask for; a longer one is cut to this.
    """

    failure_rate: float = 0.5
    minimum_calls: int = 20
    window_seconds: float = 30.0
    failures_in_a_row: int = 5
    recovery_seconds: float = 15.0
    probe_seconds: float = 5.0
    pause_seconds: float = 1.0
    pause_maximum_seconds: float = 60.0

    def __post_init__(self) -> None:
        share("failure_rate", self.failure_rate)
        at_least("minimum_calls", self.minimum_calls, 1)
        positive("window_seconds", self.window_seconds)
        at_least("failures_in_a_row", self.failures_in_a_row, 1)
        positive("recovery_seconds", self.recovery_seconds)
        positive("probe_seconds", self.probe_seconds)
        at_least("pause_seconds", self.pause_seconds, 0)
        at_least("pause_maximum_seconds", self.pause_maximum_seconds, 0)

    def pause(self, retry_after: float | None) -> float:
        """Return for how long a 429 pauses calls."""
        asked = self.pause_seconds if retry_after is None or not retry_after > 0 else retry_after
        return min(asked, self.pause_maximum_seconds)


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to make one call; its result is reported with it.

    Attributes:
        epoch: of the machine when the call was let through.
        probe: number of the lease where the call is a probe, else 0.
        shared: whether the machine that replicas share gave it.
    """

    epoch: int
    probe: int = 0
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """No permit: since the circuit is open, or (``paused``) since the server asked to slow down.

    Attributes:
        retry_after: seconds until the answer may be another one.
    """

    retry_after: float
    paused: bool = False


class CircuitMachine:
    """The states and what changes them. Each method takes the time now, in seconds of any monotonic clock.

    A clock that jumps does no lasting harm: no wait is ever longer than the policy's, counted from now.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state = CircuitState.CLOSED
        self._epoch = 0
        self._results: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._in_a_row = 0
        self._opened = 0.0
        self._probe = 0
        self._probe_until: float | None = None
        self._paused_until: float | None = None

    def refusal(self, now: float) -> Refusal | None:
        """Return why a call would be refused just now, without taking anything."""
        self._tame(now)
        if self._paused_until is not None and now < self._paused_until:
            return Refusal(self._paused_until - now, paused=True)
        if self.state is CircuitState.OPEN:
            left = self._opened + self.policy.recovery_seconds - now
            return Refusal(left) if left > 0 else None
        if self.state is CircuitState.HALF_OPEN and self._probe_until is not None and now < self._probe_until:
            return Refusal(self._probe_until - now)
        return None

    def acquire(self, now: float) -> Permit | Refusal:
        """Return a permit, or why there is none; an open circuit whose time has come starts its probe."""
        refused = self.refusal(now)
        if refused is not None:
            return refused
        if self.state is CircuitState.CLOSED:
            return Permit(self._epoch)
        if self.state is CircuitState.OPEN:
            self._become(CircuitState.HALF_OPEN)
        self._probe += 1
        self._probe_until = now + self.policy.probe_seconds
        return Permit(self._epoch, self._probe)

    def record(self, permit: Permit, outcome: Outcome, now: float, retry_after: float | None = None) -> None:
        """Take the result of a call; one that belongs to an earlier state changes nothing but the pause."""
        self._tame(now)
        if outcome is Outcome.THROTTLED:
            until = now + self.policy.pause(retry_after)
            self._paused_until = max(until, self._paused_until or until)
        if permit.epoch != self._epoch:
            return
        if self.state is CircuitState.HALF_OPEN:
            self._record_probe(permit, outcome, now)
        elif outcome is Outcome.SUCCESS or outcome is Outcome.FAILURE:
            self._count(outcome is Outcome.FAILURE, now)
            # Only a failure opens it, though a success can raise the share by pushing older ones out.
            if outcome is Outcome.FAILURE and self._too_many():
                self._open(now)

    def _record_probe(self, permit: Permit, outcome: Outcome, now: float) -> None:
        # Any success shows that the server is back; that it is still broken, only the latest probe can say.
        if outcome is Outcome.SUCCESS:
            self._become(CircuitState.CLOSED)
        elif permit.probe == self._probe:
            if outcome is Outcome.FAILURE:
                self._open(now)
            else:
                self._probe_until = None

    def _count(self, failed: bool, now: float) -> None:
        self._results.append((now, failed))
        self._failures += failed
        self._in_a_row = self._in_a_row + 1 if failed else 0
        while len(self._results) > REMEMBERED or self._results[0][0] <= now - self.policy.window_seconds:
            self._failures -= self._results.popleft()[1]

    def _too_many(self) -> bool:
        calls = len(self._results)
        if calls >= self.policy.minimum_calls:
            return self._failures / calls >= self.policy.failure_rate
        return self._in_a_row >= self.policy.failures_in_a_row

    def _open(self, now: float) -> None:
        self._become(CircuitState.OPEN)
        self._opened = now

    def _become(self, state: CircuitState) -> None:
        self.state = state
        self._epoch += 1
        self._results.clear()
        self._failures = self._in_a_row = 0
        self._probe_until = None

    def _tame(self, now: float) -> None:
        """Forget what a clock that jumped back has left in the future."""
        self._opened = min(self._opened, now)
        if self._probe_until is not None:
            self._probe_until = min(self._probe_until, now + self.policy.probe_seconds)
        if self._paused_until is not None:
            self._paused_until = min(self._paused_until, now + self.policy.pause_maximum_seconds)
        while self._results and self._results[-1][0] > now:
            self._failures -= self._results.pop()[1]
