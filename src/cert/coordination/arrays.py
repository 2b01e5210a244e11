"""Measurements as arrays, tasks first, NaN where a score is missing: what the statistics take."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cert.coordination.measurement import Arm, TaskMeasurement

__all__ = ["Scores", "scores_of_measurements"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of one system on T tasks.

    Attributes:
        coordinated: (T, R).
        independents: (T, R, A).
        budget: (T, S) of the single agent with the same budget; all NaN where it is not measured.
        sources: (T,) what is independent: the source of each task, or the task itself.
        coordinated_costs, budget_costs: (T,) micro-dollars of a run, NaN where not known.
    """

    coordinated: Floats
    independents: Floats
    budget: Floats
    sources: tuple[Hashable, ...]
    coordinated_costs: Floats
    budget_costs: Floats


def scores_of_measurements(measurements: Sequence[TaskMeasurement]) -> Scores:
    """Return the arrays of one system's measurements, one or more, all with as many replicates."""
    return Scores(
        coordinated=_matrix([[_number(arm.score) for arm in one.coordinated] for one in measurements]),
        independents=np.array(
            [
                [[_number(sample.quality) for sample in row] for row in one.independents]
                for one in measurements
            ],
            dtype=np.float64,
        ),
        budget=_matrix([[_number(arm.score) for arm in one.budget] for one in measurements]),
        sources=tuple(one.task.source or ("task", one.task.id) for one in measurements),
        coordinated_costs=_costs(measurements, lambda one: one.coordinated),
        budget_costs=_costs(measurements, lambda one: one.budget),
    )


def _matrix(rows: list[list[float]]) -> Floats:
    """Return the rows as (T, R); a row that was not measured at all is NaN."""
    width = max(1, *map(len, rows)) if rows else 1
    return np.array([row + [math.nan] * (width - len(row)) for row in rows], dtype=np.float64)


def _costs(
    measurements: Sequence[TaskMeasurement], arms: Callable[[TaskMeasurement], Sequence[Arm]]
) -> Floats:
    return np.array([_mean_cost(arms(one)) for one in measurements], dtype=np.float64)


def _mean_cost(arms: Sequence[Arm]) -> float:
    costs = [arm.answer.cost_micro_dollars for arm in arms]
    known = [cost for cost in costs if cost is not None]
    return sum(known) / len(known) if known and len(known) == len(costs) else math.nan


def _number(score: float | None) -> float:
    return math.nan if score is None else score
