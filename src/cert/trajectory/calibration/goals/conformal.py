"""Thresholds whose promise is about the mean over calibrations: by ranks, in exact arithmetic.

All are one inequality. Let every unit count 1, each of its m answers 1/m, and let n + 1 units be
exchangeable, the last of them the one to come. With a loss L(λ) of a unit that is monotone in λ and never
above B, any λ, chosen as far as the inequality allows, for which

    Σ L_i(λ) + B ≤ 0     over the n units of the calibration

has E[L(λ)] ≤ 0 for the unit to come (conformal risk control, arXiv 2208.02814). With f, p, c, w the counts
of a unit's answers that are flagged and correct, passed and wrong, correct, and wrong:

    false flags         L = f − α·c    B = 1 − α    so  E[f] ≤ α·E[c]
    misses              L = p − α·w    B = 1 − α    so  E[p] ≤ α·E[w]
    undetected errors   L = p − α      B = 1 − α    so  E[p] ≤ α

With one answer a unit the first is the ⌈(n + 1)(1 − α)⌉-th smallest score of the n correct ones, and the
second its mirror image. With several, all of them count and none is thrown away: drawing one at random
would keep the same promise with fewer answers of the kind and a threshold that depends on the draw.
Treating them as independent would not keep it.

The promise counts a calibration that is refused as one after which no false flag, or no miss, occurs. With
one answer a unit and every score measured it also holds among those that are not refused.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InfeasibleError
from cert.trajectory.calibration.goals.answers import Answers, exact_rate, just_below
from cert.trajectory.calibration.goals.feasibility import KINDS, infeasible
from cert.trajectory.calibration.goals.types import Goal, Threshold

__all__ = ["false_flags", "misses", "streaming", "undetected_errors"]


def false_flags(
    scores: NDArray[Any], correct: NDArray[Any], units: NDArray[Any], *, alpha: float
) -> Threshold:
    """Return the smallest threshold with P(flagged | correct) ≤ α.

    λ is the smallest score at which the correct answers up to it count (1 − α)(n + 1) or more, n being what
    all correct ones count. With one answer a unit that is the ⌈(n + 1)(1 − α)⌉-th smallest.

    Args:
        scores: (n,) larger is worse. NaN is always flagged.
        correct: (n,) whether each answer is right; the wrong ones only tell how large a unit is.
        units: (n,) what each answer is about.
        alpha: the rate.

    Raises:
        InfeasibleError: too few correct answers, or too many of them without a score.
        ConfigurationError, InputError: a rate or columns that cannot be right.
    """
    return _upper("false-flags", Answers.of(scores, correct, units), alpha)


def streaming(scores: NDArray[Any], correct: NDArray[Any], units: NDArray[Any], *, alpha: float) -> Threshold:
    """Return the smallest threshold with P(ever alarmed | correct) ≤ α, whenever one stops looking.

    An alarm is a running score above λ. It is ever raised if and only if the maximum of the run is above λ,
    and then it is raised in every longer run too: so the quantile of the maxima, as `false_flags` takes it,
    holds at every stopping time.

    Args:
        scores: (n,) the maximum of the running score over each whole run. NaN counts as alarmed.
        correct: (n,) whether the answer of each run is right.
        units: (n,) what each run is about.
        alpha: the rate of runs.

    Raises:
        InfeasibleError, ConfigurationError, InputError: as `false_flags`.
    """
    return _upper("streaming", Answers.of(scores, correct, units), alpha)


def misses(scores: NDArray[Any], correct: NDArray[Any], units: NDArray[Any], *, alpha: float) -> Threshold:
    """Return the largest threshold with P(passed | wrong) ≤ α.

    The wrong answers that pass may count α(n + 1) − 1, n being what all wrong ones count. λ is just below the
    smallest score at which they count more: what has this very score must not pass, since λ itself passes.
    With one answer a unit it is the ⌊α(n + 1)⌋-th smallest of the wrong ones. Ties only make it stricter.

    Args:
        scores: (n,) larger is worse. NaN never passes.
        correct: (n,) whether each answer is right; the correct ones only tell how large a unit is.
        units: (n,) what each answer is about.
        alpha: the rate.

    Raises:
        InfeasibleError: too few wrong answers, or too many of them at a score of minus infinity.
        ConfigurationError, InputError: a rate or columns that cannot be right.
    """
    answers, rate = Answers.of(scores, correct, units), exact_rate("alpha", alpha)
    short = _short("misses", answers, ~answers.correct, rate)
    if short is not None:
        raise short
    return _lower("misses", answers, alpha, answers.total(~answers.correct))


def undetected_errors(
    scores: NDArray[Any], correct: NDArray[Any], units: NDArray[Any], *, alpha: float
) -> Threshold:
    """Return the largest threshold with P(wrong and passed) ≤ α.

    As `misses`, but the wrong answers that pass may count α(N + 1) − 1, N being the number of all units.

    Args:
        scores: (n,) larger is worse. NaN never passes.
        correct: (n,) whether each answer is right.
        units: (n,) what each answer is about.
        alpha: the rate, of all answers.

    Raises:
        InfeasibleError: fewer than 1/α − 1 units, or too many wrong answers at minus infinity.
        ConfigurationError, InputError: a rate or columns that cannot be right.
    """
    answers, rate = Answers.of(scores, correct, units), exact_rate("alpha", alpha)
    everyone = np.ones(len(answers.scores), dtype=np.bool_)
    short = _short("undetected-errors", answers, everyone, rate)
    if short is not None:
        raise short
    return _lower("undetected-errors", answers, alpha, answers.n_units * answers.whole)


def _upper(goal: Goal, answers: Answers, alpha: float) -> Threshold:
    rate, whole = exact_rate("alpha", alpha), answers.whole
    short = _short(goal, answers, answers.correct, rate)
    if short is not None:
        raise short
    count = answers.total(answers.correct)
    ranked, up_to = answers.ranked(answers.correct)
    place = int(np.searchsorted(up_to, math.ceil((1 - rate) * (count + whole)), side="left"))
    if place == len(ranked):
        raise _unmeasured(goal, count, count - int(up_to[-1]) if len(up_to) else count, whole, rate)
    flagged = count - answers.total(answers.correct & (answers.scores <= ranked[place]))
    details: dict[str, float | int | str | None] = {"effective_units": count / whole, "over": flagged / whole}
    if answers.single:
        # The rate of one calibration follows this law where scores have no ties; with ties it is lower.
        details |= {"rank": place + 1, "beta_a": count - place, "beta_b": place + 1}
    return _threshold(goal, answers, float(ranked[place]), alpha, details)


def _lower(goal: Goal, answers: Answers, alpha: float, count: int) -> Threshold:
    rate, whole = exact_rate("alpha", alpha), answers.whole
    ranked, up_to = answers.ranked(~answers.correct)
    limit = math.floor(rate * (count + whole)) - whole
    place = int(np.searchsorted(up_to, limit, side="right"))
    value = just_below(float(ranked[place])) if place < len(ranked) else math.inf
    if place < len(ranked) and ranked[place] == -math.inf:
        raise infeasible(
            f"no threshold reaches the goal '{goal}' at {alpha}: too many wrong answers have the lowest "
            "score of all, minus infinity",
            goal,
            None,
            hint="another score",
        )
    passed = answers.total(~answers.correct & (answers.scores <= value))
    details: dict[str, float | int | str | None] = {"effective_units": count / whole, "over": passed / whole}
    if answers.single and place < len(ranked) and goal == "misses":
        details |= {"rank": place + 1, "beta_a": place + 1, "beta_b": count - place}
    return _threshold(goal, answers, value, alpha, details)


def _threshold(
    goal: Goal, answers: Answers, value: float, alpha: float, details: dict[str, float | int | str | None]
) -> Threshold:
    passed = answers.total(answers.scores <= value)
    details |= {
        "pass_rate": passed / answers.whole / answers.n_units,
        "not_measured": int(np.isnan(answers.scores).sum()),
    }
    return Threshold(
        goal=goal,
        value=value,
        alpha=float(alpha),
        delta=None,
        n=len(answers.scores),
        n_units=answers.n_units,
        n_wrong=int((~answers.correct).sum()),
        details=details,
    )


def _short(goal: Goal, answers: Answers, kind: NDArray[np.bool_], rate: Fraction) -> InfeasibleError | None:
    """Return the error of too few answers of a kind, which no score can make up for."""
    least = (1 - rate) / rate
    count = Fraction(answers.total(kind), answers.whole)
    if count >= least:
        return None
    name = f"{KINDS[goal]} answers"
    have = f"there are {int(kind.sum())}"
    if not answers.single:
        have += f", which count {float(count):.4g}, as each of a unit's m answers counts 1/m"
    message = f"the goal '{goal}' at {float(rate):g} needs {math.ceil(least)} {name}, and {have}"
    return infeasible(message, goal, math.ceil(least - count))


def _unmeasured(goal: Goal, count: int, missing: int, whole: int, rate: Fraction) -> InfeasibleError:
    """Return the error of too many correct answers without a score: they are flagged at any threshold."""
    share = Fraction(missing, count)
    needed = None
    if share < rate:
        needed = math.ceil((1 - rate) / (rate - share) - Fraction(count, whole))
    message = (
        f"no threshold reaches the goal '{goal}' at {float(rate):g}: {float(share):.1%} of the correct "
        "answers have no score, and what was not measured is always flagged"
    )
    return infeasible(message, goal, needed, not_measured_share=float(share))
