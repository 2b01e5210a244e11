"""The five goals of a calibrated gate as pure functions over arrays: thresholds that come with a promise."""

from cert.trajectory.calibration.goals.types import GOALS, Goal, Threshold

__all__ = ["GOALS", "Goal", "Threshold"]
