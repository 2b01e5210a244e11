"""Log-probabilities taken out of answers again, as far as their caller did not ask for them.

Everything else of an answer stays the very bytes that the engine sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cert.core.errors import UpstreamProtocolError
from cert.services.hamiltonian.passthrough.asking import Asked

__all__ = ["Answer", "read_answer"]

_NULL = msgspec.Raw(b"null")
Fields = dict[str, msgspec.Raw]


class Answer:
    """A whole answer, or one chunk of a stream, of which parts can be replaced.

    Attributes:
        data: as the engine sent it.
        fields: its members.
        choices: the members of each choice.
        changed: it is written anew.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fields: Fields = msgspec.json.decode(data, type=Fields)
        raw = self.fields.get("choices")
        self.choices: list[Fields] = [] if raw is None else msgspec.json.decode(raw, type=list[Fields])
        self.changed = False

    @property
    def ends(self) -> bool:
        """Whether it may be the last chunk: a choice finishes in it, or it has none."""
        return not self.choices or any(_is_set(choice.get("finish_reason")) for choice in self.choices)

    def index_of(self, place: int) -> int:
        """Return the index of the choice at a place."""
        raw = self.choices[place].get("index")
        index = place if raw is None else msgspec.json.decode(raw)
        return index if type(index) is int else place

    def strip(self, asked: Asked) -> None:
        """Leave the log-probabilities that the caller asked for, and no others."""
        for choice in self.choices:
            listed = choice.get("logprobs")
            if not _is_set(listed):
                continue
            kept = _NULL if not asked.logprobs else _cut(listed, asked.top_logprobs)
            if kept is not listed:
                choice["logprobs"] = kept
                self.changed = True

    def put(self, name: str, value: Any) -> None:
        """Add or replace a member."""
        self.fields[name] = msgspec.Raw(msgspec.json.encode(value))
        self.changed = True

    def replace_choice(self, place: int, changes: dict[str, Any]) -> None:
        """Replace members of a choice."""
        written = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in changes.items()}
        self.choices[place] = {**self.choices[place], **written}
        self.changed = True

    def encode(self) -> bytes:
        """Return it as it goes to the caller: the engine's bytes where nothing was changed."""
        if not self.changed:
            return self.data
        if "choices" in self.fields:
            self.fields["choices"] = msgspec.Raw(msgspec.json.encode(self.choices))
        return msgspec.json.encode(self.fields)


def read_answer(data: bytes) -> Answer:
    """Read an answer or a chunk.

    Raises:
        UpstreamProtocolError: it is no JSON object with a list of choices, or without one.
    """
    try:
        return Answer(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the engine's answer is no chat completion") from error


def _is_set(raw: msgspec.Raw | None) -> bool:
    return raw is not None and bytes(raw).strip() != b"null"


def _cut(listed: Any, count: int) -> msgspec.Raw:
    """Return log-probabilities with at most so many candidates each."""
    try:
        parts = msgspec.json.decode(listed, type=Fields)
        for name in ("content", "refusal"):
            if _is_set(parts.get(name)):
                entries = msgspec.json.decode(parts[name], type=list[Fields])
                parts[name] = msgspec.Raw(msgspec.json.encode([_fewer(entry, count) for entry in entries]))
        return msgspec.Raw(msgspec.json.encode(parts))
    except msgspec.DecodeError:  # of another form than OpenAI's: the caller asked, and gets it as it is
        return msgspec.Raw(bytes(listed))


def _fewer(entry: Fields, count: int) -> Fields:
    raw = entry.get("top_logprobs")
    if not _is_set(raw):
        return entry
    candidates = msgspec.json.decode(raw, type=list[msgspec.Raw])  # type: ignore[arg-type]  # it is set
    return {**entry, "top_logprobs": msgspec.Raw(msgspec.json.encode(candidates[:count]))}
