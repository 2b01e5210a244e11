"""How well a number tells wrong answers from right ones: pure functions over arrays.

Intervals are over people, not answers: facts about one person are not independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
REPLICATES: Final = 1000
CHUNK: Final = 50
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval over people; ``None`` where it cannot be computed."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def auroc(score: Floats, wrong: Flags, weight: Floats | None = None) -> float:
    """P(score of a wrong answer > score of a right one), ties counting one half; NaN without both kinds."""
    weights = np.ones(len(score)) if weight is None else weight
    return float(_Auroc(score, wrong)(weights[None])[0])


class _Auroc:
    """The same scores under many weightings, one a row: sorted once."""

    def __init__(self, score: Floats, wrong: Flags) -> None:
        self._order = np.argsort(score, kind="stable")
        _, self._starts = np.unique(score[self._order], return_index=True)
        self._wrong = wrong[self._order]

    def __call__(self, weights: Floats) -> Floats:
        ordered = weights[:, self._order]
        bad = np.add.reduceat(ordered * self._wrong, self._starts, axis=1)
        good = np.add.reduceat(ordered * ~self._wrong, self._starts, axis=1)
        below = np.cumsum(good, axis=1) - good
        pairs = bad.sum(axis=1) * good.sum(axis=1)
        with np.errstate(invalid="ignore"):
            found: Floats = (bad * (below + good / 2)).sum(axis=1) / pairs
        return found


def clustered(statistic: Callable[[Floats], Floats], people: npt.NDArray[np.int64], seed: int) -> Estimate:
    """Estimate a statistic with a percentile interval over resampled people.

    ``statistic`` takes weights of shape (replicates, answers) and gives one number a replicate.
    """
    n = len(people)
    if not n:
        return Estimate(None, None, None, 0)
    value = float(statistic(np.ones((1, n)))[0])
    _, member = np.unique(people, return_inverse=True)
    size = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(REPLICATES // CHUNK):
        chosen = rng.integers(0, size, (CHUNK, size))
        counts = np.stack([np.bincount(row, minlength=size) for row in chosen])
        draws.append(statistic(counts[:, member].astype(np.float64)))
    kept = np.concatenate(draws)
    kept = kept[np.isfinite(kept)]
    if not np.isfinite(value) or not len(kept):
        return Estimate(None, None, None, n)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)


def clustered_auroc(score: Floats, wrong: Flags, people: npt.NDArray[np.int64], seed: int) -> Estimate:
    """AUROC with an interval over people, of the answers for which the score was measured."""
    kept = np.isfinite(score)
    return clustered(_Auroc(score[kept], wrong[kept]), people[kept], seed)


def clustered_share(hits: Flags, people: npt.NDArray[np.int64]) -> Estimate:
    """Share of hits with a Wilson interval at the effective number of answers.

    That number is n divided by the design effect of asking several times about one person (Kish); at a
    share of 0 or 1, where the data say nothing of that effect, it is the number of people. A bootstrap
    would give an interval of no width there.
    """
    n = len(hits)
    if not n:
        return Estimate(None, None, None, 0)
    share = float(np.mean(hits))
    _, member = np.unique(people, return_inverse=True)
    clusters = int(member.max()) + 1
    effective = float(clusters)
    if 0.0 < share < 1.0 and clusters > 1:
        deviations = np.bincount(member, weights=hits - share)
        robust = (deviations**2).sum() / n**2 * clusters / (clusters - 1)
        effective = min(float(n), share * (1 - share) / robust) if robust > 0 else float(n)
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    middle = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * np.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    return Estimate(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)), n)


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's correlation; ``None`` where one of the two is constant."""
    kept = np.isfinite(first) & np.isfinite(second)
    if kept.sum() < 3 or np.ptp(first[kept]) == 0 or np.ptp(second[kept]) == 0:
        return None
    return float(stats.spearmanr(first[kept], second[kept]).statistic)


def calibration_error(probability: Floats, right: Flags, bins: int = 15) -> float:
    """Expected calibration error over bins of equal mass: the weighted mean of |accuracy − confidence|."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(right[part].mean() - probability[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(order))


__all__ = [
    "Estimate",
    "auroc",
    "calibration_error",
    "clustered",
    "clustered_auroc",
    "clustered_share",
    "rank_correlation",
]
