"""The Hamiltonian monitor: generations watched token by token, with a gate."""

from cert.backends.base import Message
from cert.backends.loading import LoadOptions
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.gate import Check, GateDecision, Verdict
from cert.trajectory.types import ReasoningMetrics, TrajectoryAnalysis, TrajectoryConfig

__all__ = [
    "Check",
    "GateDecision",
    "HamiltonianMonitor",
    "LoadOptions",
    "Message",
    "ReasoningMetrics",
    "TrajectoryAnalysis",
    "TrajectoryConfig",
    "Verdict",
]
