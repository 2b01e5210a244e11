"""The gate over a table: verdicts of many records at once, by fixed thresholds or by a certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError
from cert.trajectory.calibration.answers import whole_or_reason
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.matching import Made
from cert.trajectory.gate_columns import VERDICTS, verdicts
from cert.trajectory.types import TrajectoryConfig

__all__ = ["Groups", "Standing", "TableGate", "group_of"]

Groups: TypeAlias = str | Mapping[str, str] | None
"""The group of every answer, or of each by the key of its record; ``None`` without groups."""

_NOT_MEASURED = VERDICTS.index("not_measured")


class Standing(IntEnum):
    """What a certificate can say of a record."""

    WHOLE = 0
    PART = 1
    """The answer was stopped before its end."""
    UNCOVERED = 2
    """So it was, and it was not made as the certificate says."""


class TableGate:
    """Gives each record of a table the verdict that it would get alone.

    Args:
        config: settings; its thresholds decide where there is no gate.
        gate: that decides in place of them.
        groups: of the answers, for a gate with groups.
    """

    def __init__(
        self, config: TrajectoryConfig, gate: CalibratedGate | None = None, groups: Groups = None
    ) -> None:
        self.config, self.gate, self._groups = config, gate, groups

    def standing(self, made: Made) -> Standing:
        """Return what the gate can say of a record.

        Raises:
            ConfigurationError: its answer is whole and was not made as the certificate says.
        """
        if self.gate is None:
            return Standing.WHOLE
        part = whole_or_reason(made.finish_reason) is not None
        try:
            self.gate.match.refuse_answer(made, self.config.surprise_probability_threshold)
        except ConfigurationError:
            if not part:
                raise
            return Standing.UNCOVERED
        return Standing.PART if part else Standing.WHOLE

    def verdicts(
        self,
        columns: Mapping[str, NDArray[Any]],
        keys: Sequence[str | None],
        standings: NDArray[np.int8],
    ) -> NDArray[np.int8]:
        """Return the verdict of each of B records as its place in `VERDICTS`.

        Args:
            columns: of shape (B,), as `cert.signals.signal_columns` gives them.
            keys: the callers' names of the records.
            standings: (B,) as `standing` gives them.
        """
        if self.gate is None:
            return verdicts(columns, self.config.thresholds)
        groups = [group_of(key, self._groups) for key in keys]
        found = self.gate.verdicts(columns, groups, whole=standings == Standing.WHOLE)
        found[standings == Standing.UNCOVERED] = _NOT_MEASURED
        return found


def group_of(key: str | None, groups: Groups) -> str | None:
    """Return the group of the record of a name."""
    if groups is None or isinstance(groups, str):
        return groups
    return None if key is None else groups.get(key)
