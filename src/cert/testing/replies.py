"""What a scripted server replies: an answer, an error, or something that goes wrong on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Fault", "Reply", "Token", "error", "ok", "split"]

# What goes wrong: nothing; the connection is reset before the first byte or in the middle of the body; the
# body ends early; the body is no JSON; an answer with status 200 holds an error; nothing ever comes; a stream
# ends in good order without the event that says so.
Fault: TypeAlias = Literal[
    "none", "reset", "reset_midway", "truncated", "malformed", "error_inside", "hang", "no_done"
]

_PIECES = re.compile(r"\s*\S+|\s+")
_SURE = 0.9  # probability of a token that is not scripted


@dataclass(frozen=True)
class Token:
    """One generated token with its natural log-probability and the other candidates.

    Attributes:
        text: as it reads by itself.
        logprob: before temperature and the like.
        alternatives: the other candidates, likeliest first.
        data: its bytes, where they are a part of a character; the text is then what shows of it.
        special: not part of the answer's text.
    """

    text: str
    logprob: float = math.log(_SURE)
    alternatives: tuple[tuple[str, float], ...] = tuple(
        (f"<other {rank}>", math.log((1 - _SURE) * 0.5**rank)) for rank in range(1, 21)
    )

    data: bytes | None = None
    special: bool = False

    @property
    def own_bytes(self) -> bytes:
        """What it adds to the text."""
        if self.special:
            return b""
        return self.text.encode("utf-8", "surrogatepass") if self.data is None else self.data

    def candidates(self, count: int) -> list[tuple[str, float]]:
        """Return the likeliest candidates, the chosen one among them where it belongs."""
        everyone = [(self.text, self.logprob), *self.alternatives]
        return sorted(everyone, key=lambda candidate: -candidate[1])[:count]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One reply of a script.

    Attributes:
        tokens: of the answer.
        status: HTTP status; from 400 on an error, and then there is no answer.
        message: of the error, and of an error inside.
        error_type: in the vendor's words; the usual one of the status if it is not given.
        fault: what goes wrong on the way.
        delay: seconds before the first byte.
        token_delay: seconds before each token of a stream.
        after_tokens: tokens of a stream that arrive before its fault.
        retry_after: a header in seconds, ``retry_after_ms`` in milliseconds, and ``retry_after_date`` as an
            HTTP date so many seconds from now.
        headers: further ones, or others in place of the usual.
        finish: the reason to finish, in place of the usual.
        stop: the token that ends the answer, which some servers list.
        thought: how many of the first tokens are reasoning that is shown apart.
        refused: the answer is a refusal.
        arguments: the answer calls the first tool of the request with these; of a whole answer alone, not of
            a stream.
        cache_read, cache_write: tokens of the prompt that come from, or go into, the vendor's cache, of at
            most its length together.
        rewrite: changes the body of the answer or error, or each event of a stream, before it is sent.
        raw: the body as it is sent, whatever was asked.
        billed: whether the vendor charges for it; by default if an answer was generated, also one that does
            not arrive.
    """

    tokens: tuple[Token, ...] = ()
    status: int = 200
    message: str = "scripted error"
    error_type: str | None = None
    fault: Fault = "none"
    delay: float = 0.0
    token_delay: float = 0.0
    after_tokens: int = 1
    retry_after: float | str | None = None
    retry_after_ms: float | None = None
    retry_after_date: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    billed: bool | None = None
    finish: str | None = None
    stop: Token | None = None
    thought: int = 0
    refused: bool = False
    arguments: Mapping[str, Any] | None = None
    cache_read: int = 0
    cache_write: int = 0
    rewrite: Callable[[Any], Any] | None = None
    raw: bytes | None = None

    @property
    def charged(self) -> bool:
        """Whether the vendor would charge for it."""
        if self.billed is not None:
            return self.billed
        return self.status < 400 and self.fault not in ("reset", "error_inside")


def split(text: str) -> tuple[str, ...]:
    """Split a text as the scripted server does: words with the blanks before them."""
    return tuple(_PIECES.findall(text))


def ok(
    text: str | tuple[Token, ...] = "Paris is the capital of France.",
    *,
    fault: Fault = "none",
    delay: float = 0.0,
    token_delay: float = 0.0,
    after_tokens: int = 1,
    billed: bool | None = None,
) -> Reply:
    """Return an answer, perhaps one that goes wrong on its way.

    Args:
        text: split at spaces into tokens of probability 0.9; or the tokens themselves.
        fault: see `Reply`, as for the others.
        delay: seconds before the first byte.
        token_delay: seconds before each token of a stream.
        after_tokens: tokens of a stream that arrive before its fault.
        billed: whether the vendor charges for it.
    """
    tokens = tuple(Token(piece) for piece in split(text)) if isinstance(text, str) else text
    return Reply(
        tokens=tokens,
        fault=fault,
        delay=delay,
        token_delay=token_delay,
        after_tokens=after_tokens,
        billed=billed,
    )


def error(
    status: int,
    message: str = "scripted error",
    *,
    error_type: str | None = None,
    delay: float = 0.0,
    retry_after: float | str | None = None,
    retry_after_ms: float | None = None,
    retry_after_date: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Return an error by its HTTP status, with what it says of when to come back (see `Reply`)."""
    return Reply(
        status=status,
        message=message,
        error_type=error_type,
        delay=delay,
        retry_after=retry_after,
        retry_after_ms=retry_after_ms,
        retry_after_date=retry_after_date,
        headers=headers or {},
    )
