"""The life of a monitor's model: loaded, looked after, let go of."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from cert.backends.base import Backend, GenerationRequest, Message
from cert.backends.control import Control
from cert.core.errors import CertError, OverloadedError
from cert.core.health import CheckResult, HealthReport
from cert.core.health_probe import Finding
from cert.core.resources import ManagedResource
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.calibration.watch import GateWatch
from cert.trajectory.engine import HamiltonianEngine
from cert.trajectory.types import TrajectoryConfig

__all__ = ["MonitorLife"]


class MonitorLife:
    """What a monitor holds, and how long.

    Attributes:
        config: thresholds and settings.
        resource: the backend, loaded when it is needed.
        engine: runs calls on it.
        gate_watch: whether the promise of the gate still stands; ``None`` without a gate.
    """

    config: TrajectoryConfig
    resource: ManagedResource[Backend]
    engine: HamiltonianEngine
    gate_watch: GateWatch | None = None

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
        try:
            self.resource.unload()
        finally:
            # Afterwards, since calls that were still at work have kept theirs until now.
            self.clear_cache()

    def clear_cache(self) -> None:
        """Forget the analyses that were kept."""
        self.engine.cache.clear()

    def health_check(self, timeout: float = 10.0) -> HealthReport:
        """Find out whether the model is in memory and answers: one token is generated and looked at.

        A model that is not loaded is not loaded by this; that is degraded, and nothing is generated. The
        token is nobody's answer: no event tells of it. A gate whose scores have shifted, or whose promise is
        void, makes the whole degraded.
        """
        loaded = self.resource.health()
        checks = [_result("model", loaded, 0.0)]
        if loaded.status == "healthy":
            start = time.perf_counter()
            checks.append(_result("inference", self._infer(timeout), time.perf_counter() - start))
        if self.gate_watch is not None:
            # Answers go on; what is in doubt is what may be said of them.
            checks.append(replace(_result("gate", self.gate_watch.health(), 0.0), critical=False))
        return HealthReport(tuple(checks))

    def _infer(self, timeout: float) -> Finding:
        control = Control(timeout=timeout)
        try:
            with self.resource.acquire() as backend:
                if not backend.capabilities.generates:
                    return Finding("healthy")
                generation = control.wait(backend.begin(_probe(backend, self.config.top_k), control))
        except OverloadedError as error:  # busy is not broken
            return Finding("degraded", error.code, error.message)
        except CertError as error:
            return Finding("unhealthy", error.code, error.message)
        verdict = analyze_generation(generation, self.config).verdict
        if generation.stop_step is None and verdict == "not_measured":
            return Finding("unhealthy", "not_measured", "one token was generated and not measured")
        return Finding("healthy")


def _probe(backend: Backend, top_k: int) -> GenerationRequest:
    plain = backend.capabilities.plain_prompts
    return GenerationRequest("1" if plain else (Message("user", "1"),), max_new_tokens=1, top_logprobs=top_k)


def _result(name: str, finding: Finding, seconds: float) -> CheckResult:
    return CheckResult(name, finding.status, True, finding.code, finding.detail, seconds)
