"""Stored records put through the monitor: the same signals and the same gate as for live ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cert.backends.stored import StoredFormat, StoredItem, StoredOptions, read_stored
from cert.core.errors import CertError, ConfigurationError
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.calibration.gate import CalibratedGate, GateLike, gate_of
from cert.trajectory.calibration.settings import config_of, refuse_settings
from cert.trajectory.journal import RecordWriter
from cert.trajectory.summaries import SummaryTable, summarise_stored, write_summaries
from cert.trajectory.table_gate import Groups, group_of
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = [
    "RecordWriter",
    "StoredAnalysis",
    "SummaryTable",
    "analyze_item",
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
    gate: GateLike | None = None,
    groups: Groups = None,
) -> Iterator[StoredAnalysis]:
    """Return the analyses of a stored file as they are asked for; a broken record's error is in its place.

    Args:
        path: as `cert.backends.stored.read_stored` has it.
        config: settings; its thresholds decide where there is no gate.
        format: as `cert.backends.stored.read_stored` has it.
        options: the same.
        gate: a certificate, its file, or a `CalibratedGate`, that decides in place of the config's
            thresholds. A record that was not made as the certificate says is an error in its place.
        groups: for a gate with groups: the group of every answer, or of each by the key of its record.

    Raises:
        InputError: the file, or the gate's, cannot be opened.
        ConfigurationError: the gate does not cover these settings.
        DependencyMissingError: Parquet or ``.zst`` without pyarrow.
    """
    decides = gate_of(gate)
    settings = config or config_of(decides)
    refuse_settings(decides, None, settings)
    items = read_stored(path, format=format, options=options)
    return (
        StoredAnalysis(item.number, analyze_item(item, settings, decides, groups), item.key, item.choice)
        for item in items
    )


def analyze_item(
    item: StoredItem, config: TrajectoryConfig, gate: CalibratedGate | None = None, groups: Groups = None
) -> TrajectoryAnalysis | CertError:
    """Return the analysis of one stored item, or what is wrong with it; as `analyze_stored`."""
    if isinstance(item.outcome, CertError):
        return item.outcome
    try:
        return analyze_generation(item.outcome, config, gate, group=group_of(item.key, groups))
    except ConfigurationError as error:  # it was not made as the gate's certificate says
        return error
