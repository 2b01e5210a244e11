"""Whether promises hold: calibrations on draws from a large pool whose own rates are the truth.

Each draw takes units of the pool with replacement, so that they are independent and of the pool's own law.
The threshold found on them is then judged on the whole pool: what it realises there is its true rate, without
error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError, InfeasibleError
from cert.trajectory.calibration.goals import GOALS, Goal, find_threshold
from cert.trajectory.calibration.goals.answers import Answers
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import GateScore, score_named

__all__ = ["Guarantee", "guarantees_of_pool"]


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What repeated calibrations for one goal realised.

    Attributes:
        goal, alpha, delta: the promise.
        units: units of each draw.
        draws: how many calibrations.
        refused: those without a threshold.
        mean_rate: mean, over the others, of the rate that the goal bounds; NaN where all were refused.
        mean_of_all: mean over all draws, with 0 for those refused; this is what is promised.
        standard_error: of the mean of all.
        violations: calibrations whose rate is above α. For a goal without δ about half of them may be.
        most_violations: for a goal with δ: as many as that happen with a probability of 0.1 % if they have
            the probability δ; otherwise ``None``.
        pass_rate: mean share of answers that pass, over the calibrations with a threshold.
    """

    goal: Goal
    alpha: float
    delta: float | None
    units: int
    draws: int
    refused: int
    mean_rate: float
    mean_of_all: float
    standard_error: float
    violations: int
    most_violations: int | None
    pass_rate: float

    @property
    def kept(self) -> bool:
        """Whether the promise was kept, as far as so many draws can tell.

        With a δ: the violations, of all calibrations, are within their binomial band. Without: the mean of
        all is at most α, within 3 standard errors.
        """
        if self.most_violations is not None:
            return self.violations <= self.most_violations
        return self.mean_of_all <= self.alpha + 3 * self.standard_error

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready data; what is not a number is ``None``."""
        figures = asdict(self) | {"kept": self.kept}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in figures.items()
        }


def guarantees_of_pool(
    data: LabelledData,
    score: str | GateScore,
    *,
    units: int,
    alpha: float,
    delta: float = 0.1,
    goals: Sequence[Goal] = GOALS,
    draws: int = 1000,
    seed: int = 0,
    deployed: LabelledData | None = None,
    as_independent: bool = False,
) -> list[Guarantee]:
    """Return what calibrations on draws from a pool realise, for each goal.

    Args:
        data: the pool.
        score: what is calibrated; for ``streaming`` the running maximum of a whole run.
        units: units of each draw.
        alpha: of every goal.
        delta: of ``selective-risk``.
        goals: which.
        draws: calibrations of each goal, at least 2.
        seed: of the draws. A draw of one seed has the same units for every goal.
        deployed: another pool to judge on, whose law may differ; the pool itself otherwise.
        as_independent: calibrate as if each answer were a unit of its own, which is wrong where a unit has
            several: it shows what that costs.

    Raises:
        ConfigurationError: no such score or goal, or a rate or number that cannot be right.
        InputError: scores that do not fit the data.
    """
    if draws < 2 or units < 1:
        raise ConfigurationError(
            f"{draws} draws of {units} units tell nothing", hint="for example 1000 of 300"
        )
    measure = score_named(score) if isinstance(score, str) else score
    pool, rows = _pool(data, measure)
    truth = _Truth.of(pool if deployed is None else _pool(deployed, measure)[0])
    values = {goal: np.full(draws, np.nan) for goal in goals}
    for number in range(draws):
        taken, owner = _draw(rows, units, np.random.default_rng((seed, number)))
        owner = np.arange(len(taken)) if as_independent else owner
        for goal in goals:
            try:
                found = find_threshold(
                    goal,
                    pool.scores[taken],
                    pool.correct[taken],
                    owner,
                    alpha=alpha,
                    delta=delta if goal == "selective-risk" else None,
                    seed=number,
                )
            except InfeasibleError:
                continue
            values[goal][number] = found.value
    return [
        _guarantee(goal, values[goal], truth, units, alpha, delta if goal == "selective-risk" else None)
        for goal in goals
    ]


def _pool(data: LabelledData, score: GateScore) -> tuple[Answers, list[NDArray[np.int64]]]:
    pool = Answers.of(score.column_of(data.columns), data.correct, data.units)
    order = np.argsort(pool.units, kind="stable")
    ends = np.cumsum(np.bincount(pool.units, minlength=pool.n_units))[:-1]
    return pool, np.split(order, ends)


def _draw(
    rows: list[NDArray[np.int64]], units: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the answers of units drawn with replacement, and the number of the draw of each."""
    drawn = [rows[unit] for unit in random.integers(len(rows), size=units)]
    return np.concatenate(drawn), np.repeat(np.arange(units), [len(one) for one in drawn])


@dataclass(frozen=True, eq=False, slots=True)
class _Truth:
    """The curves of a pool: what the right and the wrong answers up to a score count, as shares of all."""

    right: NDArray[np.float64]
    right_up_to: NDArray[np.float64]
    wrong: NDArray[np.float64]
    wrong_up_to: NDArray[np.float64]
    rights: float

    @classmethod
    def of(cls, pool: Answers) -> _Truth:
        total = pool.n_units * pool.whole
        right, right_up_to = pool.ranked(pool.correct)
        wrong, wrong_up_to = pool.ranked(~pool.correct)
        curves = [
            np.concatenate(([0.0], (one / total).astype(np.float64))) for one in (right_up_to, wrong_up_to)
        ]
        return cls(right, curves[0], wrong, curves[1], pool.total(pool.correct) / total)

    def rates(self, goal: Goal, values: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the rate that a goal bounds at each threshold, and the share that passes there."""
        right = self.right_up_to[np.searchsorted(self.right, values, side="right")]
        wrong = self.wrong_up_to[np.searchsorted(self.wrong, values, side="right")]
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = {
                "false-flags": (self.rights - right) / self.rights,
                "streaming": (self.rights - right) / self.rights,
                "misses": wrong / (1.0 - self.rights),
                "selective-risk": wrong / (right + wrong),
                "undetected-errors": wrong,
            }[goal]
        # Where nothing passes, none of what passes is wrong.
        return np.nan_to_num(rate, nan=0.0), right + wrong


def _guarantee(
    goal: Goal, values: NDArray[np.float64], truth: _Truth, units: int, alpha: float, delta: float | None
) -> Guarantee:
    found = ~np.isnan(values)
    rates, passed = truth.rates(goal, values[found])
    count = int(found.sum())
    every = np.zeros(len(values))
    every[found] = rates
    most = None
    if delta is not None:
        from scipy.stats import binom

        most = int(binom.ppf(0.999, len(values), delta))
    return Guarantee(
        goal=goal,
        alpha=alpha,
        delta=delta,
        units=units,
        draws=len(values),
        refused=len(values) - count,
        mean_rate=float(rates.mean()) if count else math.nan,
        mean_of_all=float(every.mean()),
        standard_error=float(every.std(ddof=1) / math.sqrt(len(values))),
        violations=int((rates > alpha).sum()),
        most_violations=most,
        pass_rate=float(passed.mean()) if count else math.nan,
    )
