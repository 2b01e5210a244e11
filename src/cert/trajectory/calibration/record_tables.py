"""The answers of a Parquet file: a table of records, of generations, or of summaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cert.backends.stored import StoredOptions, read_stored
from cert.backends.stored.parquet import holds_records, record_lines
from cert.core.errors import InputError
from cert.trajectory.calibration.answers import Broken, Found, name_of
from cert.trajectory.calibration.records import answers_of_items, answers_of_lines, summary_answer
from cert.trajectory.summaries import SIGNALS

__all__ = ["read_table"]

_SUMMARY: Final = ("number", "choice", "key", "error")
# A small file can unfold to any number of rows.
_MOST_ROWS: Final = 2**26


class RowFields:
    """The members of one row of columns."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], row: int) -> None:
        self._columns, self._row = columns, row

    def get(self, name: str) -> Any:
        """Return a member; ``None`` where there is none."""
        column = self._columns.get(name)
        return None if column is None else column[self._row]


def read_table(path: Path, names: Sequence[str], key: str | None, options: StoredOptions) -> Iterator[Found]:
    """Return the answers of a Parquet file as they are asked for.

    Args:
        path: the file.
        names: columns of the user's that are asked for.
        key: of them, the one that names a record.
        options: the limits.

    Raises:
        InputError: the file cannot be opened or is of another form.
        DependencyMissingError: without pyarrow.
    """
    if holds_records(path):
        beside = _columns(path, names)
        return answers_of_lines(record_lines(path, options), key, options, what="row", beside=beside)
    if set(SIGNALS) <= set(_schema(path)):
        return _of_summaries(path, names, key)
    return _of_generations(path, _columns(path, names), key, options)


def _of_generations(
    path: Path, columns: Mapping[str, Sequence[Any]], key: str | None, options: StoredOptions
) -> Iterator[Found]:
    for item in read_stored(path, format="parquet", options=options):
        fields = RowFields(columns, item.number - 1)
        yield from answers_of_items([item], fields, f"row {item.number}", key)


def _of_summaries(path: Path, names: Sequence[str], key: str | None) -> Iterator[Found]:
    columns = _columns(path, (*_SUMMARY, *SIGNALS, *names))
    signals = zip(*(columns[name] for name in SIGNALS), strict=True)
    for row, values in enumerate(signals):
        fields, where = RowFields(columns, row), f"row {row + 1}"
        number = fields.get("number")
        record = name_of(fields, key, fields.get("key"), f"line {number}" if number is not None else where)
        if fields.get("error") is not None:
            yield Broken(row + 1, where, record, "the record is of a failure")
        else:
            yield summary_answer(row + 1, where, record, fields.get("choice") or 0, fields, values)


def _schema(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(str(path)).names
    return names


def _columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of the file that have one of the names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(str(path)) as file:
            if file.metadata.num_rows > _MOST_ROWS:
                raise InputError(f"'{path}' has more than {_MOST_ROWS:,} rows")
            wanted = [name for name in dict.fromkeys(names) if name in file.schema_arrow.names]
            table = file.read(wanted, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' cannot be read as a Parquet file") from error
    return {name: table.column(name).to_pylist() for name in wanted}
