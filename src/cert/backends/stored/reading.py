"""Stored files of every form, read as generations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cert.backends.stored.items import StoredFormat, StoredItem, StoredOptions
from cert.backends.stored.jsonl import read_jsonl
from cert.backends.stored.lines import COMPRESSED, open_binary
from cert.core.errors import ConfigurationError, InputError

__all__ = ["read_stored", "stored_format"]

_PARQUET_MAGIC = b"PAR1"


def read_stored(
    path: str | Path, *, format: StoredFormat = "auto", options: StoredOptions | None = None
) -> Iterator[StoredItem]:
    """Return the generations of a stored file one by one, in constant memory.

    A JSONL file (also as ``.gz``, and with pyarrow as ``.zst``) may mix responses of the OpenAI API, pairs
    of request and response, output of its Batch API, and our own analyses. A Parquet file has a generation
    a row, as docs/reference/stored-records.md says. A record that is broken gives its error in its place.

    Args:
        path: the file.
        format: ``auto`` tells Parquet from JSONL by the first bytes.
        options: what the file does not say itself.

    Raises:
        InputError: the file cannot be opened, or is no Parquet file where it has to be one.
        DependencyMissingError: Parquet or ``.zst`` without pyarrow.
        ConfigurationError: an unknown format.
    """
    options = options or StoredOptions()
    if stored_format(Path(path), format) == "jsonl":
        return read_jsonl(Path(path), options)
    from cert.backends.stored.parquet import read_parquet

    return read_parquet(Path(path), options)


def stored_format(path: Path, format: StoredFormat = "auto") -> StoredFormat:
    """Return ``jsonl`` or ``parquet``.

    Raises:
        InputError: the file cannot be opened.
        ConfigurationError: an unknown format.
    """
    if format not in ("auto", "jsonl", "parquet"):
        raise ConfigurationError(f"the format is auto, jsonl or parquet, not {format!r}")
    if format != "auto":
        return format
    with open_binary(path) as stream:
        if path.suffix in COMPRESSED:
            return "jsonl"
        try:
            return "parquet" if stream.read(4) == _PARQUET_MAGIC else "jsonl"
        except OSError as error:
            raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
