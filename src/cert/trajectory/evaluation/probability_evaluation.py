"""One probability of being right, judged on labelled answers."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.evaluation.bootstrap import estimate
from cert.trajectory.evaluation.probabilities import brier, calibration_error, chance_error, reliability
from cert.trajectory.evaluation.ranks import Floats
from cert.trajectory.evaluation.types import ProbabilityEvaluation

__all__ = ["probability_evaluation"]


def probability_evaluation(
    probability: Floats,
    data: LabelledData,
    drawn: Floats,
    source: Literal["stated", "logistic", "isotonic"],
    seed: int,
) -> ProbabilityEvaluation | None:
    """Return how honest a probability is; ``None`` where there is none for any answer.

    Args:
        probability: (n,) of each answer to be right; NaN is left out.
        data: the n answers.
        drawn: the Brier score of each draw of units.
        source: where it comes from.
        seed: of `chance_error`.
    """
    kept = ~np.isnan(probability)
    p, right, units = probability[kept], data.correct[kept], data.units[kept]
    if not len(p):
        return None
    chance = chance_error(p, right, units, seed=seed)
    accuracy = float(right.mean())
    return ProbabilityEvaluation(
        source=source,
        n=len(p),
        brier=estimate(brier(p, right), drawn, len(p), len(np.unique(units))),
        brier_constant=accuracy * (1.0 - accuracy),
        ece=calibration_error(p, right),
        ece_by_chance=None if math.isnan(chance) else chance,
        bins=reliability(p, right, units),
    )
