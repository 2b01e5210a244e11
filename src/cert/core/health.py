"""Is this process fit for work? Registered checks, run together, each within its own time.

Liveness and readiness are two questions. *Liveness*: would a restart help? It asks nothing of anybody, so
that an outage of a database never restarts every replica. *Readiness*: should requests come here? It is the
sum of the checks, by how much each matters.

============  ==================  =====================
a check is    and is critical     and is not critical
============  ==================  =====================
healthy       healthy             healthy
degraded      degraded            degraded
unhealthy     **unhealthy**       degraded
============  ==================  =====================

The whole is the worst of its parts.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from cert.core.errors import ConfigurationError
from cert.core.events import EventHub, HealthChanged, default_hub
from cert.core.health_probe import Finding, HealthCheck, Probe, Status

__all__ = ["OVERALL", "CheckResult", "Finding", "HealthCheck", "HealthRegistry", "HealthReport", "Status"]

OVERALL = "overall"
_RANK: dict[Status, int] = {"healthy": 0, "degraded": 1, "unhealthy": 2}
_BY_RANK: tuple[Status, ...] = ("healthy", "degraded", "unhealthy")
_State: TypeAlias = Literal["unknown", "healthy", "degraded", "unhealthy"]


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        critical: whether the process is unfit for work without it.
        code: of what is wrong: an error's ``code``, ``timeout``, ``check_failed`` or the check's own.
        seconds: that the check took.
    """

    name: str
    status: Status
    critical: bool
    code: str | None
    detail: str | None
    seconds: float

    @property
    def effect(self) -> Status:
        """What it means for the whole: nothing that is not critical makes it unhealthy."""
        return self.status if self.critical else _BY_RANK[min(_RANK[self.status], _RANK["degraded"])]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "status": self.status,
            "critical": self.critical,
            "code": self.code,
            "detail": self.detail,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True)
class HealthReport:
    """What all checks found together.

    Attributes:
        at: wall-clock time of the checks, in seconds since 1970, UTC.
    """

    checks: tuple[CheckResult, ...]
    at: float = field(default_factory=time.time)

    @property
    def status(self) -> Status:
        """The worst effect of any check; healthy when there is none."""
        return _BY_RANK[max((_RANK[check.effect] for check in self.checks), default=0)]

    @property
    def ready(self) -> bool:
        """Whether requests should come here: also while degraded."""
        return self.status != "unhealthy"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {
            "schema_version": 1,
            "status": self.status,
            "ready": self.ready,
            "at": self.at,
            "checks": {check.name: check.to_dict() for check in self.checks},
        }


class HealthRegistry:
    """The checks of one process.

    Args:
        cache_seconds: how long a report is good for, so that probes cannot load what they probe.
        hub: where `HealthChanged` events go.
        clock: monotonic seconds.
        sleep: waits for a time-out.

    Raises:
        ConfigurationError: ``cache_seconds`` is negative or not a number.
    """

    def __init__(
        self,
        *,
        cache_seconds: float = 2.0,
        hub: EventHub | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if not (math.isfinite(cache_seconds) and cache_seconds >= 0):
            raise ConfigurationError(f"cache_seconds must be 0 or more seconds, not {cache_seconds!r}")
        self._cache_seconds = cache_seconds
        self._hub = default_hub() if hub is None else hub
        self._clock = clock
        self._sleep = sleep
        self._started = clock()
        self._lock = threading.Lock()
        self._probes: dict[str, Probe] = {}
        self._generation = 0  # counts changes of the set of checks: a report of an older set is not kept
        self._cached: tuple[float, HealthReport] | None = None
        self._flight: Future[HealthReport] | None = None
        self._known: dict[str, _State] = {}

    def register(
        self, name: str, check: HealthCheck, *, critical: bool = True, timeout: float = 2.0
    ) -> Callable[[], None]:
        """Add a check and return the function that removes it again.

        Args:
            name: from a small fixed set; unique.
            check: returns ``None`` or true when all is well, false or a `Finding` when not, or raises. An
                asynchronous one runs on the event loop of whoever asks and must not block it; any other
                runs on a thread of its own.
            critical: whether the process is unfit for work while the check fails.
            timeout: seconds after which the check counts as failed.

        Raises:
            ConfigurationError: the name is taken or the time-out is not a positive number.
        """
        if not (math.isfinite(timeout) and timeout > 0):
            raise ConfigurationError(
                f"the time-out of check {name!r} must be over 0 seconds, not {timeout!r}"
            )
        with self._lock:
            if name in self._probes or name == OVERALL:
                raise ConfigurationError(f"a health check named {name!r} is registered already")
            probe = self._probes[name] = Probe(name, check, critical, timeout, self._clock, self._sleep)
            self._forget()

        def remove() -> None:
            with self._lock:
                if self._probes.get(name) is probe:
                    del self._probes[name]
                    self._known.pop(name, None)
                    self._forget()

        return remove

    def liveness(self) -> dict[str, Any]:
        """Say that the process answers, and for how many seconds it has been up; runs no check."""
        return {"schema_version": 1, "status": "alive", "uptime_seconds": self._clock() - self._started}

    def check(self) -> HealthReport:
        """Do what `check_async` does, for code without an event loop.

        Asynchronous checks get a loop of their own on another thread.

        Raises:
            RuntimeError: called on a running event loop, which it would block.
        """
        if _on_an_event_loop():
            raise RuntimeError("on an event loop, await check_async()")
        done: Future[HealthReport] = Future()

        async def answer() -> None:
            done.set_result(await self.check_async())

        def run() -> None:
            try:
                asyncio.run(answer())
            except BaseException as error:
                if not done.done():
                    done.set_exception(error)

        # A daemon, not awaited: a check that ignores its cancellation would keep the loop open for good.
        threading.Thread(target=run, name="cert-health", daemon=True).start()
        return done.result()

    async def check_async(self) -> HealthReport:
        """Run every check at once, or return the report of a moment ago.

        Callers at the same time share one run. No check can make this raise or take longer than the longest
        time-out.
        """
        while True:
            with self._lock:
                if self._cached and self._clock() - self._cached[0] < self._cache_seconds:
                    return self._cached[1]
                if self._flight is None:
                    self._start()
                flight = self._flight
            assert flight is not None
            try:
                # Shielded: a caller that gives up must not end the run for the others.
                return await asyncio.shield(asyncio.wrap_future(flight))
            except (asyncio.CancelledError, CancelledError):
                # Either we were cancelled, or the loop that ran the checks is gone: then we run them.
                task = asyncio.current_task()
                if not flight.cancelled() or (task is not None and task.cancelling()):
                    raise

    def _start(self) -> None:
        flight: Future[HealthReport] = Future()
        self._flight = flight
        task = asyncio.get_running_loop().create_task(
            self._run(tuple(self._probes.values()), self._generation)
        )

        def land(done: asyncio.Task[HealthReport]) -> None:
            with self._lock:
                if self._flight is flight:
                    self._flight = None
            if done.cancelled():
                flight.cancel()
            elif (error := done.exception()) is not None:
                flight.set_exception(error)
            else:
                flight.set_result(done.result())

        task.add_done_callback(land)

    async def _run(self, probes: tuple[Probe, ...], generation: int) -> HealthReport:
        outcomes = await asyncio.gather(*(probe.run() for probe in probes))
        report = HealthReport(
            tuple(
                CheckResult(probe.name, finding.status, probe.critical, finding.code, finding.detail, seconds)
                for probe, (finding, seconds) in zip(probes, outcomes, strict=True)
            )
        )
        with self._lock:
            if generation != self._generation:
                return report  # of a set of checks that is not the registered one any more
            self._cached = (self._clock(), report)
            changes = self._changes(report)
        for change in changes:
            self._hub.emit(change)
        return report

    def _changes(self, report: HealthReport) -> list[HealthChanged]:
        states = {check.name: check.status for check in report.checks}
        changes = []
        for name, after in [*states.items(), (OVERALL, report.status)]:
            before = self._known.get(name, "unknown")
            if before != after:
                self._known[name] = after
                changes.append(HealthChanged(component=name, before=before, after=after))
        return changes

    def _forget(self) -> None:
        self._generation += 1
        self._cached = None
        # A run of the older set goes on for those who wait for it, and nobody joins it any more.
        self._flight = None


def _on_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
