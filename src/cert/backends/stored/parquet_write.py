"""Generations to Parquet, a row each, and back without the loss of a bit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cert.backends.base import Generation
from cert.backends.stored.parquet_schema import SCHEMA
from cert.core.errors import InputError, OutputError
from cert.signals.steps import FloatArray, TokenSteps

__all__ = ["GenerationWriter"]

_LARGEST_ID = 2**31 - 1
_FLOATS = [f"{name}.list.element" for name in ("logprob", "top_logprobs", "entropy", "self_certainty")]
_PLAIN = [*_FLOATS, *(f"{name}.list.element" for name in ("token_ids", "top_ids", "start", "end"))]
_NAMED = [field.name for field in SCHEMA if not pa.types.is_list(field.type)]


class GenerationWriter:
    """Writes generations to a Parquet file; it is whole once the writer is closed.

    Args:
        path: the file, which is replaced.
        group_tokens: tokens in a row group, which readers take into memory one at a time.
        compression: of the pages.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str | Path, *, group_tokens: int = 65_536, compression: str = "lz4") -> None:
        self.path, self._group_tokens = Path(path), group_tokens
        self._rows: list[dict[str, Any]] = []
        self._tokens = 0
        # Numbers that hardly repeat: splitting their bytes makes them small, a dictionary would not.
        names = [path for path in _leaves() if path not in _PLAIN]
        try:
            self._writer = pq.ParquetWriter(
                str(path), SCHEMA, compression=compression, use_dictionary=names,
                use_byte_stream_split=_FLOATS, write_statistics=names,
            )  # fmt: skip
        except OSError as error:
            raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error

    def write(self, generation: Generation, *, key: str | None = None) -> None:
        """Take one generation.

        Raises:
            InputError: an id is beyond 31 bits.
            OutputError: the file cannot be written any further.
        """
        self._rows.append(_row(generation, key))
        self._tokens += len(generation.steps)
        if self._tokens >= self._group_tokens or len(self._rows) >= self._group_tokens:
            self._flush()

    def close(self) -> None:
        """Write what is left and the end of the file."""
        if self._rows:
            self._flush()
        self._writer.close()

    def __enter__(self) -> GenerationWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _flush(self) -> None:
        columns = [_array(field, [row[field.name] for row in self._rows]) for field in SCHEMA]
        self._rows, self._tokens = [], 0
        try:
            self._writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
        except OSError as error:
            raise OutputError(f"'{self.path}' cannot be written: {error.strerror or error}") from error


def _leaves() -> list[str]:
    leaves = []
    for field in SCHEMA:
        if not pa.types.is_list(field.type):
            leaves.append(field.name)
        elif pa.types.is_struct(field.type.value_type):
            leaves += [f"{field.name}.list.element.{part.name}" for part in field.type.value_type]
        else:
            leaves.append(f"{field.name}.list.element")
    return leaves


def _array(field: Any, values: list[Any]) -> Any:
    """Join arrays of rows into one list column without a Python object a number."""
    if not pa.types.is_list(field.type) or not isinstance(_first(values), np.ndarray):
        return pa.array(values, field.type)
    lengths = [0 if value is None else len(value) for value in values]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    flat = np.concatenate([value for value in values if value is not None])
    mask = pa.array([value is None for value in values]) if field.nullable else None
    items = pa.array(flat, field.type.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=field.type, mask=mask)


def _first(values: list[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _row(generation: Generation, key: str | None) -> dict[str, Any]:
    g, steps = generation, generation.steps
    sampling = {} if g.sampling is None else asdict(g.sampling)
    sampling["sampling_top_k"] = sampling.pop("top_k", None)
    model = asdict(g.model)
    row = dict.fromkeys(SCHEMA.names) | sampling | model
    return row | {
        "key": key,
        "model": model["name"],
        "prompt": g.prompt if isinstance(g.prompt, str) else None,
        "messages": [asdict(m) for m in g.prompt] if isinstance(g.prompt, tuple) else None,
        "text": g.text,
        "finish_reason": g.finish_reason,
        "prompt_tokens": g.prompt_tokens,
        "duration_s": g.duration_s,
        "logprobs_mode": g.logprobs_mode,
        "token_ids_known": g.token_ids_known,
        "token_ids": _ids(steps.token_ids),
        "logprob": steps.logprob,
        "top_k": steps.top_k,
        "top_ids": _ids(steps.top_ids).ravel(),
        "top_logprobs": steps.top_logprobs.ravel(),
        "entropy": _measured(steps.entropy),
        "self_certainty": _measured(steps.self_certainty),
        "start": g.offsets[:, 0],
        "end": g.offsets[:, 1],
        "vocabulary": _vocabulary(g),
        **({} if g.stop_step is None else _stop(g.stop_step)),
    }


def _stop(step: TokenSteps) -> dict[str, Any]:
    return {
        "stop_id": int(_ids(step.token_ids)[0]),
        "stop_logprob": float(step.logprob[0]),
        "stop_entropy": float(step.entropy[0]),
        "stop_self_certainty": float(step.self_certainty[0]),
        "stop_top_ids": _ids(step.top_ids).ravel(),
        "stop_top_logprobs": step.top_logprobs.ravel(),
    }


def _ids(ids: Any) -> Any:
    if ids.size and not -1 <= int(ids.min()) <= int(ids.max()) <= _LARGEST_ID:
        raise InputError("a token id is beyond 31 bits")
    return ids.astype(np.int32)


def _measured(values: FloatArray) -> FloatArray | None:
    return None if np.isnan(values).all() else values


def _vocabulary(g: Generation) -> list[dict[str, Any]]:
    parts = [g.steps.token_ids, g.steps.top_ids.ravel()]
    if g.stop_step is not None:
        parts += [g.stop_step.token_ids, g.stop_step.top_ids.ravel()]
    ids = np.unique(np.concatenate(parts)).tolist()
    return [{"id": number, "text": text} for number in ids if (text := g.vocabulary.text(number))]
