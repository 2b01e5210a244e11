"""A score that is chosen by data: the best single one, or a combination that is fitted."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from cert.core.errors import InfeasibleError, InputError
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES, GateScore

__all__ = ["CHOSEN", "chosen_score"]

CHOSEN: Final = ("best", "combiner")
"""Names that stand for a choice."""


def chosen_score(name: str, tuning: LabelledData, seed: int) -> tuple[GateScore, tuple[str, ...]]:
    """Return the score that is chosen on answers for tuning, and what is to be said of the choice.

    Args:
        name: ``best`` for the score of `SCORES` with the largest AUROC, among those that were measured on
            every answer; ``combiner`` for a combination of signals.
        tuning: answers that no promise is calibrated on.
        seed: of the fit.

    Raises:
        InputError: labels of one kind alone, or no score that was measured on every answer.
        InfeasibleError: no combination is surely better than the best single score.
    """
    if len(set(tuning.correct.tolist())) < 2:
        kind = "right" if tuning.correct[0] else "wrong"
        raise InputError(
            f"all {len(tuning):,} answers for tuning are {kind}: no score can be chosen by them",
            hint="name a score, such as 'msp', or label more answers",
        )
    return _best(tuning) if name == "best" else _combiner(tuning, seed)


def _best(tuning: LabelledData) -> tuple[GateScore, tuple[str, ...]]:
    from cert.trajectory.evaluation.metrics import auroc

    _, unit, sizes = np.unique(tuning.units, return_inverse=True, return_counts=True)
    weight = 1.0 / sizes[unit]
    found: dict[str, float] = {}
    for name, score in SCORES.items():
        if score.column not in tuning.columns:
            continue
        column = score.column_of(tuning.columns)
        if not np.isnan(column).any():
            found[name] = auroc(column, ~tuning.correct, weight)
    if not found:
        raise InputError("no score was measured on every answer for tuning")
    best = max(found, key=lambda name: found[name] if not math.isnan(found[name]) else -1.0)
    note = (
        f"the score '{best}' was chosen among {len(found)} on {len(tuning):,} answers for tuning, "
        f"by its AUROC there of {found[best]:.3f}"
    )
    return SCORES[best], (note,)


def _combiner(tuning: LabelledData, seed: int) -> tuple[GateScore, tuple[str, ...]]:
    from cert.trajectory.calibration.combiner import fit_combiner

    fit = fit_combiner(tuning, seed=seed)
    if not fit.used:
        raise InfeasibleError(
            f"on {len(tuning):,} answers for tuning no combination is surely better than '{fit.best_single}'",
            hint=f"the score '{fit.best_single}' itself, or more labels",
        )
    low, high = fit.advantage.low, fit.advantage.high
    note = (
        f"the combiner was fitted on {len(tuning):,} answers for tuning; its AUROC there is {low:.3f} to "
        f"{high:.3f} above that of the best single score"
    )
    return fit.combiner, (note,)
