"""The measures of a score, and the same ones of every draw of units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from cert.trajectory.evaluation.bootstrap import Estimate, Resampling, estimate
from cert.trajectory.evaluation.metrics import (
    aurc_of,
    auroc_of,
    average_precision_of,
    excess_aurc_of,
    prr_of,
)
from cert.trajectory.evaluation.ranks import Counts, Flags, Floats, Packed, Ranking

__all__ = ["RANK_BLOCKS", "Measure", "Tally", "difference", "draw", "measures"]

RANK_BLOCKS: Final = 1024
Measure = Callable[[Counts], Floats]


def measures(max_rejection: float) -> Mapping[str, Measure]:
    """Return the measures of ranks by name."""
    return {
        "auroc": auroc_of,
        "auprc": average_precision_of,
        "prr": lambda counts: prr_of(counts, max_rejection),
        "aurc": aurc_of,
        "excess_aurc": excess_aurc_of,
    }


class Tally:
    """One score: its exact measures, and what draws of units make of them.

    Draws tell scores apart by `RANK_BLOCKS` blocks of neighbouring ranks. What that alone changes in a
    measure is taken off each draw.

    Args:
        score: (n,), larger is worse; NaN is left out.
        wrong: (n,) labels.
        wanted: the measures by name.
    """

    def __init__(self, score: Floats, wrong: Flags, wanted: Mapping[str, Measure]) -> None:
        self.kept = ~np.isnan(score)
        self.ranking = Ranking.of(score[self.kept], wrong[self.kept])
        self.coarse = self.ranking.merged(RANK_BLOCKS)
        self._all = bool(self.kept.all())
        self._wanted = wanted
        counts, merged = self.ranking.counts(), self.coarse.counts()
        self.value = {name: float(of(counts)[0]) for name, of in wanted.items()}
        self._shift = {name: self.value[name] - float(of(merged)[0]) for name, of in wanted.items()}
        self._drawn: dict[str, list[Floats]] = {name: [] for name in wanted}

    def add(self, weights: Packed) -> None:
        """Take draws: how often each of the n answers counts."""
        counts = self.coarse.counts(weights if self._all else weights.take(self.kept))
        for name, of in self._wanted.items():
            self._drawn[name].append(of(counts) + self._shift[name])

    def drawn(self, name: str) -> Floats:
        """Return a measure of all draws."""
        return np.concatenate(self._drawn[name]) if self._drawn[name] else np.empty(0)

    def estimate(self, name: str, rarer: int) -> Estimate:
        """Return a measure with its interval.

        Args:
            name: of the measure.
            rarer: units of the rarer kind among the answers for which the score was measured.
        """
        return estimate(self.value[name], self.drawn(name), len(self.ranking), rarer)


def difference(first: Tally, second: Tally, name: str, rarer: int) -> Estimate:
    """Return a measure of one score less that of another, by the same draws of the same answers."""
    n = int((first.kept & second.kept).sum())
    if not np.array_equal(first.kept, second.kept):
        return Estimate(None, None, None, n, "the two were not measured for the same answers")
    value = first.value[name] - second.value[name]
    return estimate(value, first.drawn(name) - second.drawn(name), n, rarer)


def draw(tallies: Sequence[Tally], loss: Floats, resampling: Resampling) -> Floats:
    """Give the same draws of units to all tallies, and return the mean losses of each draw.

    Args:
        tallies: of the n answers.
        loss: (n, L); NaN is left out.
        resampling: of the n answers.

    Returns:
        (replicates, L)
    """
    measured = ~np.isnan(loss)
    filled, there = np.where(measured, loss, 0.0), measured.astype(np.float64)
    whole = bool(measured.all())
    means = []
    for weights in resampling.weights():
        packed = Packed.of(weights)
        for tally in tallies:
            tally.add(packed)
        held = weights.sum(axis=1, keepdims=True) if whole else weights @ there
        with np.errstate(invalid="ignore"):
            means.append(weights @ filled / held)
    return np.concatenate(means)
