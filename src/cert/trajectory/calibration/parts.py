"""The parts of labelled data: for choosing, for the threshold, and for measuring what it achieves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError, InputError
from cert.trajectory.calibration.goals.feasibility import minimum_units
from cert.trajectory.calibration.goals.types import Goal
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.splits import split_units

__all__ = ["HELD_OUT_SHARE", "TUNING_SHARE", "Parts", "group_names", "parts_of"]

HELD_OUT_SHARE: Final = 0.2
"""Of the units, for measuring, where the data allow it."""
TUNING_SHARE: Final = 0.3
"""Of the units, for choosing a score or fitting a combiner."""
# So many times the units that a goal needs at the least have to remain for the threshold.
_PLENTY: Final = 3
Rows = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """Which answers are for what; no unit is in two parts.

    Attributes:
        tuning: (n,) for choosing; empty where nothing is chosen.
        calibration: (n,) for the threshold.
        held_out: (n,) for measuring; may be empty.
        why_none_held_out: in words.
    """

    tuning: Rows
    calibration: Rows
    held_out: Rows
    why_none_held_out: str = ""


def parts_of(
    data: LabelledData,
    goal: Goal,
    alpha: float,
    delta: float | None,
    seed: int,
    groups: list[str] | None,
    *,
    tuning_share: float,
    held_out_share: float | None,
) -> Parts:
    """Divide labelled data by units.

    Args:
        data: the answers.
        goal: with alpha and delta, which tells how many units a threshold needs.
        alpha: of the promise.
        delta: of the promise.
        seed: of the division.
        groups: (n,) names, where each group needs as many.
        tuning_share: of the units; 0 for no such part.
        held_out_share: of the units; 0 for no such part, ``None`` for one where the data allow it.

    Raises:
        ConfigurationError: shares that leave nothing for the threshold; no such goal or rate.
        InputError: no answers, or too few units for the parts.
    """
    if not len(data):
        raise InputError("there are no labelled answers")
    given = [share for share in (tuning_share, held_out_share) if share is not None]
    if any(not 0.0 <= share < 1.0 for share in given) or sum(given) >= 1.0:
        raise ConfigurationError(
            f"a tuning_share of {tuning_share} and a held_out_share of {held_out_share} leave nothing for "
            "the threshold",
            hint="for example 0.3 and 0.2",
        )
    least = minimum_units(goal, alpha, delta)
    why = "a share of 0 was given"
    share = held_out_share
    if share is None:
        kind = ~data.correct if goal == "misses" else data.correct
        left = _fewest(data.units[kind], None if groups is None else _chosen(groups, kind))
        enough = left * (1.0 - tuning_share - HELD_OUT_SHARE) >= _PLENTY * least
        share = HELD_OUT_SHARE if enough else 0.0
        why = "there are too few units to hold some out"
    masks = iter(split_units(data.units, _shares(tuning_share, share), seed))
    nothing = np.zeros(len(data), dtype=np.bool_)
    tuning = next(masks) if tuning_share > 0.0 else nothing
    calibration = next(masks)
    held_out = next(masks) if share > 0.0 else nothing
    return Parts(tuning, calibration, held_out, why)


def group_names(data: LabelledData) -> list[str]:
    """Return the group of each answer as the text that a certificate has.

    Raises:
        ConfigurationError: the data have no groups.
        InputError: two groups have the same name as text, or one has none.
    """
    if data.groups is None:
        raise ConfigurationError("the data have no groups to promise by", hint="name the field of the group")
    groups = data.groups.tolist()
    names = {group: str(group) for group in groups}
    if len(set(names.values())) != len(names) or not all(names.values()):
        raise InputError("two groups have the same name, or one has none")
    return [names[group] for group in groups]


def _shares(tuning: float, held_out: float) -> tuple[float, ...]:
    # Rounded, since 1 − 0.3 − 0.2 is a little off one half.
    between = round(1.0 - tuning - held_out, 12)
    return tuple(share for share in (tuning, between, held_out) if share > 0.0)


def _chosen(groups: list[str], kind: Rows) -> list[str]:
    return [groups[row] for row in np.flatnonzero(kind).tolist()]


def _fewest(units: NDArray[np.int64], groups: list[str] | None) -> int:
    """Return the number of units, in the group that has fewest."""
    if groups is None:
        return len(np.unique(units))
    if not groups:
        return 0
    named = np.array(groups, dtype=object)
    return min(len(np.unique(units[named == group])) for group in set(groups))
