"""The arguments of a judgement out of a completion: by the tool, or as one JSON object and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from cert.coordination.chat import Completion
from cert.coordination.evaluators.forms import UnreadableError

__all__ = ["MOST_JSON_CHARS", "arguments_of", "json_object"]

MOST_JSON_CHARS: Final = 20_000
_UNFINISHED: Final[Mapping[str, str]] = {
    "length": "cut_off",
    "refusal": "refusal",
    "content_filter": "content_filter",
}
# Models without tools put their JSON in a block of code, which changes nothing about what it says.
_BLOCK = re.compile(r"```(?:json)?[ \t]*\n(?P<inside>.*)\n[ \t]*```", re.IGNORECASE | re.DOTALL)


def arguments_of(completion: Completion, *, typed: bool) -> Mapping[str, Any]:
    """Return the arguments of a judgement, not yet checked against its form.

    Args:
        completion: of the judge.
        typed: whether it was to call a tool. Text is then no judgement, however it looks: a model that
            repeats what it read is not one that judges.

    Raises:
        UnreadableError: it refused, was cut off, or said anything else.
    """
    if completion.finish in _UNFINISHED:
        raise UnreadableError(_UNFINISHED[completion.finish])
    if not typed:
        return json_object(completion.text)
    if isinstance(completion.structured, Mapping):
        return completion.structured
    raise UnreadableError("no_tool_call" if completion.text.strip() else "empty")


def json_object(text: str) -> Mapping[str, Any]:
    """Return the object that a text is, white space and one block of code around it aside.

    Raises:
        UnreadableError: there is anything besides, a key comes twice, a number is none (NaN), or the text is
            over 20,000 characters long.
    """
    text = text.strip()
    if not text:
        raise UnreadableError("empty")
    if len(text) > MOST_JSON_CHARS:
        raise UnreadableError("too_long")
    block = _BLOCK.fullmatch(text)
    try:
        data = json.loads(
            block["inside"] if block else text, object_pairs_hook=_unique, parse_constant=_no_number
        )
    except UnreadableError:
        raise
    except (ValueError, RecursionError):
        raise UnreadableError("not_json") from None
    if not isinstance(data, dict):
        raise UnreadableError("not_json")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UnreadableError("duplicate_keys")
    return found


def _no_number(_: str) -> NoReturn:
    raise UnreadableError("not_a_number")
