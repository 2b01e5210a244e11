"""What a goal is, and the threshold that reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

__all__ = ["GOALS", "Goal", "Threshold"]

Goal: TypeAlias = Literal["false-flags", "misses", "selective-risk", "undetected-errors", "streaming"]
GOALS: Final[tuple[Goal, ...]] = get_args(Goal)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold λ with what it promises: an answer is flagged if and only if its score is above λ.

    A score that was not measured (NaN) is never passed.

    Attributes:
        goal: which promise.
        value: λ. Infinite where every answer may pass, minus infinity where none does.
        alpha: the rate that is promised to be kept.
        delta: the share of calibrations for which a promise about the rate itself may fail; ``None`` for the
            goals whose promise is about the mean over calibrations.
        n: answers that the threshold was computed from.
        n_units: independent units among them; the ranks and bounds count these.
        n_wrong: wrong answers among the n.
        details: what else the procedure found, by name: JSON-ready numbers, such as ``p_value``.
    """

    goal: Goal
    value: float
    alpha: float
    delta: float | None
    n: int
    n_units: int
    n_wrong: int
    details: Mapping[str, float | int | str | None]
