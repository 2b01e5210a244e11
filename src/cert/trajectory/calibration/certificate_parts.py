"""The parts of a certificate that are numbers measured on data: rates, quantiles, sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InputError
from cert.trajectory.calibration.ranks import ScoreRanks

__all__ = ["N_QUANTILES", "Achieved", "Quantiles", "Rate", "ScoreQuantiles", "Share"]

N_QUANTILES: Final = 201
"""Equally spaced quantiles that are kept of scores, the smallest and the largest among them."""


@dataclass(frozen=True, slots=True)
class Share:
    """How large a part of the data is.

    Attributes:
        n: answers.
        n_units: independent units.
        n_wrong: wrong answers among the n.
    """

    n: int
    n_units: int
    n_wrong: int

    def __post_init__(self) -> None:
        if not (0 <= self.n_units <= self.n and 0 <= self.n_wrong <= self.n):
            raise InputError(f"no part has {self.n} answers about {self.n_units} units, {self.n_wrong} wrong")


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate that was measured, with an interval that allows for units with several answers.

    Attributes:
        value: the rate; NaN where there was nothing to measure it on.
        lower, upper: of the 95 % interval; NaN as the value.
        n: answers that the rate is of.
        n_units: independent units among them.
    """

    value: float
    lower: float
    upper: float
    n: int
    n_units: int

    def __post_init__(self) -> None:
        measured = 0.0 <= self.lower <= self.value <= self.upper <= 1.0
        nothing = all(map(math.isnan, (self.value, self.lower, self.upper)))
        if not (measured or nothing) or not 0 <= self.n_units <= self.n:
            raise InputError(f"no rate is {self.value} with the interval [{self.lower}, {self.upper}]")


@dataclass(frozen=True, slots=True)
class Achieved:
    """What a gate did on answers that played no part in its making.

    Attributes:
        n, n_units, n_wrong: of these answers.
        not_measured: how many of them have no score; they are not passed.
        promised: the rate that the promise is about.
        rates: all rates by name: ``passed``, ``flagged_given_correct``, ``passed_given_wrong``,
            ``wrong_given_passed``, ``wrong_and_passed``.
        by_group: the promised rate in each group; empty without groups.
    """

    n: int
    n_units: int
    n_wrong: int
    not_measured: int
    promised: Rate
    rates: Mapping[str, Rate]
    by_group: Mapping[str, Rate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Share(self.n, self.n_units, self.n_wrong)
        if not 0 <= self.not_measured <= self.n:
            raise InputError(f"{self.not_measured} of {self.n} answers cannot be without a score")


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Equally spaced quantiles of n numbers, each one of the numbers themselves.

    With the exact places of the values among the numbers, new scores can be compared with these (`ranks`).
    `of` gives them; then what was not measured counts as plus infinity, since it is never passed.

    Attributes:
        n: how many numbers.
        values: never falling, from the smallest to the largest; empty at n = 0. They may be infinite.
        below, at_most: how many numbers are below each value, and at most each; empty where nobody counted.
    """

    n: int
    values: tuple[float, ...]
    below: tuple[int, ...] = ()
    at_most: tuple[int, ...] = ()

    @classmethod
    def of(cls, scores: NDArray[np.float64]) -> Self:
        """Return the quantiles of (n,) scores with their places; NaN counts as plus infinity."""
        ordered = np.sort(np.where(np.isnan(scores), np.inf, scores))
        if not len(ordered):
            return cls(0, ())
        values = ordered[np.array(_ranks(len(ordered), N_QUANTILES)) - 1]
        below, at_most = (np.searchsorted(ordered, values, side).tolist() for side in ("left", "right"))
        return cls(len(ordered), tuple(values.tolist()), tuple(below), tuple(at_most))

    @property
    def ranks(self) -> ScoreRanks | None:
        """The values as order statistics with exact ranks; ``None`` where their places were not counted.

        Raises:
            InputError: the places cannot be those of the values.
        """
        if not self.below:
            return None
        kept = dict(zip(_ranks(self.n, len(self.values)), range(len(self.values)), strict=True))
        places = list(kept.values())

        def at(column: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(column[place] for place in places)

        return ScoreRanks(self.n, tuple(kept), at(self.values), at(self.below), at(self.at_most))

    def __post_init__(self) -> None:
        falls = any(not a <= b for a, b in zip(self.values, self.values[1:], strict=False))
        enough = len(self.values) >= N_QUANTILES if self.n else not self.values
        if self.n < 0 or not enough or falls or any(map(math.isnan, self.values)):
            raise InputError(f"these are no quantiles of {self.n} numbers")
        if {len(self.below), len(self.at_most)} not in ({0}, {len(self.values)}):
            raise InputError("quantiles have a place each, or none at all")
        _ = self.ranks  # refuses places that cannot be


def _ranks(n: int, count: int) -> list[int]:
    """Return the ranks of equally spaced quantiles of n numbers, from the smallest to the largest."""
    return [max(1, -(-n * step // (count - 1))) for step in range(count)]


@dataclass(frozen=True, slots=True)
class ScoreQuantiles:
    """Quantiles of the scores of answers that no choice was made on.

    Attributes:
        all: of every answer.
        correct: of the right ones.
    """

    all: Quantiles
    correct: Quantiles

    def __post_init__(self) -> None:
        if self.correct.n > self.all.n:
            raise InputError("there are more scores of right answers than scores")
