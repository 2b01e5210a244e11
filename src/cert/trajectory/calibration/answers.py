"""An answer of a stored file, what it is called, and the members of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from cert.backends.base import Prompt
from cert.backends.stored import StoredItem
from cert.core.errors import CertError, InputError
from cert.trajectory.calibration.labelled import Conditions

__all__ = [
    "LONGEST_NAME", "MEMBERS", "UNREADABLE", "Answer", "Broken", "Fields", "Found", "JsonFields",
    "name_of", "numbered", "reason_of", "text_of", "whole_or_reason",
]  # fmt: skip

# Of an answer that did not come to its own end, the signals are those of a part, and a label is of nothing.
_NOT_WHOLE: Final = frozenset({"timeout", "cancelled", "early_stop"})
# Names are shown, compared and kept for every answer.
LONGEST_NAME: Final = 200


MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Fields(Protocol):
    """The members of a record by name, the user's own among them."""

    def get(self, name: str) -> Any:
        """Return a member; ``None`` where there is none.

        Raises:
            InputError: it cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """One answer of a file.

    Attributes:
        number: line or row, counted from 1.
        where: the same for people.
        record: the name of its record, in which it may be one of several answers.
        id: its own name: the record's for the first answer, with ``#1`` behind it for the second one, …
        fields: the members of the record.
        prompt, text: what was asked and answered; ``None`` where the record does not hold it.
        conditions: how it was made.
        tokens: of an answer that ended at a limit, how long it is, else ``None``.
        signals: in the order of `SIGNALS` (None is not measured), or the steps that they are to be computed
            of.
    """

    number: int
    where: str
    record: str
    id: str
    fields: Fields
    prompt: Prompt | None
    text: str | None
    conditions: Conditions
    tokens: int | None
    signals: Sequence[Any] | StoredItem


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that holds no answer that could be used.

    Attributes:
        number, where: as in `Answer`.
        id: the name that the answer would have; ``None`` where it cannot be read.
        reason: why, in a few words that are the same for all records with the same trouble.
    """

    number: int
    where: str
    id: str | None
    reason: str


Found: TypeAlias = Answer | Broken


def name_of(fields: Fields, key: str | None, own: str | None, where: str) -> str:
    """Return the name of a record: the field that was asked for, its own, or its place.

    Raises:
        InputError: the field is missing, no name or too long.
    """
    given = None if key is None else text_of(fields.get(key), key, where)
    name = given or own or where
    if len(name) > LONGEST_NAME:
        raise InputError(f"{where}: the name of the record is longer than {LONGEST_NAME} characters")
    return name


def text_of(value: Any, name: str, where: str) -> str:
    """Return a name, unit or group as text.

    Raises:
        InputError: it is missing, neither text nor a whole number, or too long.
    """
    if value is None:
        raise InputError(f"{where} has no '{name}'")
    if not isinstance(value, str | int):
        raise InputError(f"{where}: '{name}' is neither text nor a whole number")
    text = value if isinstance(value, str) else str(value) if abs(value) < 10**40 else "9" * 999
    if not 0 < len(text) <= LONGEST_NAME:
        raise InputError(f"{where}: '{name}' is empty or longer than {LONGEST_NAME} characters")
    return text


def numbered(record: str, choice: int) -> str:
    """Return the name of one of the answers of a record."""
    return f"{record}#{choice}" if choice else record


def reason_of(error: Exception) -> str:
    """Return what is wrong in words that do not differ from line to line."""
    if isinstance(error, CertError):
        return error.message.partition(":")[0]
    return "the line cannot be read"


def whole_or_reason(finish_reason: str) -> str | None:
    """Return why an answer does not count, ``None`` where it came to its own end."""
    if finish_reason in _NOT_WHOLE:
        return f"the answer was stopped before its end ({finish_reason})"
    return None


class JsonFields:
    """The members of a JSON object; ``a.b`` is the member ``b`` of ``a``.

    Args:
        members: not decoded yet.
        where: the place of the record, for messages.
        beside: what else belongs to the record, and goes first.
    """

    def __init__(
        self, members: Mapping[str, msgspec.Raw], where: str, beside: Mapping[str, Any] | None = None
    ) -> None:
        self.members, self._where, self._beside = members, where, beside or {}

    def get(self, name: str) -> Any:
        """Return a member; ``None`` where there is none."""
        if self._beside.get(name) is not None:
            return self._beside[name]
        raw: msgspec.Raw | None = self.members.get(name)
        if raw is None and "." in name:
            raw = self._inner(name)
        try:
            return None if raw is None else msgspec.json.decode(raw)
        except UNREADABLE as error:
            raise InputError(f"{self._where}: the field '{name}' cannot be read") from error

    def _inner(self, name: str) -> msgspec.Raw | None:
        first, *rest = name.split(".")
        raw = self.members.get(first)
        for part in rest:
            if raw is None or not bytes(raw).lstrip().startswith(b"{"):
                return None
            raw = MEMBERS.decode(raw).get(part)
        return raw
