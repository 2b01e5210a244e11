"""The threshold up to which the share of wrong answers among the passed is bounded: learn, then test.

Learn then test (arXiv 2110.01052) with a fixed sequence. A part of the units is for tuning: it gives a grid
of thresholds and the one to start at. On the rest the hypotheses "P(wrong | passed) > α at λ" are tested
one after the other, each at the whole δ, towards looser thresholds, until the first that is not rejected.
The last rejected one is returned. A wrong threshold can only be returned if the first true hypothesis of
the sequence is rejected, which happens with probability δ at most, whatever the law, the score or the
quality of the tuning.

Of each unit one answer is drawn at random, for the tests alone. So the number of wrong answers among those
that pass is binomial, and P(Bin(passed, α) ≤ wrong) is a valid p-value. The promise is that of an answer
drawn at random of a unit drawn at random. A test of unit means by betting uses all answers and is valid
too, but its e-values need up to twice the evidence for the same δ: simulated with 2 to 10 answers a unit it
certified much less from 100 units, more from 300 where answers of a unit were little alike, and as much
from 1,000. Labels are scarcest where it is worst, so it is not offered. Binomial p-values on all answers of
a unit are not valid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InfeasibleError
from cert.trajectory.calibration.goals.answers import Answers, exact_rate
from cert.trajectory.calibration.goals.binomial import fixed_sequence, p_values, wrong_and_passed
from cert.trajectory.calibration.goals.feasibility import clean_passes, infeasible
from cert.trajectory.calibration.goals.tuning import TUNING_SHARE, sequence, units_wanted
from cert.trajectory.calibration.goals.types import Threshold
from cert.trajectory.calibration.splits import one_per_unit, split_units

__all__ = ["selective_risk"]


def selective_risk(
    scores: NDArray[Any],
    correct: NDArray[Any],
    units: NDArray[Any],
    *,
    alpha: float,
    delta: float | None,
    seed: int = 0,
) -> Threshold:
    """Return a threshold λ with P[P(wrong | passed) ≤ α] ≥ 1 − δ, the outer probability over calibrations.

    It says nothing about those calibrations alone that are not refused: where no threshold keeps α, every
    certificate is wrong, and δ of the calibrations may give one.

    Args:
        scores: (n,) larger is worse. NaN never passes.
        correct: (n,) whether each answer is right.
        units: (n,) what each answer is about.
        alpha: the bound on the share of wrong answers among the passed.
        delta: the share of calibrations in which the bound may fail.
        seed: of the split and of the draw of one answer a unit. Choosing the seed by its result voids the
            promise.

    Raises:
        InfeasibleError: no threshold could be certified. ``needed`` is the number of further units with which
            one could be with a probability of 80 %, at the rates seen here. Tests on data that were tested
            before use up a δ of their own.
        ConfigurationError, InputError: rates or columns that cannot be right.
    """
    risk, failing = exact_rate("alpha", alpha), exact_rate("delta", delta)
    answers = Answers.of(scores, correct, units)
    least = clean_passes(risk, failing)
    draw = np.random.default_rng(seed)
    seeds = [int(one) for one in draw.integers(2**32, size=2)]
    tested = answers.n_units - round(answers.n_units * TUNING_SHARE)
    if tested < least or tested == answers.n_units:
        why = f"the tests need {least} units, and of {answers.n_units} there are {tested} left for them"
        raise _refused(answers, alpha, float(failing), why)
    tuning, testing = split_units(answers.units, (TUNING_SHARE, 1 - TUNING_SHARE), seeds[0])
    grid = sequence(_part(answers, tuning), alpha, float(failing), tested)
    if grid is None:
        why = f"no threshold is likely to pass the {least} answers that a test needs at the least"
        raise _refused(answers, alpha, float(failing), why)
    rows = np.flatnonzero(testing)
    rows = rows[one_per_unit(answers.units[rows], seeds[1])]
    wrong, passed = wrong_and_passed(answers.scores[rows], answers.correct[rows], grid)
    values = p_values(wrong, passed, alpha)
    rejected = fixed_sequence(values, float(failing))
    if rejected == 0:
        why = f"at the first {wrong[0]} of the {passed[0]} that pass are wrong, which proves nothing"
        raise _refused(answers, alpha, float(failing), f"{why} (p = {values[0]:.2g})")
    last = rejected - 1
    return Threshold(
        goal="selective-risk",
        value=float(grid[last]),
        alpha=float(alpha),
        delta=float(failing),
        n=len(answers.scores),
        n_units=answers.n_units,
        n_wrong=int((~answers.correct).sum()),
        details={
            "p_value": float(values[last]),
            "passed": int(passed[last]),
            "wrong_and_passed": int(wrong[last]),
            "tested_units": len(rows),
            "tuning_units": answers.n_units - len(rows),
            "tests": len(grid),
            "rejected": rejected,
            "pass_rate": answers.total(answers.scores <= grid[last]) / answers.whole / answers.n_units,
            "not_measured": int(np.isnan(answers.scores).sum()),
        },
    )


def _part(answers: Answers, mask: NDArray[np.bool_]) -> Answers:
    return Answers.of(answers.scores[mask], answers.correct[mask], answers.units[mask])


def _refused(answers: Answers, alpha: float, delta: float, why: str) -> InfeasibleError:
    wanted = units_wanted(answers, alpha, delta)
    # What was tested once cannot be tested again for free: where the units seen should have been enough, as
    # many new ones are asked for.
    needed = None if wanted is None else wanted - answers.n_units if wanted > answers.n_units else wanted
    message = f"no threshold for the goal 'selective-risk' at alpha {alpha:g} and delta {delta:g}: {why}"
    if needed is None:
        message += f"; nowhere are fewer than {alpha:.3g} of the passed wrong"
    return infeasible(message, "selective-risk", needed)
