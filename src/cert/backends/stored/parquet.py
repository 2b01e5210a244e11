"""Parquet files of generations, a batch of rows at a time, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cert.backends.stored.items import StoredItem, StoredOptions, record_error
from cert.core.errors import DependencyMissingError, InputError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise DependencyMissingError(
        "reading Parquet files needs pyarrow", hint="pip install 'cert-framework[parquet]'"
    ) from None

from cert.backends.stored.blocks import refuse_mass, step_blocks
from cert.backends.stored.checks import top_mass
from cert.backends.stored.generations import generations
from cert.backends.stored.jsonl import read_record_lines
from cert.backends.stored.lines import Line
from cert.backends.stored.parquet_schema import REQUIRED, SCHEMA, check_schema

__all__ = ["Batch", "holds_records", "read_batches", "read_parquet", "record_lines"]

# Values of the longest column in a batch: small enough for the memory that a processor has at hand.
_BATCH_VALUES = 2**19
_BUFFER = 2**20
_RECORD = "record"


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file.

    Attributes:
        first: number of the first row, counted from 1.
        rows: a ``pyarrow.RecordBatch``, or the error of a row group that cannot be read.
    """

    first: int
    rows: Any


def read_parquet(path: Path, options: StoredOptions) -> Iterator[StoredItem]:
    """Return the generations of a Parquet file as they are asked for.

    The table that ``cert batch`` writes is read as well, by the records in it.

    Raises:
        InputError: the file cannot be opened or is of another form.
    """
    if holds_records(path):
        return read_record_lines(record_lines(path, options), options)
    return _items(read_batches(path, options))


def holds_records(path: Path) -> bool:
    """Say whether a table is one of records, a line of JSON a row, not one of generations.

    Raises:
        InputError: the file cannot be opened.
    """
    with _opened(path) as file:
        names = file.schema_arrow.names
        return _RECORD in names and not set(REQUIRED) & set(names)


def record_lines(path: Path, options: StoredOptions) -> Iterator[Line]:
    """Return the records of a table of them, a line each, as they are asked for.

    Raises:
        InputError: the file cannot be opened.
    """
    return _record_lines(_opened(path), options)


def _record_lines(file: Any, options: StoredOptions) -> Iterator[Line]:
    for batch in _batches(file, [_RECORD], options):
        if isinstance(batch.rows, InputError):
            yield Line(batch.first, batch.rows)
            continue
        column = batch.rows.column(0)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            yield Line(batch.first, record_error(f"column '{_RECORD}' holds no text"))
            return
        for row, record in enumerate(column):
            text = record.as_buffer()
            data = b"null" if text is None else bytes(text)
            yield Line(batch.first + row, data)


def read_batches(path: Path, options: StoredOptions, columns: Sequence[str] | None = None) -> Iterator[Batch]:
    """Return batches of rows as they are asked for; a row group that is broken is an error in its place.

    Args:
        path: the file.
        options: the limits.
        columns: those of `SCHEMA` to read; ``None`` reads all of them.

    Raises:
        InputError: the file cannot be opened or is of another form.
    """
    file = _open(path)
    found = file.schema_arrow.names
    wanted = [name for name in (columns or SCHEMA.names) if name in found]
    return _batches(file, wanted, options)


def _open(path: Path) -> Any:
    file = _opened(path)
    try:
        check_schema(file.schema_arrow)
    except BaseException:
        file.close()
        raise
    return file


def _opened(path: Path) -> Any:
    try:
        return pq.ParquetFile(str(path), buffer_size=_BUFFER)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' cannot be read as a Parquet file") from error


def _batches(file: Any, columns: list[str], options: StoredOptions) -> Iterator[Batch]:
    first = 1
    with file:
        for group in range(file.num_row_groups):
            described = file.metadata.row_group(group)
            rows = described.num_rows
            largest = max((described.column(i).num_values for i in range(described.num_columns)), default=0)
            done = 0
            try:
                if largest > options.max_row_group_values:
                    raise record_error("the row group is too large", hint="write smaller row groups")
                size = max(1, min(rows, _BATCH_VALUES * rows // max(1, largest)))
                for batch in file.iter_batches(size, [group], columns, use_threads=False):
                    yield Batch(first + done, batch)
                    done += len(batch)
            except (OSError, pa.ArrowException, InputError) as error:
                yield Batch(first + done, _group_error(error, first + done, rows - done))
            first += rows


def _group_error(error: Exception, first: int, rows: int) -> InputError:
    reason = error.message if isinstance(error, InputError) else "the row group cannot be read"
    found = record_error(f"{reason}: rows {first} to {first + rows - 1}", row=first, rows=rows)
    found.__cause__ = error
    return found


def _items(batches: Iterator[Batch]) -> Iterator[StoredItem]:
    for batch in batches:
        if isinstance(batch.rows, InputError):
            yield StoredItem(batch.first, batch.rows)
            continue
        blocks, errors = step_blocks(batch.rows)
        for block in blocks:
            refuse_mass(block, top_mass(block.steps.top_logprobs), errors)
        found = generations(batch.rows, blocks, errors)
        keys = batch.rows.column("key").to_pylist() if "key" in batch.rows.schema.names else None
        for row in range(len(batch.rows)):
            outcome = errors.get(row) or found[row]
            if isinstance(outcome, InputError):
                outcome.context.setdefault("row", batch.first + row)
            yield StoredItem(batch.first + row, outcome, keys[row] if keys else None)
