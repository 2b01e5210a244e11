"""The names of version 3, with version 3's meanings; each of them says what replaces it.

`TrajectoryConfig`, `TrajectoryAnalysis` and `ReasoningMetrics` here are version 3's. Those of the same name
in `cert.trajectory` are current, and differ in defaults and in what ``avg_entropy`` and ``max_entropy`` mean.
"""

from cert.trajectory.types import ReasoningMetrics
from cert.trajectory.v3.analyzer import CERTTrajectoryAnalyzer
from cert.trajectory.v3.deprecation import RuleCannotFailWarning
from cert.trajectory.v3.loading import load_model_for_monitoring, unload_model
from cert.trajectory.v3.monitor import ReasoningTrajectoryMonitor, analyze_trajectory
from cert.trajectory.v3.types import TrajectoryAnalysis, TrajectoryConfig
from cert.trajectory.v3.visualizer import HamiltonianVisualizer

__all__ = [
    "CERTTrajectoryAnalyzer",
    "HamiltonianVisualizer",
    "ReasoningMetrics",
    "ReasoningTrajectoryMonitor",
    "RuleCannotFailWarning",
    "TrajectoryAnalysis",
    "TrajectoryConfig",
    "analyze_trajectory",
    "load_model_for_monitoring",
    "unload_model",
]
