"""The form of our Parquet files: a generation a row, its steps in list columns.

Candidates stand one after the other, K a token, in one flat list a row: every reader of Parquet knows lists
of numbers, and few know lists of fixed size.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cert.core.errors import InputError

__all__ = ["REQUIRED", "SCHEMA", "STEP_COLUMNS", "VERSION", "VERSION_KEY", "check_schema"]

VERSION = b"1"
VERSION_KEY = b"cert.generations"


def _list(kind: Any) -> Any:
    return pa.list_(pa.field("element", kind, nullable=False))


def _required(name: str, kind: Any) -> Any:
    return pa.field(name, kind, nullable=False)


_NAMED = pa.struct([("id", pa.int64()), ("text", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

# What signals are computed of; ``entropy`` and ``self_certainty`` are null where no token has one.
STEP_COLUMNS = (
    "vocab_size", "token_ids", "logprob", "top_k", "top_ids", "top_logprobs", "entropy", "self_certainty",
)  # fmt: skip

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("messages", pa.list_(_MESSAGE)),
        _required("text", pa.string()),
        _required("finish_reason", pa.string()),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("model", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("backend", pa.string()),
        pa.field("vocab_size", pa.int64()),
        pa.field("context_window", pa.int64()),
        pa.field("device", pa.string()),
        pa.field("dtype", pa.string()),
        pa.field("logprobs_mode", pa.string()),
        pa.field("token_ids_known", pa.bool_()),
        pa.field("temperature", pa.float64()),
        pa.field("top_p", pa.float64()),
        pa.field("sampling_top_k", pa.int64()),
        pa.field("seed", pa.int64()),
        _required("token_ids", _list(pa.int32())),
        _required("logprob", _list(pa.float64())),
        _required("top_k", pa.int32()),
        _required("top_ids", _list(pa.int32())),
        _required("top_logprobs", _list(pa.float64())),
        pa.field("entropy", _list(pa.float64())),
        pa.field("self_certainty", _list(pa.float64())),
        pa.field("start", _list(pa.int32())),
        pa.field("end", _list(pa.int32())),
        pa.field("vocabulary", pa.list_(_NAMED)),
        pa.field("stop_id", pa.int32()),
        pa.field("stop_logprob", pa.float64()),
        pa.field("stop_entropy", pa.float64()),
        pa.field("stop_self_certainty", pa.float64()),
        pa.field("stop_top_ids", _list(pa.int32())),
        pa.field("stop_top_logprobs", _list(pa.float64())),
    ],
    metadata={VERSION_KEY: VERSION},
)
REQUIRED = ("token_ids", "logprob", "top_k", "top_ids", "top_logprobs")


def check_schema(found: Any) -> None:
    """Refuse a file of another version or form; columns that it has beside ours are left alone.

    Raises:
        InputError: with the column and the type that it should have.
    """
    version = (found.metadata or {}).get(VERSION_KEY, VERSION)
    if version != VERSION:
        raise InputError(
            f"the file has version {version.decode(errors='replace')[:16]} of the form, this reads version 1"
        )
    for name in REQUIRED:
        if name not in found.names:
            raise InputError(f"the file has no column '{name}'", hint="docs/reference/stored-records.md")
    for field in SCHEMA:
        places = found.get_all_field_indices(field.name)
        if len(places) > 1:
            raise InputError(f"the file has two columns '{field.name}'")
        if places and not _fits(found.field(places[0]).type, field.type):
            raise InputError(
                f"column '{field.name}' is {str(found.field(places[0]).type)[:64]}, not {field.type}"
            )


def _fits(found: Any, wanted: Any) -> bool:
    """Say whether a type can be read as the one wanted without any loss."""
    if pa.types.is_list(wanted):
        lists = pa.types.is_list(found) or pa.types.is_large_list(found)
        return lists and _fits(found.value_type, wanted.value_type)
    if pa.types.is_struct(wanted):
        names = {field.name: field.type for field in found} if pa.types.is_struct(found) else {}
        return all(f.name in names and _fits(names[f.name], f.type) for f in wanted)
    if pa.types.is_floating(wanted):
        return bool(pa.types.is_float32(found) or pa.types.is_float64(found))
    if pa.types.is_integer(wanted):
        return bool(pa.types.is_signed_integer(found))
    if pa.types.is_string(wanted):
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    return bool(found == wanted)
