"""The parts of Inspect's JSON that a comparison reads; all others are passed over, however large.

What may have any form stays raw, so that no text can make many more bytes of memory than it has itself.

Inspect writes NaN and Infinity, which are no JSON: NaN is read as null and Infinity as a text, and neither is
a number.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from cert.core.errors import InputError

__all__ = ["NULL", "WireHeader", "WireLog", "WireSample", "WireScore", "WireUsage", "decode"]

T = TypeVar("T")

NULL: Final = msgspec.Raw(b"null")

# A string is passed over whole, also one that does not end, so that the time stays linear in the length.
_NO_JSON: Final = re.compile(rb'"(?:[^"\\]++|\\.?+)*+(?:"|\Z)|-?Infinity|NaN', re.DOTALL)
_IN_ITS_PLACE: Final = {b"NaN": b"null", b"Infinity": b'"Infinity"', b"-Infinity": b'"-Infinity"'}


class WireScore(msgspec.Struct):
    """One scorer's score of a sample; its value may be anything."""

    value: msgspec.Raw


class WireUsage(msgspec.Struct):
    """Tokens of one model; those from and into a cache are not among the others."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_cache_write: int | None = None
    input_tokens_cache_read: int | None = None


class WireSample(msgspec.Struct):
    """A sample of one epoch, or its summary: they agree in these names, but for the form of an error."""

    id: int | str
    epoch: int
    input: msgspec.Raw = NULL
    target: msgspec.Raw = NULL
    choices: list[str] | None = None
    scores: dict[str, WireScore] | None = None
    model_usage: dict[str, WireUsage] | None = None
    error: msgspec.Raw = NULL
    invalidation: msgspec.Raw = NULL


class WireDataset(msgspec.Struct):
    """What samples were taken from, and which."""

    name: str | None = None
    location: str | None = None
    sample_ids: list[int | str] | None = None


class WireScorer(msgspec.Struct):
    """A scorer as it was set."""

    name: str
    options: msgspec.Raw = NULL


class WireConfig(msgspec.Struct):
    """How samples were run."""

    epochs: int | None = None
    epochs_reducer: list[str] | None = None
    score_on_error: bool | None = None


class WireRevision(msgspec.Struct):
    """The program's state of version control."""

    commit: str
    origin: str | None = None
    dirty: bool | None = None


class WireSpec(msgspec.Struct):
    """What was evaluated."""

    task: str
    model: str
    created: str
    dataset: WireDataset
    task_version: int | str = 0
    task_args: msgspec.Raw = NULL
    solver: str | None = None
    model_roles: msgspec.Raw = NULL
    config: WireConfig = msgspec.field(default_factory=WireConfig)
    revision: WireRevision | None = None
    packages: dict[str, str] | None = None
    scorers: list[WireScorer] | None = None


class WireHeader(msgspec.Struct):
    """A log without its samples."""

    version: int
    status: str
    eval: WireSpec
    invalidated: bool = False


class WireLog(WireHeader):
    """A log in one piece."""

    samples: list[WireSample] | None = None


def decode(data: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    """Return JSON of untrusted origin as a type.

    Args:
        data: the JSON.
        kind: what it has to be.
        what: names it in errors.

    Raises:
        InputError: it is no JSON, too deep, or of another form.
    """
    try:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            raw = bytes(data)
            if b"NaN" not in raw and b"Infinity" not in raw:
                raise
            return msgspec.json.decode(_NO_JSON.sub(_replaced, raw), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{what} cannot be read: {error}") from error


def _replaced(found: re.Match[bytes]) -> bytes:
    text = found[0]
    return _IN_ITS_PLACE.get(text, text)
