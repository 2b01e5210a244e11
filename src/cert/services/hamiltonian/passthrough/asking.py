"""A chat request: what of it is looked at, and how it goes on to the engine.

What is not looked at stays the very bytes that the caller sent: tools, ``n``, fields of tomorrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cert.backends.base import Message, Sampling
from cert.core.errors import ConfigurationError, InputError

__all__ = ["Asked", "read_asked"]

Fields = dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a chat.

    Attributes:
        fields: the members of its JSON, each as it was written.
        body: the whole as it was written.
        model: that is asked.
        streams: the answer is to come as events.
        logprobs: the caller wants log-probabilities for himself.
        top_logprobs: and so many candidates.
        most_tokens: the limit on new tokens, where it says one.
    """

    fields: Mapping[str, msgspec.Raw]
    body: bytes
    model: str
    streams: bool
    logprobs: bool
    top_logprobs: int
    most_tokens: int | None

    def body_with(self, count: int) -> bytes:
        """Return the body that asks for log-probabilities and at least so many candidates.

        Args:
            count: 0 leaves the request as the caller wrote it.
        """
        if count == 0 or (self.logprobs and self.top_logprobs >= count):
            return self.body
        more = {"logprobs": msgspec.Raw(b"true"), "top_logprobs": msgspec.Raw(str(count).encode())}
        return msgspec.json.encode({**self.fields, **more})

    def value(self, name: str) -> Any:
        """Return a member as a value; ``None`` where it is not there."""
        raw = self.fields.get(name)
        return None if raw is None else msgspec.json.decode(raw)

    def prompt(self) -> tuple[Message, ...] | None:
        """Return its messages as far as they are text; other parts show as their type in brackets."""
        messages = self.value("messages")
        if not isinstance(messages, list):
            return None
        return tuple(_message(message) for message in messages if isinstance(message, dict))

    def sampling(self) -> Sampling | None:
        """Return how it asks to be sampled; ``None`` where it leaves the temperature to the engine."""
        temperature = self.value("temperature")
        if not _is_number(temperature):
            return None
        top_p, top_k, seed = self.value("top_p"), self.value("top_k"), self.value("seed")
        try:
            return Sampling(
                temperature=float(temperature),
                top_p=float(top_p) if _is_number(top_p) else None,
                top_k=top_k if type(top_k) is int else None,
                seed=seed if type(seed) is int else None,
            )
        except ConfigurationError:  # the engine's to judge
            return None


def read_asked(body: bytes) -> Asked:
    """Read a request.

    Raises:
        InputError: it is no JSON object, or what we look at is of a wrong kind.
    """
    try:
        fields = msgspec.json.decode(body, type=Fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("the body is no JSON object") from error
    asked = {name: _value(fields, name) for name in _LOOKED_AT}
    if not isinstance(asked["model"], str) or not asked["model"]:
        raise InputError("model: the name of a model is needed")
    if not isinstance(asked["messages"], list) or not asked["messages"]:
        raise InputError("messages: a list of messages is needed")
    for name in ("stream", "logprobs"):
        if asked[name] is not None and not isinstance(asked[name], bool):
            raise InputError(f"{name}: true or false")
    count = asked["top_logprobs"]
    if count is not None and (type(count) is not int or count < 0):
        raise InputError("top_logprobs: a whole number of 0 or more")
    limits = [asked[name] for name in ("max_completion_tokens", "max_tokens") if type(asked[name]) is int]
    return Asked(
        fields=fields,
        body=body,
        model=asked["model"],
        streams=bool(asked["stream"]),
        logprobs=bool(asked["logprobs"]),
        top_logprobs=count or 0,
        most_tokens=limits[0] if limits else None,
    )


_LOOKED_AT = (
    "model",
    "messages",
    "stream",
    "logprobs",
    "top_logprobs",
    "max_completion_tokens",
    "max_tokens",
)


def _value(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    return None if name not in fields else msgspec.json.decode(fields[name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _message(message: Mapping[str, Any]) -> Message:
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    return Message(str(message.get("role", "")), "".join(map(_text, parts)))


def _text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        text = part.get("text")
        return text if isinstance(text, str) else f"[{part.get('type', 'part')}]"
    return ""
