"""How honest probabilities are: expected calibration error, Brier score, reliability diagram.

For probabilities alone: a score that is no probability has none of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InputError
from cert.trajectory.evaluation.bootstrap import LEVEL, Estimate
from cert.trajectory.evaluation.ranks import Flags, Floats
from cert.trajectory.evaluation.shares import clustered_share

__all__ = ["BINS", "ReliabilityBin", "brier", "calibration_error", "chance_error", "mass_bins", "reliability"]

BINS: Final = 15
_DRAWS: Final = 2000


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers of about one probability.

    Attributes:
        probability: their mean probability of being right.
        right: the share of them that is right, with its interval over units.
        low, high: the least and the largest probability in the bin.
    """

    probability: float
    right: Estimate
    low: float
    high: float


def mass_bins(probability: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each answer, so that bins hold about equally many and equal values stay together.

    The bin of a value is ⌊bins · m / n⌋, with m its middle place among the n sorted ones: it does not depend
    on the order of the answers. Bins in which nothing falls are left out: bins are numbered from 0.
    """
    _, place, size = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(size) - size / 2
    _, of_value = np.unique(np.floor(bins * middle / max(len(probability), 1)), return_inverse=True)
    found: NDArray[np.int64] = of_value[place].astype(np.int64)
    return found


def brier(probability: Floats, right: Flags, weight: Floats | None = None) -> float:
    """Mean squared difference of probability and outcome (Brier 1950); NaN without answers.

    Args:
        probability: (n,) of each answer to be right, in [0, 1].
        right: (n,) labels.
        weight: (n,) how often each answer counts.

    Raises:
        InputError: a number that is no probability.
    """
    _refuse(probability)
    if not len(probability):
        return float("nan")
    return float(np.average((probability - right) ** 2, weights=weight))


def calibration_error(
    probability: Floats, right: Flags, bins: int = BINS, weight: Floats | None = None
) -> float:
    """Expected calibration error over bins of equal mass: the weighted mean of |accuracy − confidence|.

    Naeini, Cooper and Hauskrecht, AAAI 2015, with the bins of `mass_bins`. It is never 0 by chance: see
    `chance_error`. NaN without answers.

    Raises:
        InputError: a number that is no probability.
    """
    _refuse(probability)
    if not len(probability):
        return float("nan")
    weights = np.ones(len(probability)) if weight is None else weight
    residual = np.bincount(mass_bins(probability, bins), weights * (right - probability))
    return float(np.abs(residual).sum() / weights.sum())


def chance_error(
    probability: Floats, right: Flags, units: NDArray[np.int64], bins: int = BINS, seed: int = 0
) -> float:
    """Return what the ECE of perfectly calibrated probabilities would stay below in 95 % of such samples.

    The sums of residuals by bin are then about normal with mean 0; their covariance is that of the sums
    over units. An ECE at or below this is no evidence of miscalibration. Needs two units, else NaN.
    """
    _, member = np.unique(units, return_inverse=True)
    clusters = int(member.max(initial=-1)) + 1
    if clusters < 2:
        return float("nan")
    place = mass_bins(probability, bins)
    width = int(place.max()) + 1
    sums = np.bincount(member * width + place, right - probability, minlength=clusters * width)
    sums = sums.reshape(clusters, width)
    spread = sums.T @ sums * clusters / (clusters - 1)
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = np.random.default_rng(seed).standard_normal((_DRAWS, width)) @ root.T
    return float(np.quantile(np.abs(drawn).sum(axis=1) / len(probability), LEVEL))


def reliability(
    probability: Floats, right: Flags, units: NDArray[np.int64], bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """Return the reliability diagram: accuracy against probability, by bins of equal mass.

    Raises:
        InputError: a number that is no probability.
    """
    _refuse(probability)
    place = mass_bins(probability, bins)
    found = []
    for one in range(int(place.max(initial=-1)) + 1):
        held = place == one
        inside = probability[held]
        found.append(
            ReliabilityBin(
                float(inside.mean()),
                clustered_share(right[held], units[held]),
                float(inside.min()),
                float(inside.max()),
            )
        )
    return tuple(found)


def _refuse(probability: Floats) -> None:
    # NaN is refused too: every comparison with it is false.
    if not np.all((probability >= 0.0) & (probability <= 1.0)):
        raise InputError("a probability is in [0, 1]", hint="leave out what was not measured, and count it")
