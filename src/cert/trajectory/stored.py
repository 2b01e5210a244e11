"""Stored records put through the monitor: the same signals and the same gate as for live ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cert.backends.stored import StoredFormat, StoredItem, StoredOptions, read_stored
from cert.core.errors import CertError
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.journal import RecordWriter
from cert.trajectory.summaries import SummaryTable, summarise_stored, write_summaries
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = [
    "RecordWriter",
    "StoredAnalysis",
    "SummaryTable",
    "analyze_stored",
    "summarise_stored",
    "write_summaries",
]


@dataclass(frozen=True, eq=False, slots=True)
class StoredAnalysis:
    """The analysis of one stored generation, or the error of its record.

    Attributes:
        number, key, choice: as in `cert.backends.stored.StoredItem`.
        outcome: the analysis or the error.
    """

    number: int
    outcome: TrajectoryAnalysis | CertError
    key: str | None = None
    choice: int = 0


def analyze_stored(
    path: str | Path,
    config: TrajectoryConfig | None = None,
    *,
    format: StoredFormat = "auto",
    options: StoredOptions | None = None,
) -> Iterator[StoredAnalysis]:
    """Return the analyses of a stored file as they are asked for; a broken record's error is in its place.

    Raises:
        InputError: the file cannot be opened.
        DependencyMissingError: Parquet or ``.zst`` without pyarrow.
    """
    settings = config or TrajectoryConfig()
    items = read_stored(path, format=format, options=options)
    return (_analysed(item, settings) for item in items)


def _analysed(item: StoredItem, config: TrajectoryConfig) -> StoredAnalysis:
    outcome = item.outcome
    done = outcome if isinstance(outcome, CertError) else analyze_generation(outcome, config)
    return StoredAnalysis(item.number, done, item.key, item.choice)
