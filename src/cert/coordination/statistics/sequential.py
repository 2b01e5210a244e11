"""Stop as soon as it is clear: a confidence sequence, valid at every look (see `betting`).

The capital of bets against δ = margin is a martingale, whichever task one stops at; a claim is made once it
exceeds 2/α. The price is width: about half as wide again as a fixed number of tasks needs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cert.coordination.statistics.betting import SEQUENTIAL_STAKES, BettingPairs
from cert.coordination.statistics.pairs import Floats, pair
from cert.coordination.types import Interval, Verdict

__all__ = ["SequentialDecision", "decide_sequentially"]


@dataclass(frozen=True, slots=True)
class SequentialDecision:
    """Where a comparison stands, however often it was looked at.

    Attributes:
        verdict: of the first look that made a claim; later tasks do not take it back.
        stopped_at: independent units measured by then; ``None`` while there is no claim.
        units: measured until now.
        interval: of the mean difference, at the last look; holds for all looks together.
        evidence: the e-value against δ = margin, the larger side; above 2/α a claim is made.
    """

    verdict: Verdict
    stopped_at: int | None
    units: int
    interval: Interval
    evidence: float


def decide_sequentially(
    coordinated: npt.ArrayLike,
    baseline: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    margin: float = 0.0,
    level: float = 0.95,
) -> SequentialDecision:
    """Return the three-way answer after any number of tasks, in the order in which they were measured.

    The order must not depend on scores. A source counts as one unit, by the mean of its tasks, at the place
    of its first one: look only when the tasks of a source are complete. Missing judgements drop the task.

    Args:
        coordinated: (T,) or (T, R) scores.
        baseline: the same.
        clusters: the source of each task.
        margin: as in `decide`.
        level: of all looks together.
    """
    pairs = pair(coordinated, baseline, clusters)
    bets = unit_bets(pairs.coordinated, pairs.baseline, pairs.clusters)
    units = len(bets.weights)
    more, less = _paths(bets.coordinated - bets.baseline, margin)
    price = math.log(2.0 / (1.0 - level))
    crossed = np.flatnonzero(np.maximum(more, less) > price)
    first = int(crossed[0]) if len(crossed) else None
    verdict: Verdict = "not_enough_data"
    if first is not None:
        verdict = "worth_it" if more[first] > price else "not_worth_it"
    low, high = bets.difference(level) if units else (-1.0, 1.0)
    return SequentialDecision(
        verdict=verdict,
        stopped_at=None if first is None else first + 1,
        units=units,
        interval=Interval(low, high, level, "betting, anytime-valid"),
        evidence=math.exp(min(700.0, max(more[-1], less[-1]))) if units else 1.0,
    )


def unit_bets(coordinated: Floats, baseline: Floats, clusters: npt.NDArray[np.int64]) -> BettingPairs:
    """Return bets on units of equal weight: how large a source will be is not known when it is bet on."""
    sizes = np.bincount(clusters).astype(np.float64)
    return BettingPairs(
        coordinated=np.bincount(clusters, weights=coordinated) / sizes,
        baseline=np.bincount(clusters, weights=baseline) / sizes,
        weights=np.ones(len(sizes)),
        stakes=SEQUENTIAL_STAKES,
    )


def _paths(differences: Floats, margin: float) -> tuple[Floats, Floats]:
    """Return the log-capital after each unit of the bets on more and on less than the margin."""
    paths = []
    for sign in (1.0, -1.0):
        gains = sign * (differences - margin) / (1.0 + sign * margin)
        logs = np.log1p(SEQUENTIAL_STAKES[:, None] * gains).cumsum(axis=1)
        top = logs.max(axis=0)
        paths.append(top + np.log(np.exp(logs - top).mean(axis=0)))
    return paths[0], paths[1]
