"""Labels beside the data, by the names of the answers: read, and written one by one."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from cert.backends.stored.lines import Line, open_binary, read_lines
from cert.core.errors import CertError, InputError
from cert.core.visible import label
from cert.trajectory.calibration.answers import LONGEST_NAME, MEMBERS, UNREADABLE, JsonFields, text_of
from cert.trajectory.growing import GrowingFile

__all__ = ["KIND", "Label", "LabelWriter", "Labels", "label_of", "read_labels"]

KIND: Final = "answer_label"
"""What lines of `LabelWriter` call themselves."""

_LONGEST_LINE: Final = 2**20
_CSV: Final[Mapping[str, bool | None]] = {"true": True, "1": True, "false": False, "0": False, "": None}
_KEYS: Final = ("key", "id")
_LABELS: Final = ("label", "correct")


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one answer.

    Attributes:
        correct: whether it is right; ``None`` where there is no label.
        unit, group: whom or what it is about, and its group, where the labels say so.
        reason: why there is no label.
        by: who or what gave it, where the file says so.
    """

    correct: bool | None
    unit: str | None = None
    group: str | None = None
    reason: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels by the names of the answers.

    Attributes:
        by_key: the labels.
        source: whose labels these are, for messages.
    """

    by_key: Mapping[str, Label] = field(default_factory=dict)
    source: str = "labels"


def label_of(value: Any, where: str) -> bool | None:
    """Return a label: true, false, 1 or 0; ``None`` where there is none.

    Raises:
        InputError: it is anything else.
    """
    if value is None or value is True or value is False:
        return value
    if type(value) is int and value in (0, 1):
        return value == 1
    raise InputError(
        f"{where}: the label is {_described(value)}; it must be true, false, 1 or 0",
        hint="a score is no label: say from where on an answer is right",
    )


def read_labels(path: str | Path) -> Labels:
    """Read a file of labels.

    CSV (a name ending in ``.csv``) has a head with ``key`` and ``label`` and may have ``unit`` and ``group``;
    a line of JSONL is an object with the same members. A key has one label; of the lines of `LabelWriter`,
    where a person may change their mind, the last one counts.

    Raises:
        InputError: the file cannot be read, a line is not of this form, or a key occurs twice.
    """
    path = Path(path)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    found: dict[str, Label] = {}
    first: dict[str, str] = {}
    for where, key, one, last_counts in rows:
        if key in found and not last_counts:
            raise InputError(
                f"'{path}' has two labels of '{label(key, 80)}': {first[key]} and {where}",
                hint="each answer has one label",
            )
        found[key] = one
        first.setdefault(key, where)
    return Labels(found, f"'{path}'")


class LabelWriter:
    """Writes labels one by one, each durable before the next is asked for.

    Args:
        path: the file; what it holds is gone on with.
        by: who or what labels, for the record.

    Attributes:
        labels: those that the file has, by key.
        moved: bytes of a line that was cut off, which are now in a file with ``.cut`` at the end.

    Raises:
        InputError: the file holds something else than labels, or those of somebody else.
        OutputError: it cannot be written, or is being written by another process.
    """

    def __init__(self, path: str | Path, *, by: str) -> None:
        self.path, self._by = Path(path), _short(by)
        if self.path.suffix.lower() != ".jsonl":
            raise InputError(f"'{path}' cannot hold labels one by one: its name must end in .jsonl")
        self._file = GrowingFile(path, sync="each")
        try:
            self._refuse_another_form()
            self._file.move_cut_line()
            self.labels = {} if self._file.is_empty() else dict(read_labels(path).by_key)
            self._refuse_others()
        except BaseException:
            self._file.close(sync=False)
            raise
        self.moved = self._file.moved

    def write(self, key: str, correct: bool | None, *, reason: str | None = None) -> None:
        """Write a label, or in place of an earlier one that there is none.

        Raises:
            OutputError: it could not be written; the file is as before.
        """
        line = {
            "kind": KIND,
            "key": key,
            "label": correct,
            "reason": reason,
            "by": self._by,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        self._file.append(msgspec.json.encode(line))
        self.labels[key] = Label(correct, reason=reason, by=self._by)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> LabelWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_another_form(self) -> None:
        """Make sure that nobody's data are taken for labels and added to."""
        with open_binary(self.path) as stream:
            first = next(read_lines(stream, _LONGEST_LINE), None)
        if first is not None and first.whole and _kind(first) != KIND:
            raise InputError(f"'{self.path}' holds something else than labels", hint="name another file")

    def _refuse_others(self) -> None:
        for one in self.labels.values():
            if one.by != self._by:
                raise InputError(
                    f"'{self.path}' holds labels by '{label(one.by or 'nobody', 120)}', not by "
                    f"'{label(self._by, 120)}'",
                    hint="two who label are two instruments: name another file",
                )


Row = tuple[str, str, Label, bool]


def _json_rows(path: Path) -> Iterator[Row]:
    for line in read_lines(open_binary(path), _LONGEST_LINE):
        where = f"line {line.number} of '{path}'"
        try:
            if isinstance(line.data, CertError):
                raise InputError(f"{where}: {line.data.message}")
            members = JsonFields(MEMBERS.decode(line.data), where)
        except UNREADABLE as error:
            raise InputError(f"{where} is no JSON object: {error}") from error
        ours = members.get("kind") == KIND
        yield where, *_label(members, where, members.get(_only(members, _LABELS, where))), ours


def _csv_rows(path: Path) -> Iterator[Row]:
    with open_binary(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        try:
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            if len(set(names)) != len(names):
                raise InputError(f"'{path}' has two columns of one name")
            if not set(names) & set(_KEYS) or not set(names) & set(_LABELS):
                raise InputError(
                    f"'{path}' has no columns 'key' and 'label'", hint="its first line names them"
                )
            reader.fieldnames = names
            for row in reader:
                where = f"line {reader.line_num} of '{path}'"
                if None in row or None in row.values():
                    raise InputError(f"{where} has not as many columns as the head")
                fields = {name: value or None for name, value in row.items()}
                given = (fields.get(_only(fields, _LABELS, where)) or "").strip().lower()
                yield where, *_label(fields, where, _CSV.get(given, given)), False
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"'{path}' cannot be read as CSV after line {reader.line_num}: {error}"
            ) from error


def _label(fields: Any, where: str, value: Any) -> tuple[str, Label]:
    key = text_of(fields.get(_only(fields, _KEYS, where)), "key", where)
    more = {
        name: None if fields.get(name) is None else text_of(fields.get(name), name, where)
        for name in ("unit", "group", "reason", "by")
    }
    return key, Label(label_of(value, where), **more)


def _only(fields: Any, names: tuple[str, ...], where: str) -> str:
    """Return which of two names a line uses."""
    used = [name for name in names if fields.get(name) is not None]
    if len(used) > 1:
        raise InputError(f"{where} has both '{used[0]}' and '{used[1]}'")
    return used[0] if used else names[0]


def _short(name: str) -> str:
    """Return a name that is not too long, and still tells those apart that differ at their ends."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:150]}… sha256:{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:16]}"


def _kind(line: Line) -> Any:
    try:
        return JsonFields(MEMBERS.decode(line.data), "").get("kind") if isinstance(line.data, bytes) else None
    except (*UNREADABLE, InputError):
        return None


def _described(value: Any) -> str:
    if isinstance(value, str):
        return f"the text '{label(value)}'"
    return label(str(value)) if isinstance(value, int | float) else "neither"
