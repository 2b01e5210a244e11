"""A batch's records as a Parquet table, and back, a group of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cert.cli.batch_items import require_pyarrow
from cert.core.errors import InputError, OutputError

__all__ = ["lines_of_table", "write_table"]

_ROWS = 512
# Of the signals of an analysis, those that a table is sorted and filtered by.
_SIGNALS = (
    *("n_tokens", "mean_token_perplexity", "max_token_perplexity", "mean_surprisal", "sequence_logprob"),
    *("max_entropy_lower", "max_entropy_upper", "mean_entropy_lower", "mean_entropy_upper", "final_surprise"),
)


def write_table(records: Path, table: Path) -> None:
    """Write records as a table, whole or not at all: what is asked for most in columns, and all as JSON.

    Args:
        records: a file of records, a line each; read as the table is written.
        table: the Parquet file, which is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    pyarrow = require_pyarrow()
    schema = _schema(pyarrow)
    unfinished = table.with_name(f".{table.name}.part")
    try:
        with (
            records.open("rb") as lines,
            pyarrow.parquet.ParquetWriter(unfinished, schema, compression="zstd") as writer,
        ):
            rows = [_row(line) for line in _next(lines)]
            while rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                rows = [_row(line) for line in _next(lines)]
        os.replace(unfinished, table)
    except (OSError, pyarrow.ArrowException) as error:
        raise OutputError(f"'{table}' could not be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def lines_of_table(table: Path) -> Iterator[bytes]:
    """Yield the records of a table, a line each.

    Raises:
        InputError: it is no table of a batch.
    """
    pyarrow = require_pyarrow()
    try:
        for batch in pyarrow.parquet.ParquetFile(table).iter_batches(batch_size=_ROWS, columns=["record"]):
            for (record,) in zip(*batch.columns, strict=True):
                yield record.as_py().encode() + b"\n"
    except (OSError, pyarrow.ArrowException, AttributeError, ValueError) as error:
        raise InputError(
            f"'{table}' is there and is no output of `cert batch`",
            hint="name another output, or begin anew with --overwrite",
        ) from error


def _schema(pyarrow: Any) -> Any:
    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    columns = [("id", text), ("line", whole), ("verdict", text), ("generated_text", text)]
    columns += [("finish_reason", text), ("n_tokens", whole), *((name, real) for name in _SIGNALS[1:])]
    columns += [("error_code", text), ("error_message", text), ("record", pyarrow.large_string())]
    return pyarrow.schema(columns)


def _next(lines: Any) -> Iterator[bytes]:
    for _, line in zip(range(_ROWS), lines, strict=False):
        yield line


def _row(line: bytes) -> dict[str, Any]:
    record = msgspec.json.decode(line)
    analysis, error = record.get("analysis") or {}, record.get("error") or {}
    signals = analysis.get("signals", {})
    return {
        "id": None if record["id"] is None else str(record["id"]),
        "line": record["line"],
        **{name: analysis.get(name) for name in ("verdict", "generated_text", "finish_reason")},
        **{name: _number(signals.get(name)) for name in _SIGNALS},
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "record": line.rstrip(b"\n").decode(),
    }


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value  # an infinity is told by its name
