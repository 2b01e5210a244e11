"""The scores of a calibration, kept as order statistics with their exact ranks: enough to compare with later.

Under exchangeability the rank of a new score among n old ones is uniform, whatever the distribution. So the
shares of new scores between old ones of known ranks r_1 < r_2 < … follow a law that is known exactly:
Dirichlet(r_1, r_2 − r_1, …, n + 1 − r_last). Interpolated quantiles have no ranks and would not do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike

from cert.core.errors import InputError
from cert.trajectory.gate import json_number

__all__ = ["ScoreRanks"]

_KEPT: Final = 200


@dataclass(frozen=True, slots=True)
class ScoreRanks:
    """Some of n scores in rising order.

    A score that was not measured stands above every number, as plus infinity does: it is never passed.

    Attributes:
        n: how many scores there were.
        ranks: ranks of the kept ones, from 1, rising; chosen by n alone.
        values: the scores at these ranks, in rising order, some equal where scores are tied.
        below: how many of the n are smaller than each value.
        at_most: how many are at most each value.
    """

    n: int
    ranks: tuple[int, ...]
    values: tuple[float, ...]
    below: tuple[int, ...]
    at_most: tuple[int, ...]

    def __post_init__(self) -> None:
        rows = (self.values, self.below, self.at_most)
        if any(len(row) != len(self.ranks) for row in rows) or not _sound(self):
            raise InputError("these are no order statistics of scores with their ranks")

    @classmethod
    def of(cls, scores: ArrayLike, kept: int = _KEPT) -> Self:
        """Return the order statistics of (n,) scores at up to ``kept`` evenly spaced ranks; NaN is worst.

        Raises:
            InputError: there is no score.
        """
        ordered = np.sort(
            np.nan_to_num(np.asarray(scores, np.float64), nan=np.inf, posinf=np.inf, neginf=-np.inf)
        )
        n = len(ordered)
        if not n:
            raise InputError("there are no scores to compare with later")
        ranks = sorted({math.ceil(n * step / kept) for step in range(1, kept + 1)})
        values = ordered[np.array(ranks) - 1]
        return cls(
            n=n,
            ranks=tuple(ranks),
            values=tuple(values.tolist()),
            below=tuple(np.searchsorted(ordered, values, "left").tolist()),
            at_most=tuple(np.searchsorted(ordered, values, "right").tolist()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "n": self.n,
            "ranks": list(self.ranks),
            "values": [json_number(value) for value in self.values],
            "below": list(self.below),
            "at_most": list(self.at_most),
        }

    @classmethod
    def of_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` described.

        Raises:
            InputError: the data are of no such form.
        """
        try:
            numbers = {name: tuple(map(_whole, data[name])) for name in ("ranks", "below", "at_most")}
            return cls(n=_whole(data["n"]), values=tuple(map(_number, data["values"])), **numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"these are no order statistics of scores: {error}") from error


def _sound(one: ScoreRanks) -> bool:
    places = zip(one.ranks, one.values, one.below, one.at_most, strict=True)
    return (
        one.n >= 1
        and bool(one.ranks)
        and all(a < b for a, b in zip(one.ranks, one.ranks[1:], strict=False))
        and all(a <= b for a, b in zip(one.values, one.values[1:], strict=False))
        and all(
            not math.isnan(value) and 0 <= below < rank <= at_most <= one.n
            for rank, value, below, at_most in places
        )
    )


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no whole number")
    return value


def _number(value: Any) -> float:
    if value in ("Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)
