"""The rate that a goal bounds, as it is on given answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError
from cert.trajectory.calibration.goals.answers import Answers
from cert.trajectory.calibration.goals.types import GOALS, Goal

__all__ = ["realised_rate"]


def realised_rate(
    goal: Goal, value: float, scores: NDArray[Any], correct: NDArray[Any], units: NDArray[Any]
) -> float:
    """Return the rate that a goal bounds, of a threshold on answers with known truth.

    It is that of an answer drawn at random of a unit drawn at random, as the promises are: each of a unit's m
    answers counts 1/m.

    Args:
        goal: ``false-flags`` and ``streaming``: flagged among the correct. ``misses``: passed among the
            wrong. ``selective-risk``: wrong among the passed. ``undetected-errors``: wrong and passed, of
            all answers.
        value: the threshold.
        scores: (n,) as for `find_threshold`.
        correct: (n,) likewise.
        units: (n,) likewise.

    Returns:
        The rate, NaN where there is nothing that it is a rate of.

    Raises:
        ConfigurationError: there is no such goal.
        InputError: columns that cannot be right.
    """
    if goal not in GOALS:
        raise ConfigurationError(f"there is no goal '{goal}'", hint=f"one of {', '.join(GOALS)}")
    answers = Answers.of(scores, correct, units)
    passed, right = answers.scores <= value, answers.correct
    hit, of = {
        "false-flags": (right & ~passed, right),
        "streaming": (right & ~passed, right),
        "misses": (~right & passed, ~right),
        "selective-risk": (~right & passed, passed),
        "undetected-errors": (~right & passed, np.ones_like(right)),
    }[goal]
    count = answers.total(of)
    return answers.total(hit) / count if count else float("nan")
