"""The scores of a calibration, kept as order statistics with their exact ranks: enough to compare with later.

Under exchangeability the rank of a new score among n old ones is uniform, whatever the distribution. So the
shares of new scores between old ones of known ranks r_1 < r_2 < … follow a law that is known exactly:
Dirichlet(r_1, r_2 − r_1, …, n + 1 − r_last). Interpolated quantiles have no ranks and would not do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from cert.core.errors import InputError

__all__ = ["ScoreRanks"]


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


def _sound(one: ScoreRanks) -> bool:
    places = zip(one.ranks, one.values, one.below, one.at_most, strict=True)
    return (
        one.n >= 1
        and bool(one.ranks)
        and all(a < b for a, b in pairwise(one.ranks))
        and all(a <= b for a, b in pairwise(one.values))
        and all(
            not math.isnan(value) and 0 <= below < rank <= at_most <= one.n
            for rank, value, below, at_most in places
        )
    )
