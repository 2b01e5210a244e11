"""The curves that people look at, thinned to what a screen shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cert.trajectory.evaluation.ranks import Counts, Flags, Floats

__all__ = ["Curves", "Histogram", "histogram", "risk_at", "risk_coverage", "roc"]

_POINTS: Final = 100
_BARS: Final = 24
_OUTER: Final = (0.01, 0.99)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How scores are spread over right and over wrong answers.

    Attributes:
        edges: of the bars. The first and last bar also hold whatever lies beyond, infinite scores too.
        right, wrong: the share of the right and of the wrong answers in each bar.
    """

    edges: tuple[float, ...]
    right: tuple[float, ...]
    wrong: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """What is drawn of a score.

    Attributes:
        coverage, risk: share of answers kept, the best first, and the error rate among them.
        false_alarms, found: ROC: share of right answers above a threshold, and of wrong ones.
        histogram: of the score by label; ``None`` without finite scores.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    false_alarms: tuple[float, ...]
    found: tuple[float, ...]
    histogram: Histogram | None


def risk_at(counts: Counts, coverage: Floats) -> Floats:
    """Return the expected error rate among the best k = max(1, ⌊c n⌋) answers for each coverage c.

    Args:
        counts: of one weighting.
        coverage: (C,) shares in (0, 1].
    """
    size = np.concatenate([[0.0], np.cumsum(counts.size[0])])
    missed = np.concatenate([[0.0], np.cumsum(counts.bad[0])])
    kept = np.maximum(1.0, np.floor(coverage * size[-1] + 1e-9))
    # Within equal scores the expected number of wrong ones is linear.
    found: Floats = np.interp(kept, size, missed) / kept
    return found


def risk_coverage(counts: Counts) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return coverages and the error rates at them."""
    coverage = np.arange(1, _POINTS + 1) / _POINTS
    return tuple(coverage.tolist()), tuple(risk_at(counts, coverage).tolist())


def roc(counts: Counts) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return false alarms and found errors over falling thresholds, from (0, 0) to (1, 1)."""
    bad, good = (np.concatenate([[0.0], np.cumsum(side[0, ::-1])]) for side in (counts.bad, counts.good))
    places = np.unique(np.linspace(0, len(bad) - 1, min(len(bad), 2 * _POINTS)).round().astype(int))
    return tuple((good[places] / good[-1]).tolist()), tuple((bad[places] / bad[-1]).tolist())


def histogram(score: Floats, wrong: Flags) -> Histogram | None:
    """Return the spread of a score by label, over the range of its middle 98 %."""
    finite = score[np.isfinite(score)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, _OUTER)
    if low == high:
        room = max(abs(float(low)), 1.0) * 0.5
        low, high = low - room, high + room
    edges = np.linspace(low, high, _BARS + 1)
    inside = np.clip(score, low, high)
    shares = [np.histogram(inside[kind], edges)[0] / max(int(kind.sum()), 1) for kind in (~wrong, wrong)]
    return Histogram(tuple(edges.tolist()), *(tuple(share.tolist()) for share in shares))
