"""Figures by group: a score that is good over all may be of no use within some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InputError
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.evaluation.bootstrap import Resampling, minority
from cert.trajectory.evaluation.metrics import auroc_of
from cert.trajectory.evaluation.ranks import Floats
from cert.trajectory.evaluation.shares import clustered_share
from cert.trajectory.evaluation.tally import Tally, draw
from cert.trajectory.evaluation.types import GroupEvaluation

__all__ = ["MOST_GROUPS", "group_evaluations"]

MOST_GROUPS: Final = 50


def group_evaluations(
    data: LabelledData, columns: Mapping[str, Floats], replicates: int, seed: int
) -> tuple[GroupEvaluation, ...]:
    """Return the error rate of each group and the AUROC of each score in it, by the group's name.

    Args:
        data: n answers.
        columns: (n,) scores by name.
        replicates: draws of units for each interval.
        seed: of the draws.

    Raises:
        InputError: more than 50 groups.
    """
    if data.groups is None:
        return ()
    names = np.array([str(name) for name in data.groups])
    known = np.unique(names)
    if len(known) > MOST_GROUPS:
        raise InputError(
            f"{len(known)} groups are more than the {MOST_GROUPS} that figures are given for",
            hint="name a field with fewer different values",
        )
    return tuple(
        _group(str(name), np.flatnonzero(names == name), data, columns, replicates, seed) for name in known
    )


def _group(
    name: str,
    places: NDArray[np.int64],
    data: LabelledData,
    columns: Mapping[str, Floats],
    replicates: int,
    seed: int,
) -> GroupEvaluation:
    wrong, units = ~data.correct[places], data.units[places]
    tallies = {one: Tally(column[places], wrong, {"auroc": auroc_of}) for one, column in columns.items()}
    draw(list(tallies.values()), np.empty((len(places), 0)), Resampling(units, replicates, seed))
    return GroupEvaluation(
        name=name,
        n=len(places),
        n_units=len(np.unique(units)),
        n_wrong=int(wrong.sum()),
        error_rate=clustered_share(wrong, units),
        auroc={
            one: tally.estimate("auroc", minority(wrong[tally.kept], units[tally.kept]))
            for one, tally in tallies.items()
        },
    )
