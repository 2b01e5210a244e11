"""Calls as values: what is sent and how the answer is read; the clients only carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar

import msgspec

from cert.client.errors import ProblemError, ProtocolError, UnauthorizedError

__all__ = ["Call", "Message", "Prompt", "prompted", "read_answer", "read_problem"]

T = TypeVar("T")


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


Prompt: TypeAlias = str | Sequence[Message]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        type: of the answer.
        repeatable: whether sending it twice does no harm beyond its cost.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    type: type[T]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True


def prompted(prompt: Prompt, **options: Any) -> dict[str, Any]:
    """Return the body of a request that generates: text is a prompt, a list the messages of a chat."""
    asked: dict[str, Any] = {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
    return asked | {name: value for name, value in options.items() if value is not None}


def read_answer(content: bytes, type_: type[T]) -> T:
    """Read an answer.

    Raises:
        ProtocolError: it is not of this type.
    """
    if type_ is bytes:
        return content  # type: ignore[return-value]  # T is bytes
    try:
        return msgspec.json.decode(content, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the answer is no {getattr(type_, '__name__', type_)}: {_kind(error)}") from None


def read_problem(status: int, content: bytes) -> ProblemError:
    """Return the error of an answer that is none; what is no problem is told by its status alone."""
    try:
        members = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        members = {}
    kind = UnauthorizedError if status in (401, 403) else ProblemError
    return kind(status, members if isinstance(members, dict) else {})


def _kind(error: Exception) -> str:
    # msgspec names the place and the types, never the value.
    return str(error) if isinstance(error, msgspec.ValidationError) else "no JSON"
