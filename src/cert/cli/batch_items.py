"""The items of a batch, read one at a time from text, JSON lines or Parquet: however large the file is."""

from __future__ import annotations

import difflib
import importlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from cert.core.errors import CertError, DependencyMissingError, InputError

if TYPE_CHECKING:
    from cert.trajectory.api import PromptLike

__all__ = [
    "FORMATS",
    "STORED_FORMATS",
    "Item",
    "check_input",
    "count_items",
    "digest",
    "prompts_of",
    "require_pyarrow",
]

FORMATS = (".txt", ".jsonl", ".parquet")
STORED_FORMATS = (".jsonl", ".parquet", ".gz", ".zst")
# A longer line is no prompt: it is told and passed over, not kept in memory.
_LONGEST_LINE = 16 * 1024 * 1024
_SAMPLE = 64 * 1024
_BOM = b"\xef\xbb\xbf"
_ROWS = 256

# Members of an API's request that would change the answer: left out in silence, the result is another one.
_NOT_HERE = {
    "top_k": "sampling_top_k",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    **dict.fromkeys(("stop", "n", "logit_bias", "frequency_penalty", "presence_penalty", "tools")),
}


class _Message(msgspec.Struct):
    role: str
    content: str


class _Entry(msgspec.Struct):
    """What a line may say; other members are the user's own and are passed over."""

    prompt: str | None = None
    messages: list[_Message] | None = None
    id: str | int | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    sampling_top_k: int | None = None
    seed: int | None = None


_OPTIONS = ("max_new_tokens", "temperature", "top_p", "sampling_top_k", "seed")


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the input.

    Attributes:
        line: its number, from 1; of a Parquet file the row's.
        content: a digest of what stands there.
        id: the user's name of it.
        prompt: what to ask; ``None`` where ``error`` says why not.
        options: of this item alone, as `HamiltonianMonitor.analyze` takes them.
    """

    line: int
    content: int
    id: str | int | None = None
    prompt: PromptLike | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    error: CertError | None = None


def check_input(path: Path, formats: tuple[str, ...] = FORMATS) -> None:
    """Make sure that a file is of a format that can be read.

    Raises:
        InputError: another ending, a folder, empty, not readable, not text, or without prompts.
        DependencyMissingError: it is Parquet and pyarrow is not installed.
    """
    if path.is_dir():
        raise InputError(f"'{path}' is a folder")
    if path.suffix.lower() not in formats:
        raise InputError(f"'{path}' is no batch: its name must end in {', '.join(formats)}")
    sample = _sample(path)
    if not sample.strip():
        raise InputError(f"'{path}' is empty")
    if formats is not FORMATS:
        return
    if path.suffix.lower() == ".parquet":
        _columns(path)
    elif b"\0" in sample:
        raise InputError(f"'{path}' is not a text file")


def count_items(path: Path) -> int | None:
    """Return how many items a checked file has, ``None`` where only reading it all would tell."""
    if path.suffix.lower() not in FORMATS:
        return None
    if path.suffix.lower() == ".parquet":
        return int(_parquet(path).metadata.num_rows)
    with path.open("rb") as stream:
        return sum(1 for line, _ in _bounded_lines(stream) if line.removeprefix(_BOM).strip())


def prompts_of(path: Path) -> Iterator[Item]:
    """Yield the items of a checked file, in its order, also those that cannot be worked on.

    Raises:
        InputError: the file cannot be read on.
    """
    if path.suffix.lower() == ".parquet":
        yield from _rows(path)
        return
    parse = _as_text if path.suffix.lower() == ".txt" else _as_json
    try:
        with path.open("rb") as stream:
            for number, (line, whole) in enumerate(_bounded_lines(stream), 1):
                content = line.removeprefix(_BOM) if number == 1 else line
                if not whole:
                    told = InputError(f"the line is longer than {_LONGEST_LINE:,} bytes")
                    yield Item(number, digest(line), error=told)
                elif content.strip():
                    yield _item(number, content.rstrip(b"\r\n"), parse)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def digest(content: bytes) -> int:
    """Return 64 bits that tell contents apart."""
    return int.from_bytes(blake2b(content, digest_size=8).digest())


def _item(number: int, line: bytes, parse: Any) -> Item:
    content = digest(line)
    found: dict[str, Any] = {}
    try:
        text = line.decode("utf-8")
        return Item(number, content, **parse(text, found))
    except UnicodeDecodeError as error:
        told = InputError(f"the line is not UTF-8 text: byte {error.start}")
    except msgspec.ValidationError as error:
        told = InputError(f"the line cannot be used: {error}")
    except (msgspec.DecodeError, RecursionError) as error:
        told = InputError(f"the line is not JSON: {error}")
    except InputError as error:
        told = error
    return Item(number, content, id=found.get("id"), error=told)


def _as_text(text: str, _: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": text}


def _as_json(text: str, found: dict[str, Any]) -> dict[str, Any]:
    data = msgspec.json.decode(text)
    if isinstance(data, str):
        return {"prompt": data}
    if not isinstance(data, dict):
        raise InputError("the line is neither a JSON object nor a JSON string")
    return _entry(data, found)


def _entry(data: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    if type(data.get("id")) in (str, int):
        found["id"] = data["id"]  # an item that is wrong elsewhere is still called by it
    for name in data:
        _refuse_lookalike(name)
    entry = msgspec.convert(data, _Entry)
    if (entry.prompt is None) == (entry.messages is None):
        raise InputError("give 'prompt' or 'messages', and just one of them")
    prompt: PromptLike
    if entry.messages is None:
        prompt = entry.prompt or ""
    else:
        prompt = [{"role": message.role, "content": message.content} for message in entry.messages]
    options = {name: value for name in _OPTIONS if (value := getattr(entry, name)) is not None}
    return {"prompt": prompt, "id": entry.id, "options": options}


def _refuse_lookalike(name: str) -> None:
    if name in _Entry.__struct_fields__:
        return
    near = _NOT_HERE.get(name) or next(iter(difflib.get_close_matches(name, _OPTIONS, 1, 0.8)), None)
    if near is not None or name in _NOT_HERE:
        raise InputError(
            f"'{name}' means nothing here, and would change the answer",
            hint=f"did you mean '{near}'?"
            if near
            else "leave it out, or name it otherwise if it is your own",
        )


# --- text ---


def _sample(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_SAMPLE)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def _bounded_lines(stream: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each line, and whether it is whole: of one that is too long the start alone."""
    while line := stream.readline(_LONGEST_LINE):
        whole = len(line) < _LONGEST_LINE or line.endswith(b"\n")
        rest = line
        while not whole and rest and not rest.endswith(b"\n"):
            rest = stream.readline(_LONGEST_LINE)
        yield line, whole


# --- Parquet ---


def _parquet(path: Path) -> Any:
    pyarrow = require_pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"'{path}' is not a Parquet file: {str(error).splitlines()[0]}") from error


def require_pyarrow() -> Any:
    """Return pyarrow.

    Raises:
        DependencyMissingError: it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise DependencyMissingError(
            f"Parquet files need the package '{error.name}'",
            hint="pip install 'cert-framework[parquet]'",
            context={"package": error.name},
        ) from error


def _columns(path: Path) -> list[str]:
    names = set(_parquet(path).schema_arrow.names)
    if names.isdisjoint(("prompt", "messages")):
        raise InputError(
            f"'{path}' has no column 'prompt' or 'messages'",
            hint=f"its columns: {', '.join(sorted(names)[:20])}",
        )
    for name in sorted(names):
        _refuse_lookalike(name)
    return sorted(names & set(_Entry.__struct_fields__))


def _rows(path: Path) -> Iterator[Item]:
    pyarrow = require_pyarrow()
    columns = _columns(path)
    number = 0
    try:
        for batch in _parquet(path).iter_batches(batch_size=_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield _row(number, row)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read after row {number}: {error}") from error


def _row(number: int, row: dict[str, Any]) -> Item:
    # As a line of JSON would say it: checked in the same way, with a digest of the same kind.
    said = {name: value for name, value in row.items() if not (value is None or _is_nan(value))}
    return _item(number, json.dumps(said, default=str, sort_keys=True).encode(), _as_json)


def _is_nan(value: Any) -> bool:
    # What tables have where a number is missing.
    return isinstance(value, float) and math.isnan(value)
