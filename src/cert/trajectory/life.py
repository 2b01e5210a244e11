"""The life of a monitor's model: loaded, looked after, let go of."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from cert.backends.base import Backend
from cert.backends.control import Control
from cert.core.errors import CertError
from cert.core.health import CheckResult, HealthReport
from cert.core.health_probe import Finding
from cert.core.resources import ManagedResource
from cert.trajectory.engine import HamiltonianEngine
from cert.trajectory.requests import generation_request
from cert.trajectory.types import TrajectoryConfig

__all__ = ["MonitorLife"]


class MonitorLife:
    """What a monitor holds, and how long.

    Attributes:
        config: thresholds and settings.
        resource: the backend, loaded when it is needed.
        engine: runs calls on it.
    """

    config: TrajectoryConfig
    resource: ManagedResource[Backend]
    engine: HamiltonianEngine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.unload)

    def load(self) -> None:
        """Load the model unless it is loaded."""
        self.resource.load()

    def unload(self) -> None:
        """Let go of the model's memory, and of the analyses that were kept.

        The next analysis loads the model again; a given backend is kept.

        Raises:
            ResourceError: calls are still at work on it after 30 seconds.
        """
        self.clear_cache()
        self.resource.unload()

    def clear_cache(self) -> None:
        """Forget the analyses that were kept."""
        self.engine.cache.clear()

    def health_check(self, timeout: float = 10.0) -> HealthReport:
        """Find out whether the model is in memory and answers: one token is generated and looked at.

        A model that is not loaded is not loaded by this; that is degraded, and nothing is generated.
        """
        loaded = self.resource.health()
        checks = [_result("model", loaded, 0.0)]
        if loaded.status == "healthy":
            start = time.perf_counter()
            checks.append(_result("inference", self._infer(timeout), time.perf_counter() - start))
        return HealthReport(tuple(checks))

    def _infer(self, timeout: float) -> Finding:
        request = generation_request("1", self.config, max_new_tokens=1)
        try:
            call = self.engine.call(request, Control(timeout=timeout), use_cache=False)
            analysis = self.engine.run(call)
        except CertError as error:
            return Finding("unhealthy", error.code, error.message)
        if analysis.generation.stop_step is None and analysis.verdict == "not_measured":
            return Finding("unhealthy", "not_measured", "one token was generated and not measured")
        return Finding("healthy")


def _result(name: str, finding: Finding, seconds: float) -> CheckResult:
    return CheckResult(name, finding.status, True, finding.code, finding.detail, seconds)
