"""What each goal promises, in plain words."""

from __future__ import annotations

from typing import Final

from cert.trajectory.calibration.goals.types import Goal

__all__ = ["percent", "promise_of"]

_WORDS: Final[dict[Goal, str]] = {
    "false-flags": "false flags ≤ {alpha} of the right answers",
    "misses": "misses ≤ {alpha} of the wrong answers",
    "selective-risk": "wrong answers ≤ {alpha} of those that pass, with confidence {confidence}",
    "undetected-errors": "answers that are wrong and pass ≤ {alpha} of all",
    "streaming": "false alarms ≤ {alpha} of the right answers, whenever one stops",
}


def promise_of(goal: Goal, alpha: float, delta: float | None) -> str:
    """Return the promise of a goal in one phrase."""
    return _WORDS[goal].format(alpha=percent(alpha), confidence=percent(1.0 - (delta or 0.0)))


def percent(share: float) -> str:
    """Return a share in per cent, with no more digits than it needs."""
    return f"{100.0 * share:.6g} %"
