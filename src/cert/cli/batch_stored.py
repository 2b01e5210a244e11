"""Stored answers instead of prompts: nothing is generated, only measured and put through the gate."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

from cert.backends.stored import StoredItem, StoredOptions, read_stored
from cert.cli.batch_done import Done, ItemKey
from cert.cli.batch_items import digest
from cert.cli.batch_run import Counts, Keeper, Named
from cert.core.errors import CertError
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.stored import analyze_item
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = ["StoredRun"]


class StoredRun:
    """Analyses the generations of a stored file, one after the other.

    Args:
        source: as `cert.backends.stored.read_stored` takes it.
        options: what the file does not say itself.
        config: thresholds and settings.
        done: what the output has.
        counts: kept up to date.
        keeper: takes what became of each.
        gate: that decides in place of the config's thresholds.
        group: of every answer, for a gate with groups.
    """

    def __init__(
        self,
        source: Path,
        options: StoredOptions,
        config: TrajectoryConfig,
        done: Done,
        counts: Counts,
        keeper: Keeper,
        *,
        gate: CalibratedGate | None = None,
        group: str | None = None,
    ) -> None:
        self._source, self._options, self._config = source, options, config
        self._done, self._counts, self._keeper = done, counts, keeper
        self._gate, self._group = gate, group
        self._stopping = threading.Event()

    def run(self) -> Generator[None, None, None]:
        """Analyse what the output does not have, yielding whenever one is done.

        Raises:
            OutputError: a record could not be kept.
            InputError: the file cannot be read, or the output is of another one.
        """
        for item in read_stored(self._source, options=self._options):
            if self._stopping.is_set():
                return
            key = ItemKey(digest(f"{item.number}:{item.choice}".encode()), _content(item))
            if self._done.has(key, item.number):
                self._counts.met += 1
            else:
                self._keeper.done(Named(item.key, item.number, key), self._outcome(item))
                yield

    def stop(self) -> None:
        """Begin nothing more; from any thread."""
        self._stopping.set()

    def _outcome(self, item: StoredItem) -> TrajectoryAnalysis | CertError:
        return analyze_item(item, self._config, self._gate, self._group)


def _content(item: StoredItem) -> int:
    if isinstance(item.outcome, CertError):
        return digest(item.outcome.message.encode("utf-8", "replace"))
    steps = item.outcome.steps
    return digest(item.outcome.text.encode("utf-8", "replace") + steps.logprob.tobytes())
