"""The judge as an instrument: how often it contradicts itself, its panel and its own other order.

Pure but for reading evaluations: arrays in, numbers out; ``NaN`` is a missing judgement, and a figure for
which there is not enough is ``None``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from cert.coordination.evaluators.pairwise import Preference
from cert.coordination.types import Evaluation
from cert.core.errors import InputError

__all__ = [
    "JudgeFigures",
    "OrderFigures",
    "flip_rate",
    "judge_figures",
    "krippendorff_alpha",
    "order_figures",
    "repeat_deviation",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
Level: TypeAlias = Literal["nominal", "interval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFigures:
    """What is known of judges from the evaluations that they made.

    Attributes:
        judgements: that were asked for.
        missing_rate: the share of them that is missing.
        missing_by_reason: how many for each reason.
        flip_rate: of two judgements of one answer by one judge, how often one is below the cut and the other
            is not; ``None`` without repeats.
        repeat_deviation: standard deviation of a judge's repeats on one answer; ``None`` without repeats.
        panel_alpha: agreement of the judges' means beyond chance (Krippendorff's α of interval data): 1 is
            perfect, 0 what chance gives; ``None`` without a panel, or where all scores are the same.
    """

    judgements: int
    missing_rate: float
    missing_by_reason: Mapping[str, int]
    flip_rate: float | None
    repeat_deviation: float | None
    panel_alpha: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFigures:
    """What is known of judges from the comparisons that they made in both orders.

    Attributes:
        comparisons: that were asked for.
        missing_rate: the share of them without a verdict in both orders.
        flip_rate: the share of the others whose two verdicts differ; ``None`` if there are none.
        first_shown_rate: of the verdicts that are no tie, the share for the answer that was shown first.
            Every answer is shown first once, so that a judge without a bias is at 0.5.
    """

    comparisons: int
    missing_rate: float
    flip_rate: float | None
    first_shown_rate: float | None


def judge_figures(evaluations: Iterable[Evaluation], *, cut: float = 0.5) -> JudgeFigures:
    """Return what the evaluations of one evaluator say about its judges.

    Args:
        evaluations: of any answers, by one evaluator.
        cut: from this score on an answer counts as good, for the flips.

    Raises:
        InputError: there is no evaluation with judgements, or they are not of one evaluator.
    """
    made = [one for one in evaluations if one.scores]
    if not made or len({(one.evaluator, one.n_judges, len(one.scores)) for one in made}) > 1:
        raise InputError("figures of judges need evaluations by one evaluator, one or more")
    scores = np.array([one.scores for one in made], dtype=np.float64)  # None becomes NaN
    by_judge = scores.reshape(len(made), made[0].n_judges, -1)
    repeats = by_judge.reshape(-1, by_judge.shape[2])
    reasons = Counter(reason for one in made for reason in one.reasons if reason is not None)
    return JudgeFigures(
        judgements=scores.size,
        missing_rate=float(np.isnan(scores).mean()),
        missing_by_reason=dict(reasons.most_common()),
        flip_rate=flip_rate(repeats, cut),
        repeat_deviation=repeat_deviation(repeats),
        panel_alpha=krippendorff_alpha(_means(by_judge).T) if by_judge.shape[1] > 1 else None,
    )


def order_figures(preferences: Sequence[Preference]) -> OrderFigures:
    """Return what comparisons in both orders say about the judges.

    Raises:
        InputError: there is no comparison.
    """
    orders = [pair for preference in preferences for pair in preference.orders]
    if not orders:
        raise InputError("figures of comparisons need one comparison or more")
    compared = [pair for pair in orders if None not in pair]
    # In the first order the answer shown first is the first one, in the second order the second.
    shown_first = [pair[place] == own for pair in compared for place, own in enumerate(("first", "second"))]
    ties = [verdict == "tie" for pair in compared for verdict in pair]
    decided = [first for first, tie in zip(shown_first, ties, strict=True) if not tie]
    return OrderFigures(
        comparisons=len(orders),
        missing_rate=1.0 - len(compared) / len(orders),
        flip_rate=sum(a != b for a, b in compared) / len(compared) if compared else None,
        first_shown_rate=sum(decided) / len(decided) if decided else None,
    )


def flip_rate(scores: FloatArray, cut: float = 0.5) -> float | None:
    """Return how often two repeats of one judgement are on different sides of a cut.

    Args:
        scores: (judgements, repeats), NaN where missing.
        cut: from this score on is one side.

    Returns:
        The mean over judgements with two repeats or more of the share of pairs that differ; ``None`` if
        there are none.
    """
    there = (~np.isnan(scores)).sum(axis=1)
    high = (scores >= cut).sum(axis=1)  # NaN is on no side
    enough = there >= 2
    if not enough.any():
        return None
    n, k = there[enough], high[enough]
    return float(np.mean(2 * k * (n - k) / (n * (n - 1))))


def repeat_deviation(scores: FloatArray) -> float | None:
    """Return the standard deviation of repeats, pooled over judgements; ``None`` without repeats.

    Args:
        scores: (judgements, repeats), NaN where missing.
    """
    there = (~np.isnan(scores)).sum(axis=1)
    freedom = int((there - 1).clip(0).sum())
    if not freedom:
        return None
    repeated = scores[there >= 2]
    centred = repeated - np.nanmean(repeated, axis=1, keepdims=True)
    return float(np.sqrt(np.nansum(centred**2) / freedom))


def krippendorff_alpha(ratings: FloatArray, level: Level = "interval") -> float | None:
    """Return the agreement of raters beyond chance, α = 1 − D_o/D_e.

    D_o is the mean difference δ of two ratings of one item, D_e that of two ratings of any items; δ is the
    squared distance (interval), or whether they differ (nominal). Items with fewer than two ratings tell
    nothing and are left out. Source: Krippendorff, *Content Analysis*, 3rd edition, 2013, chapter 12.

    Args:
        ratings: (raters, items), NaN where missing.
        level: of measurement.

    Returns:
        α, at most 1, below 0 for raters who disagree systematically; ``None`` where no item has two ratings
        or where all ratings are the same, which shows no agreement beyond chance.
    """
    items = [item[~np.isnan(item)] for item in ratings.T]
    items = [item for item in items if len(item) >= 2]
    if not items:
        return None
    everything = np.concatenate(items)
    if (everything == everything[0]).all():
        return None
    observed = sum(_differences(item, level) / (len(item) - 1) for item in items) / len(everything)
    expected = _differences(everything, level) / (len(everything) * (len(everything) - 1))
    return float(1.0 - observed / expected)


def _differences(values: FloatArray, level: Level) -> float:
    """Return the sum of δ over all ordered pairs."""
    if level == "nominal":
        _, times = np.unique(values, return_counts=True)
        return float(len(values) ** 2 - (times**2).sum())
    return float(2.0 * len(values) * ((values - values.mean()) ** 2).sum())


def _means(by_judge: FloatArray) -> FloatArray:
    """Return (evaluations, judges), NaN where a judge said nothing."""
    there = (~np.isnan(by_judge)).sum(axis=2)
    sums = np.nansum(by_judge, axis=2)
    means: FloatArray = np.divide(sums, there, out=np.full(sums.shape, np.nan), where=there > 0)
    return means
