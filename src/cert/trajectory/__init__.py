"""The Hamiltonian monitor: generations watched token by token, with a gate."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cert.backends.base import Message
from cert.backends.loading import LoadOptions
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.engine import HamiltonianEngine
from cert.trajectory.gate import Check, GateDecision, Verdict
from cert.trajectory.resources import HamiltonianModelResource
from cert.trajectory.samples import SamplesAnalysis
from cert.trajectory.streaming import AsyncTrajectoryStream, StreamedToken, TrajectoryStream
from cert.trajectory.types import ReasoningMetrics, TrajectoryAnalysis, TrajectoryConfig

if TYPE_CHECKING:
    from cert.trajectory.v3 import (
        CERTTrajectoryAnalyzer,
        HamiltonianVisualizer,
        ReasoningTrajectoryMonitor,
        analyze_trajectory,
        load_model_for_monitoring,
        unload_model,
    )

__all__ = [
    "AsyncTrajectoryStream",
    "CERTTrajectoryAnalyzer",
    "Check",
    "GateDecision",
    "HamiltonianEngine",
    "HamiltonianModelResource",
    "HamiltonianMonitor",
    "HamiltonianVisualizer",
    "LoadOptions",
    "Message",
    "ReasoningMetrics",
    "ReasoningTrajectoryMonitor",
    "SamplesAnalysis",
    "StreamedToken",
    "TrajectoryAnalysis",
    "TrajectoryConfig",
    "TrajectoryStream",
    "Verdict",
    "analyze_trajectory",
    "load_model_for_monitoring",
    "unload_model",
]

_V3 = frozenset(
    {
        "CERTTrajectoryAnalyzer",
        "HamiltonianVisualizer",
        "ReasoningTrajectoryMonitor",
        "analyze_trajectory",
        "load_model_for_monitoring",
        "unload_model",
    }
)


def __getattr__(name: str) -> Any:
    """Load what version 3 named when it is asked for."""
    if name in _V3:
        return getattr(importlib.import_module("cert.trajectory.v3"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
