"""A threshold for each group of answers, so that the promise holds in each of them (Mondrian)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InfeasibleError, InputError
from cert.trajectory.calibration.goals.dispatch import find_threshold
from cert.trajectory.calibration.goals.feasibility import infeasible
from cert.trajectory.calibration.goals.types import Goal, Threshold

__all__ = ["find_thresholds_by_group"]


def find_thresholds_by_group(
    goal: Goal,
    scores: NDArray[Any],
    correct: NDArray[Any],
    units: NDArray[Any],
    groups: NDArray[Any],
    *,
    alpha: float,
    delta: float | None = None,
    seed: int = 0,
) -> dict[Any, Threshold]:
    """Return a threshold for each group, computed from its answers alone.

    Each promise is for its own group: with a δ it is one for each, and some group fails more often than that.
    The groups of a new answer must be known before its score is.

    Args:
        goal: as for `find_threshold`, and so are the other arguments.
        scores: (n,).
        correct: (n,).
        units: (n,); answers about one unit may be in different groups.
        groups: (n,) the group of each answer.
        alpha: the rate in each group.
        delta: for each group, or ``None``.
        seed: the same for each group.

    Raises:
        InfeasibleError: some group has no threshold; the message and ``context["groups"]`` say which, and how
            many more labels each needs. Groups are never merged. ``needed`` is the sum, or ``None`` where
            one of them cannot be helped by labels.
        ConfigurationError, InputError: as for `find_threshold`, and groups of another length.
    """
    scores, correct, units, groups = (np.asarray(column) for column in (scores, correct, units, groups))
    if groups.shape != scores.shape:
        raise InputError(f"{len(scores)} answers have {len(groups)} groups")
    found: dict[Any, Threshold] = {}
    refused: dict[Any, InfeasibleError] = {}
    for group in sorted(set(groups.tolist()), key=str):
        mask = groups == group
        try:
            found[group] = find_threshold(
                goal, scores[mask], correct[mask], units[mask], alpha=alpha, delta=delta, seed=seed
            )
        except InfeasibleError as error:
            refused[group] = error
    if refused:
        raise _of_groups(goal, refused, len(found))
    return found


def _of_groups(goal: Goal, refused: dict[Any, InfeasibleError], others: int) -> InfeasibleError:
    needed = [error.needed for error in refused.values()]
    total = None if None in needed else sum(number for number in needed if number is not None)
    reasons = "; ".join(f"{group}: {error.message}" for group, error in refused.items())
    return infeasible(
        f"{len(refused)} of {len(refused) + others} groups have no threshold. {reasons}",
        goal,
        total,
        hint="label more of these groups, or leave their answers out: a gate passes nothing of a group that "
        "it does not know",
        groups={str(group): error.needed for group, error in refused.items()},
    )
