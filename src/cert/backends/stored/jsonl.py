"""JSONL files: which form each line has, and what it holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from cert.backends.base import Outcome
from cert.backends.stored.api_lines import Pair, read_pair, read_plain
from cert.backends.stored.items import StoredItem, StoredOptions, record_error
from cert.backends.stored.lines import Line, open_binary, read_lines
from cert.backends.stored.own_analyses import read_analysis
from cert.core.errors import CertError, InputError

__all__ = ["read_jsonl", "read_record_lines", "refuse_repeated_keys"]

Found = tuple[str | None, list[Outcome]]
Reader = Callable[[bytes, StoredOptions], Found]


class Shape(msgspec.Struct):
    """The keys that tell one form of record from another; their values are left as they are."""

    kind: str | None = None
    object: str | None = None
    type: str | None = None
    choices: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    request: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    response: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Record(msgspec.Struct):
    """A line of our own journal: an analysis under the caller's key, or an error in its place."""

    kind: Literal["trajectory_record"]
    key: str | None = None
    analysis: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Any = None


_SHAPE = msgspec.json.Decoder(Shape)
_PAIR = msgspec.json.Decoder(Pair)
_RECORD = msgspec.json.Decoder(Record)


def read_jsonl(path: Path, options: StoredOptions) -> Iterator[StoredItem]:
    """Return the records of a JSONL file as they are asked for; a broken line is an error in its place.

    Raises:
        InputError: the file cannot be opened.
        DependencyMissingError: ``.zst`` without pyarrow.
    """
    return read_record_lines(read_lines(open_binary(path), options.max_line_bytes), options)


def read_record_lines(lines: Iterable[Line], options: StoredOptions) -> Iterator[StoredItem]:
    """Return the records of lines as they are asked for."""
    reader: Reader | None = None
    for line in lines:
        try:
            if isinstance(line.data, CertError):
                raise line.data
            if options.refuse_repeated_keys:
                refuse_repeated_keys(line.data)
            reader, (key, outcomes) = _read(line.data, options, reader)
        except CertError as error:
            yield StoredItem(line.number, _located(error, line))
            continue
        for choice, outcome in enumerate(outcomes):
            if isinstance(outcome, CertError):
                outcome.context.setdefault("line", line.number)
            yield StoredItem(line.number, outcome, key, choice)


def _read(data: bytes, options: StoredOptions, reader: Reader | None) -> tuple[Reader, Found]:
    """Read a line as the one before it, which most are like, or find out what it is."""
    if reader is not None:
        try:
            return reader, reader(data, options)
        except InputError:
            pass
    found = _reader_for(data)
    return found, found(data, options)


def _reader_for(data: bytes) -> Reader:
    try:
        shape = _SHAPE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The message of msgspec names a place and a type, never a value.
        raise record_error(f"the line cannot be read: {error}") from error
    if shape.kind == "trajectory_analysis":
        return _analysis
    if shape.kind == "trajectory_record":
        return _record
    if shape.response is not msgspec.UNSET or shape.request is not msgspec.UNSET:
        return _pair
    if shape.choices is not msgspec.UNSET or shape.error is not msgspec.UNSET or shape.object == "error":
        return _plain
    if shape.type == "message":
        raise record_error(
            "the response has no log-probabilities", hint="the API that it comes from does not give any"
        )
    raise record_error(
        "the line is no record that is known here",
        hint="API responses, pairs of request and response, and our own analyses are",
    )


def _analysis(data: bytes, _: StoredOptions) -> Found:
    return None, [read_analysis(data)]


def _record(data: bytes, _: StoredOptions) -> Found:
    try:
        record = _RECORD.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise record_error(f"the record cannot be read: {error}") from error
    try:
        if isinstance(record.analysis, msgspec.UnsetType) or bytes(record.analysis) == b"null":
            raise record_error("the record is of a failure", failure=_code(record.error))
        return record.key, [read_analysis(record.analysis)]
    except InputError as error:
        return record.key, [error]


def _pair(data: bytes, options: StoredOptions) -> Found:
    try:
        pair = _PAIR.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise record_error(f"the record cannot be read: {error}") from error
    if pair.request is msgspec.UNSET and pair.response is msgspec.UNSET:
        raise record_error("the record is no pair of a request and a response")
    try:
        return pair.custom_id or pair.key, read_pair(pair, options)
    except InputError as error:
        return pair.custom_id or pair.key, [error]


def _plain(data: bytes, options: StoredOptions) -> Found:
    return None, read_plain(data, options)


def _code(error: Any) -> str | None:
    code = error.get("code") if isinstance(error, dict) else None
    return str(code)[:64] if code is not None else None


def _located(error: CertError, line: Line) -> CertError:
    cause = error.__cause__
    malformed = isinstance(cause, msgspec.DecodeError) and not isinstance(cause, msgspec.ValidationError)
    if malformed and not line.whole:
        return record_error("the last line is cut off", line=line.number)
    error.context.setdefault("line", line.number)
    return error


def refuse_repeated_keys(data: bytes) -> None:
    """Refuse JSON in which an object has a key twice.

    Raises:
        InputError: it has, or it is no JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise record_error("an object of the record has a key twice")
        return found

    try:
        json.loads(data, object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        # The error of json would quote the line.
        raise record_error("the line cannot be read: it is no JSON") from error
