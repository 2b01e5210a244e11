"""The five goals of a calibrated gate as pure functions over arrays: thresholds that come with a promise."""

from cert.trajectory.calibration.goals.conformal import false_flags, misses, streaming, undetected_errors
from cert.trajectory.calibration.goals.dispatch import find_threshold
from cert.trajectory.calibration.goals.feasibility import minimum_units
from cert.trajectory.calibration.goals.groups import find_thresholds_by_group
from cert.trajectory.calibration.goals.rates import realised_rate
from cert.trajectory.calibration.goals.selective import selective_risk
from cert.trajectory.calibration.goals.types import GOALS, Goal, Threshold

__all__ = [
    "GOALS",
    "Goal",
    "Threshold",
    "false_flags",
    "find_threshold",
    "find_thresholds_by_group",
    "minimum_units",
    "misses",
    "realised_rate",
    "selective_risk",
    "streaming",
    "undetected_errors",
]
