"""Intervals by resampling units: answers about one unit come and go together.

The bootstrap over clusters (Field and Welsh, JRSS B 69, 2007). One draw of units weights every
statistic, so that differences of two statistics are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError
from cert.trajectory.evaluation.metrics import auroc_of
from cert.trajectory.evaluation.ranks import Flags, Floats, Ranking

__all__ = [
    "FEWEST_UNITS", "FEW_UNITS", "LEAST_REPLICATES", "LEVEL", "REPLICATES", "Estimate", "Resampling",
    "clustered", "clustered_auroc", "estimate", "minority", "paired_difference",
]  # fmt: skip

REPLICATES: Final = 1000
LEAST_REPLICATES: Final = 200
LEVEL: Final = 0.95
# Units that an interval rests on: with fewer than the first it means nothing, with fewer than the second it
# may be too narrow. Measured: docs/reference/evaluation.md.
FEWEST_UNITS: Final = 5
FEW_UNITS: Final = 10
_LARGEST_CHUNK: Final = 50
_CHUNK_BYTES: Final = 2**24
_MOST_LOST: Final = 0.02


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; ``None`` where it cannot be computed.

    Attributes:
        value: of all answers together.
        low, high: the ends of its 95 % interval over units.
        n: answers that it is computed from.
        note: why there is no value or interval, or why not to trust the interval; else empty.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""

    @property
    def above_zero(self) -> bool:
        """Whether there is an interval that can be trusted, and all of it is above 0."""
        return not self.note and self.low is not None and self.low > 0.0


@dataclass(frozen=True, eq=False, slots=True)
class Resampling:
    """Draws of units, the same ones for every statistic.

    Attributes:
        units: (n,) the unit of each answer.
        replicates: how many draws.
        seed: of the draws.

    Raises:
        ConfigurationError: fewer than 200 replicates, whose ends would be those of a handful of draws.
    """

    units: NDArray[np.int64]
    replicates: int = REPLICATES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < LEAST_REPLICATES:
            raise ConfigurationError(
                f"an interval takes at least {LEAST_REPLICATES} replicates, not {self.replicates}"
            )

    def weights(self) -> Iterator[Floats]:
        """Yield how often each answer counts, (replicates of a chunk, n), until all are drawn."""
        names, member = np.unique(self.units, return_inverse=True)
        size = len(names)
        if not size:
            return
        rng = np.random.default_rng(self.seed)
        chunk = max(1, min(_LARGEST_CHUNK, _CHUNK_BYTES // (8 * len(member))))
        for start in range(0, self.replicates, chunk):
            rows = min(chunk, self.replicates - start)
            counts = np.empty((rows, size))
            for row in counts:
                row[:] = np.bincount(rng.integers(0, size, size), minlength=size)
            yield counts[:, member]


def minority(wrong: Flags, units: NDArray[np.int64]) -> int:
    """Return how many units have a wrong answer, or a right one, whichever are fewer."""
    return min(len(np.unique(units[wrong])), len(np.unique(units[~wrong])))


def estimate(value: float, drawn: Floats, n: int, rarer: int) -> Estimate:
    """Return a value with the percentile interval of its replicates, or say why there is none.

    The expanded percentile interval (Hesterberg, The American Statistician 69, 2015): its quantiles lie as
    much further out as those of t with ``rarer`` − 1 degrees of freedom do.

    Args:
        value: of all answers; NaN is not measured.
        drawn: its replicates; NaN where a draw held one kind of answer alone.
        n: answers.
        rarer: units that the statistic rests on: those of the rarer kind (`minority`) where it needs both
            kinds, else all.
    """
    if not np.isfinite(value):
        return Estimate(None, None, None, n, "there are not both right and wrong answers" if n else "")
    if rarer < FEWEST_UNITS:
        return Estimate(value, None, None, n, f"rests on {rarer} units: no interval")
    kept = drawn[np.isfinite(drawn)]
    if len(kept) < (1 - _MOST_LOST) * len(drawn) or not len(kept):
        return Estimate(value, None, None, n, "too many draws of units held one kind of answer alone")
    tail = _tail(rarer)
    low, high = np.quantile(kept, [tail, 1 - tail])
    if low == high:
        return Estimate(value, None, None, n, "every draw of units gives the same: no interval")
    note = f"rests on {rarer} units: the interval may be too narrow" if rarer < FEW_UNITS else ""
    return Estimate(value, float(low), float(high), n, note)


def _tail(units: int) -> float:
    """Return the share of replicates beyond each end: Φ(−t √(u / (u − 1))), t of u − 1 degrees of freedom."""
    z, freedom = NormalDist().inv_cdf((1 + LEVEL) / 2), units - 1
    # Cornish–Fisher's expansion of t's quantile, right to 0.1 % from 4 degrees of freedom on.
    t = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return NormalDist().cdf(-t * math.sqrt(units / freedom))


def clustered(
    statistic: Callable[[Floats], Floats],
    units: NDArray[np.int64],
    seed: int,
    *,
    replicates: int = REPLICATES,
    rarer: int | None = None,
) -> Estimate:
    """Estimate a statistic with an interval over resampled units.

    Args:
        statistic: takes weights of shape (replicates, answers) and gives one number a replicate.
        units: (n,) the unit of each answer.
        seed: of the draws.
        replicates: how many draws.
        rarer: see `estimate`; all units without it.
    """
    n = len(units)
    if not n:
        return Estimate(None, None, None, 0)
    rests = len(np.unique(units)) if rarer is None else rarer
    drawn = [statistic(weights) for weights in Resampling(units, replicates, seed).weights()]
    return estimate(float(statistic(np.ones((1, n)))[0]), np.concatenate(drawn), n, rests)


def clustered_auroc(
    score: Floats, wrong: Flags, units: NDArray[np.int64], seed: int, *, replicates: int = REPLICATES
) -> Estimate:
    """AUROC with an interval over units, of the answers for which the score was measured.

    Infinite scores count: they are the largest or smallest.
    """
    kept = ~np.isnan(score)
    wrong, units = wrong[kept], units[kept]
    ranking = Ranking.of(score[kept], wrong)
    return clustered(
        lambda weights: auroc_of(ranking.counts(weights)),
        units,
        seed,
        replicates=replicates,
        rarer=minority(wrong, units),
    )


def paired_difference(
    first: Callable[[Floats], Floats],
    second: Callable[[Floats], Floats],
    units: NDArray[np.int64],
    seed: int,
    *,
    replicates: int = REPLICATES,
    rarer: int | None = None,
) -> Estimate:
    """Estimate the first statistic less the second one, both of the same draws of units.

    Args:
        first: a statistic as in `clustered`.
        second: another one, of the same answers.
        units: (n,) the unit of each answer.
        seed: of the draws.
        replicates: how many draws.
        rarer: see `estimate`; all units without it.
    """
    return clustered(
        lambda weights: first(weights) - second(weights), units, seed, replicates=replicates, rarer=rarer
    )
