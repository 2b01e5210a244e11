"""The signals of many answers as columns, whether they were recorded or are computed from steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cert.backends import Generation
from cert.backends.stored import StoredItem
from cert.trajectory.summaries import SIGNALS, summarise_items
from cert.trajectory.types import TrajectoryConfig

__all__ = ["SignalTable"]

_ROWS: Final = 4_096
# Tokens of responses that are kept until they are measured together.
_TOKENS: Final = 16_384


class SignalTable:
    """Takes answers one after the other, and gives a column for each signal.

    Args:
        config: what signals depend on besides the steps.
    """

    def __init__(self, config: TrajectoryConfig) -> None:
        self._config = config
        self._blocks: list[NDArray[np.float64]] = []
        self._rows: list[Sequence[Any]] = []
        self._items: list[StoredItem] = []
        self._tokens = 0

    def add(self, signals: Sequence[Any] | StoredItem) -> None:
        """Take the signals of the next answer, in the order of `SIGNALS`, or its steps."""
        if isinstance(signals, StoredItem):
            self._flush_rows()
            self._items.append(signals)
            outcome = signals.outcome
            self._tokens += len(outcome.steps) if isinstance(outcome, Generation) else 0
            if self._tokens >= _TOKENS or len(self._items) >= _ROWS:
                self._flush_items()
            return
        self._flush_items()
        self._rows.append(signals)
        if len(self._rows) >= _ROWS:
            self._flush_rows()

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of all that was taken, each (n,)."""
        self._flush_rows()
        self._flush_items()
        table = np.concatenate(self._blocks) if self._blocks else np.empty((0, len(SIGNALS)))
        columns: dict[str, NDArray[Any]] = {
            name: np.ascontiguousarray(table[:, place]) for place, name in enumerate(SIGNALS)
        }
        columns["n_tokens"] = columns["n_tokens"].astype(np.int64)
        return columns

    def _flush_rows(self) -> None:
        if self._rows:
            # None becomes NaN, and the two names of infinity are read as such.
            self._blocks.append(np.array(self._rows, dtype=np.float64))
            self._rows = []

    def _flush_items(self) -> None:
        for table in summarise_items(self._items, self._config):
            self._blocks.append(
                np.stack([table.signals[name] for name in SIGNALS], axis=1).astype(np.float64)
            )
        self._items, self._tokens = [], 0
