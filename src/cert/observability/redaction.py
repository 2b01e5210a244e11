r"""Makes values fit for a log: no prompt, no output, no key, and nothing that could pass for another line.

Three rules, in this order. A field whose *name* says that it holds content or a secret loses its value. A
string that holds something *shaped* like a key loses that part. Whatever is left of a string has its control
and formatting characters spelled out (``\n``, ``\x1b``, ``\u202e``). An object of an unknown class is
told by its class alone: its own text might hold anything.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import itertools
import math
import numbers
import re
import unicodedata
import uuid
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

__all__ = ["REDACTED", "Redaction", "one_line", "without_keys"]

REDACTED = "[redacted]"
_LONGEST = 8_192  # characters of one value
_WIDEST = 100  # items of one collection
_DEEPEST = 6
_LONGEST_NAME = 100  # characters of a name that is worth remembering

Kind: TypeAlias = Literal["plain", "content", "secret"]

# Words that make a field secret wherever they stand in its name, and those that do so only as its end
# (`access_token` is one, `token_count` is not).
_SECRET_WORDS = {
    "apikey",
    "auth",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "secrets",
}
_SECRET_ENDS = {"token", "bearer", "jwt", "pwd", "dsn"}
_KINDS_OF_KEY = {"access", "api", "encryption", "master", "private", "secret", "session", "signing", "ssh"}
_CONTENT_ENDS = {
    "answer",
    "answers",
    "body",
    "completion",
    "completions",
    "content",
    "contents",
    "document",
    "documents",
    "input",
    "inputs",
    "messages",
    "output",
    "outputs",
    "payload",
    "prompt",
    "prompts",
    "query",
    "question",
    "questions",
    "response",
    "responses",
    "task",
    "tasks",
    "text",
    "texts",
    "tokens",
    "transcript",
}
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

# Look-behinds and bounded runs keep each pattern linear in the length of what it searches.
_KEYS = re.compile(
    r"""
      (?<![A-Za-z0-9])(?:sk|pk|rk)-[\w-]{12,}                        # Anthropic, OpenAI and their like
    | (?<![A-Za-z0-9])(?:hf|gh[pousr]|github_pat|glpat|npm)[_-]\w{16,}
    | (?<![A-Za-z0-9])xox[a-z]-[\w-]{10,}
    | (?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}
    | (?<![A-Za-z0-9])AIza[\w-]{30,}
    | (?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?                 # JSON web tokens
    | -----BEGIN[ ][A-Z ]{0,40}PRIVATE[ ]KEY-----(?s:.*?)(?:-----END[^-]{0,60}-----|\Z)
    """,
    re.VERBOSE,
)
_SHORTEST_KEY = 15  # characters of what `_KEYS` finds at the least: "sk-" and twelve more
_SCHEMES = re.compile(r"\b(bearer|basic)(\s{1,8})[\w.~+/=:-]{8,}", re.IGNORECASE)
# After a colon anything up to the last @: passwords have slashes and further @ in them.
_IN_ADDRESS = re.compile(r"(?<=://)(?:[^\s/@:]{0,256}:[^\s'\"]{1,512}|[^\s/@]{1,512})@")
_NAMED = re.compile(
    r"(?<![A-Za-z])((?:x-)?api[_-]?key|authorization|passw(?:or)?d|passphrase|(?:client_|auth_)?secret|"
    r"(?:access|auth|refresh|id)[_-]?token)(['\"]?\s{0,8}[:=]\s{0,8})(?!bearer|basic)"
    r"(?:'[^']{1,512}'|\"[^\"]{1,512}\"|[^\s'\",;&\]})]{1,512})",
    re.IGNORECASE,
)
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class Redaction:
    """The rules, with a program's own field names added.

    Args:
        fields: further names of fields whose value is never logged, compared without case.
    """

    def __init__(self, fields: Collection[str] = ()) -> None:
        self._fields = frozenset(name.casefold() for name in fields)

    def __call__(self, fields: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the fields as JSON-ready data that may be written to a log."""
        return self._mapping(fields, 0)

    def _mapping(self, items: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        clean: dict[str, Any] = {}
        for position, (key, value) in enumerate(items.items()):
            if depth and position == _WIDEST:
                clean["…"] = f"{len(items) - position} more"
                break
            name = key if isinstance(key, str) else _as_name(key)
            shown, kind = _classified(name) if len(name) <= _LONGEST_NAME else _classify(name[:_LONGEST])
            clean[shown] = self._field(name, kind, value, depth)
        return clean

    def _field(self, name: str, kind: Kind, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if kind == "secret" or (self._fields and name.casefold() in self._fields):
            return REDACTED
        # Numbers under such a name count content (`prompt_tokens`, `output=3`) and do not hold it.
        if kind == "content" and not isinstance(value, numbers.Number):
            return _content(value)
        return self._value(value, depth)

    def _value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return _text(value)
        if kind is int or (kind is float and math.isfinite(value)):
            return value
        if isinstance(value, str):
            return _text(str(value.value) if isinstance(value, enum.Enum) else value)
        if value is None or isinstance(value, bool | numbers.Number):
            return _number(value)
        if isinstance(value, enum.Enum):
            return self._value(value.value, depth)
        if isinstance(value, BaseException):
            return _text(f"{type(value).__name__}: {_safely(value)}")
        if isinstance(value, PurePath | uuid.UUID | datetime.date | datetime.time | datetime.timedelta):
            return _text(str(value))
        if depth >= _DEEPEST:
            return f"<{type(value).__name__}>"
        if isinstance(value, Mapping):
            return self._mapping(value, depth + 1)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            shown = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
            return self._mapping(shown, depth + 1)
        if isinstance(value, list | tuple | set | frozenset):
            shown_items = [self._value(item, depth + 1) for item in list(value)[:_WIDEST]]
            more = len(value) - _WIDEST
            return [*shown_items, f"… {more} more"] if more > 0 else shown_items
        return f"<{type(value).__qualname__}>"


def without_keys(text: str) -> str:
    """Return text with everything that is shaped like a key, a token or a password taken out."""
    if len(text) >= _SHORTEST_KEY:
        text = _KEYS.sub(REDACTED, text)
    if "earer" in text or "asic" in text or "BEARER" in text or "BASIC" in text:
        text = _SCHEMES.sub(rf"\1\2{REDACTED}", text)
    if "://" in text:
        text = _IN_ADDRESS.sub(f"{REDACTED}@", text)
    if ":" in text or "=" in text:
        text = _NAMED.sub(rf"\1\2{REDACTED}", text)
    return text


def one_line(text: str) -> str:
    """Return text with control, formatting and line-separating characters spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _shows(char) else _spelled(char) for char in text)


def _shows(char: str) -> bool:
    return unicodedata.category(char) not in _HIDDEN


def _spelled(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _classify(name: str) -> tuple[str, Kind]:
    words = [word.casefold() for word in _WORDS.findall(name)]
    kind: Kind = "plain"
    if words and _is_secret(words):
        kind = "secret"
    elif words and words[-1] in _CONTENT_ENDS:
        kind = "content"
    return one_line(without_keys(name)), kind


# The names of a program's fields are few; the bound is for keys that come from outside.
_classified = functools.lru_cache(maxsize=1024)(_classify)


def _is_secret(words: list[str]) -> bool:
    if not _SECRET_WORDS.isdisjoint(words) or words[-1] in _SECRET_ENDS:
        return True
    return any(kind in _KINDS_OF_KEY and key in ("key", "keys") for kind, key in itertools.pairwise(words))


def _content(value: Any) -> str:
    size = f" {len(value)} characters" if isinstance(value, str) else ""
    return f"[redacted{size}]"


def _text(text: str) -> str:
    # Searched with a margin: a key that the cut would divide is whole when the patterns see it.
    clean = one_line(without_keys(text[: 2 * _LONGEST]))
    if len(text) <= _LONGEST and len(clean) <= 2 * _LONGEST:
        return clean
    return f"{clean[:_LONGEST]}… ({len(text)} characters)"


def _number(value: Any) -> Any:
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else str(number)  # JSON has no NaN and no infinity
    return str(value)


def _as_name(key: Any) -> str:
    return str(key) if isinstance(key, int | float | enum.Enum) else f"<{type(key).__qualname__}>"


def _safely(value: BaseException) -> str:
    try:
        return str(value)
    except Exception:
        return "<no text>"
