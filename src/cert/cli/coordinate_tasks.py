"""The tasks of a suite, read from a file; whatever is wrong with any of them is told at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cert.cli.given_text import read_text
from cert.core.errors import InputError

if TYPE_CHECKING:
    from cert.coordination.types import Task

__all__ = ["read_tasks"]

_FORMATS: Final = (".jsonl", ".txt")
_TEXTS: Final = ("task", "text", "question", "prompt")
_REFERENCES: Final = ("references", "reference", "answer")
_SHOWN: Final = 10


def read_tasks(path: Path) -> list[Task]:
    """Return the tasks of a file.

    A line of .jsonl is an object with the task (``task``, ``text``, ``question`` or ``prompt``) and, as
    wanted, ``id``, right answers (``references``, ``reference`` or ``answer``), ``family``, ``source`` and
    ``metadata``; whatever else it has goes into the metadata. A line of .txt is a task. Empty lines do not
    count.

    Raises:
        InputError: no such format, no task, or lines that cannot be used, with their numbers.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"'{path}' is no file of tasks: its name must end in {' or '.join(_FORMATS)}")
    lines = [
        (number, line)
        for number, line in enumerate(read_text(path, "file of tasks").splitlines(), 1)
        if line.strip()
    ]
    read = _of_text if path.suffix.lower() == ".txt" else _of_json
    tasks: list[Task] = []
    wrong: list[str] = []
    seen: dict[str, int] = {}
    for number, line in lines:
        try:
            task = read(line)
        except InputError as error:
            wrong.append(f"line {number}: {error.message}")
            continue
        if task.id in seen:
            wrong.append(
                f"line {number}: the same {'id' if task.id in line else 'task'} as line {seen[task.id]}"
            )
        seen.setdefault(task.id, number)
        tasks.append(task)
    if wrong:
        raise InputError(f"'{path}' cannot be used: " + "; ".join(_told(wrong)))
    if not tasks:
        raise InputError(f"'{path}' has no task")
    return tasks


def _of_text(line: str) -> Task:
    from cert.coordination.types import Task

    return Task(line.strip())


def _of_json(line: str) -> Task:
    from cert.coordination.types import Task

    try:
        data = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"it is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError("it is no JSON object")
    metadata = data.pop("metadata", None) or {}
    if not isinstance(metadata, Mapping):
        raise InputError("'metadata' is no object")
    text = _one_of(data, _TEXTS)
    if text is None:
        raise InputError(f"it has no task: {', '.join(map(repr, _TEXTS))} is needed")
    name = data.pop("id", None)
    if not isinstance(name, str | int | None) or isinstance(name, bool):
        raise InputError("'id' is no text or whole number")
    return Task(
        _text(text, "the task"),
        id="" if name is None else str(name),
        references=_references(_one_of(data, _REFERENCES)),
        family=_optional(data, "family"),
        source=_optional(data, "source"),
        metadata={**data, **metadata},
    )


def _one_of(data: dict[str, Any], names: tuple[str, ...]) -> Any:
    given = [name for name in names if data.get(name) is not None]
    if len(given) > 1:
        raise InputError(f"it has both {given[0]!r} and {given[1]!r}")
    for name in names:
        value = data.pop(name, None)
        if value is not None:
            return value
    return None


def _references(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(_reference(one) for one in (value if isinstance(value, list) else [value]))


def _reference(value: Any) -> str:
    # Numbers are what many files have as answers; as JSON writes them is as people would.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    return _text(value, "a reference")


def _optional(data: dict[str, Any], name: str) -> str | None:
    value = data.pop(name, None)
    return None if value is None else _text(value, repr(name))


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} is no text")
    if not value.strip():
        raise InputError(f"{what} is empty")
    return value


def _told(wrong: list[str]) -> Iterator[str]:
    yield from wrong[:_SHOWN]
    if len(wrong) > _SHOWN:
        yield f"and {len(wrong) - _SHOWN} more lines"
