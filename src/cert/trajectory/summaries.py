"""The signals and verdicts of a stored file as a table, many generations at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cert.backends.stored import StoredFormat, StoredItem, StoredOptions, read_stored
from cert.backends.stored.reading import stored_format
from cert.core.errors import CertError, ConfigurationError, OutputError
from cert.signals import GenerationSignals, SignalColumns, TokenSteps, signal_columns
from cert.trajectory.calibration.gate import GateLike, gate_of
from cert.trajectory.calibration.matching import Made
from cert.trajectory.calibration.settings import config_of, refuse_settings
from cert.trajectory.gate import Verdict, json_number
from cert.trajectory.gate_columns import VERDICTS
from cert.trajectory.table_gate import Groups, Standing, TableGate
from cert.trajectory.types import TrajectoryConfig

__all__ = ["SIGNALS", "SummaryTable", "summarise_items", "summarise_stored", "write_summaries"]

SIGNALS = tuple(field.name for field in fields(GenerationSignals))

# Tokens of JSONL records that are kept until they are analysed together.
_BLOCK_TOKENS = 16_384


@dataclass(frozen=True, eq=False, slots=True)
class SummaryTable:
    """A part of a file: B records, with the signals of each or its error.

    Attributes:
        number: (B,) line or row of each, counted from 1.
        choice: (B,) which answer of the record.
        keys: the callers' names, ``None`` without one.
        errors: by place in this table.
        signals: (B,) a column for each field of `GenerationSignals`; NaN is not measured.
        verdict: (B,) the place in `VERDICTS`; of an error it means nothing.
    """

    number: NDArray[np.int64]
    choice: NDArray[np.int64]
    keys: Sequence[str | None]
    errors: dict[int, CertError]
    signals: SignalColumns
    verdict: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.number)

    @property
    def verdicts(self) -> list[Verdict | None]:
        """The verdict of each record, ``None`` of an error."""
        named: list[Verdict | None] = [VERDICTS[place] for place in self.verdict.tolist()]
        for place in self.errors:
            named[place] = None
        return named

    def to_arrow(self) -> Any:
        """Return a ``pyarrow.Table``; null is not measured.

        Raises:
            ImportError: without pyarrow.
        """
        import pyarrow as pa

        failed = np.zeros(len(self), dtype=bool)
        failed[list(self.errors)] = True
        errors = [self.errors.get(place) for place in range(len(self))]
        columns = {
            "number": pa.array(self.number),
            "choice": pa.array(self.choice, pa.int32()),
            "key": pa.array(self.keys, pa.string()),
            "error": pa.array([error and error.code for error in errors], pa.string()),
            "error_message": pa.array([error and error.message for error in errors], pa.string()),
            "verdict": pa.array(self.verdicts, pa.string()),
        }
        for name, values in self.signals.items():
            columns[name] = pa.array(values, mask=failed | np.isnan(values))
        return pa.table(columns)

    def to_lines(self) -> bytes:
        """Return a JSON object a line; ``null`` is not measured."""
        columns = {name: values.tolist() for name, values in self.signals.items()}
        number, choice, named = self.number.tolist(), self.choice.tolist(), self.verdicts
        lines = []
        for place in range(len(self)):
            error = self.errors.get(place)
            row: dict[str, Any] = {
                "number": number[place],
                "choice": choice[place],
                "key": self.keys[place],
                "error": error and error.to_dict(),
                "verdict": named[place],
            }
            for name, values in columns.items():
                value = values[place]
                row[name] = None if error else json_number(value) if isinstance(value, float) else value
            lines.append(msgspec.json.encode(row))
        return b"\n".join(lines) + b"\n" if lines else b""


def summarise_stored(
    path: str | Path,
    config: TrajectoryConfig | None = None,
    *,
    format: StoredFormat = "auto",
    options: StoredOptions | None = None,
    gate: GateLike | None = None,
    groups: Groups = None,
) -> Iterator[SummaryTable]:
    """Return the signals and verdicts of a stored file, part by part, in constant memory.

    Numbers and verdicts have the bits that `cert.trajectory.stored.analyze_stored` gives. Of a Parquet file
    only the steps are read, and with a gate how they were made: what is wrong with a text or a name shows
    there alone.

    Args:
        path: as `cert.backends.stored.read_stored` has it.
        config: settings; its thresholds decide where there is no gate.
        format: as `cert.backends.stored.read_stored` has it.
        options: the same.
        gate: as `cert.trajectory.stored.analyze_stored` has it.
        groups: the same.

    Raises:
        InputError: the file, or the gate's, cannot be opened.
        ConfigurationError: the gate does not cover these settings.
        DependencyMissingError: Parquet without pyarrow.
    """
    decides = gate_of(gate)
    settings, options = config or config_of(decides), options or StoredOptions()
    refuse_settings(decides, None, settings)
    judge = TableGate(settings, decides, groups)
    format = stored_format(Path(path), format)
    if format == "parquet":
        from cert.backends.stored.parquet import holds_records

        if not holds_records(Path(path)):
            return _of_parquet(Path(path), judge, options)
    return _summarised(read_stored(path, format=format, options=options), judge)


def write_summaries(tables: Iterable[SummaryTable], path: str | Path) -> int:
    """Write tables to a ``.parquet`` file or else as JSONL, whole or not at all; return how many records.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = Path(f"{path}.part")
    write = _write_parquet if Path(path).suffix == ".parquet" else _write_lines
    try:
        count = write(tables, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write_lines(tables: Iterable[SummaryTable], path: Path) -> int:
    count = 0
    with path.open("wb") as stream:
        for table in tables:
            stream.write(table.to_lines())
            count += len(table)
    return count


def _write_parquet(tables: Iterable[SummaryTable], path: Path) -> int:
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetWriter(str(path), _table([], TableGate(TrajectoryConfig())).to_arrow().schema) as writer:
        for table in tables:
            writer.write_table(table.to_arrow())
            count += len(table)
    return count


def _of_parquet(path: Path, judge: TableGate, options: StoredOptions) -> Iterator[SummaryTable]:
    from cert.backends.stored.blocks import refuse_mass, step_blocks
    from cert.backends.stored.generations import MADE_COLUMNS
    from cert.backends.stored.parquet import read_batches
    from cert.backends.stored.parquet_schema import STEP_COLUMNS
    from cert.trajectory.row_standings import standings_of_rows

    def tables() -> Iterator[SummaryTable]:
        for batch in batches:
            if isinstance(batch.rows, CertError):
                yield _table([_Row(batch.first, 0, None, batch.rows)], judge)
                continue
            n = len(batch.rows)
            blocks, errors = step_blocks(batch.rows)
            columns = _not_measured(n)
            for block in blocks:
                mass = np.empty(len(block.steps))
                found = signal_columns(block.steps, block.lengths, judge.config.signal_options, mass=mass)
                refuse_mass(block, mass, errors)
                _fill(columns, block.rows, found)
            standings, refused = standings_of_rows(batch.rows, judge, blocks, errors)
            for row, error in errors.items():
                error.context.setdefault("row", batch.first + row)
            keys = batch.rows.column("key").to_pylist() if "key" in batch.rows.schema.names else [None] * n
            yield SummaryTable(
                number=np.arange(batch.first, batch.first + n),
                choice=np.zeros(n, dtype=np.int64),
                keys=keys,
                errors={**errors, **refused},
                signals=columns,
                verdict=judge.verdicts(columns, keys, standings),
            )

    made = () if judge.gate is None else MADE_COLUMNS
    batches = read_batches(path, options, tuple(dict.fromkeys(("key", *STEP_COLUMNS, *made))))
    return tables()


@dataclass(frozen=True, eq=False, slots=True)
class _Row:
    """What a table needs of an item; the rest of a generation is given back at once."""

    number: int
    choice: int
    key: str | None
    outcome: TokenSteps | CertError
    standing: Standing = Standing.WHOLE

    @classmethod
    def of(cls, item: StoredItem, judge: TableGate) -> _Row:
        if isinstance(item.outcome, CertError):
            return cls(item.number, item.choice, item.key, item.outcome)
        try:
            standing = judge.standing(Made.of(item.outcome))
        except ConfigurationError as error:
            return cls(item.number, item.choice, item.key, error)
        return cls(item.number, item.choice, item.key, item.outcome.steps, standing)


def summarise_items(items: Iterable[StoredItem], config: TrajectoryConfig) -> Iterator[SummaryTable]:
    """Return the signals and verdicts of items, part by part, in their order."""
    return _summarised(items, TableGate(config))


def _summarised(items: Iterable[StoredItem], judge: TableGate) -> Iterator[SummaryTable]:
    kept: list[_Row] = []
    tokens = 0
    for row in (_Row.of(item, judge) for item in items):
        kept.append(row)
        tokens += len(row.outcome) if isinstance(row.outcome, TokenSteps) else 1
        if tokens >= _BLOCK_TOKENS:
            yield _table(kept, judge)
            kept, tokens = [], 0
    if kept:
        yield _table(kept, judge)


def _table(rows: Sequence[_Row], judge: TableGate) -> SummaryTable:
    columns = _not_measured(len(rows))
    errors: dict[int, CertError] = {}
    alike: dict[tuple[int, int | None], list[tuple[int, TokenSteps]]] = {}
    for place, row in enumerate(rows):
        if isinstance(row.outcome, CertError):
            errors[place] = row.outcome
        else:
            steps = row.outcome
            alike.setdefault((steps.top_k, steps.vocab_size), []).append((place, steps))
    for members in alike.values():
        lengths = np.array([len(steps) for _, steps in members])
        joined = _joined([steps for _, steps in members])
        found = signal_columns(joined, lengths, judge.config.signal_options)
        _fill(columns, np.array([place for place, _ in members]), found)
    return SummaryTable(
        number=np.array([row.number for row in rows], dtype=np.int64),
        choice=np.array([row.choice for row in rows], dtype=np.int64),
        keys=[row.key for row in rows],
        errors=errors,
        signals=columns,
        verdict=judge.verdicts(
            columns, [row.key for row in rows], np.array([row.standing for row in rows], dtype=np.int8)
        ),
    )


def _joined(parts: Sequence[TokenSteps]) -> TokenSteps:
    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    return TokenSteps(
        token_ids=column("token_ids"),
        logprob=column("logprob"),
        top_ids=column("top_ids"),
        top_logprobs=column("top_logprobs"),
        entropy=column("entropy"),
        self_certainty=column("self_certainty"),
        vocab_size=parts[0].vocab_size,
    )


def _not_measured(n: int) -> SignalColumns:
    columns: SignalColumns = {name: np.full(n, np.nan) for name in SIGNALS}
    columns["n_tokens"] = np.zeros(n, dtype=np.int64)
    return columns


def _fill(columns: SignalColumns, places: NDArray[np.int64], found: SignalColumns) -> None:
    for name, values in found.items():
        columns[name][places] = values
