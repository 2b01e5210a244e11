"""The form that a judgement has to have, and reading it: what is not exactly of this form is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from cert.coordination.chat import Tool
from cert.coordination.evaluators.rubric import Rubric

__all__ = ["ChoiceForm", "Form", "PointsForm", "UnreadableError", "rationale_of"]

_LONGEST_RATIONALE = 2000
_RATIONALE = {"type": "string", "description": "why, in one to three sentences"}

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class UnreadableError(ValueError):
    """What a judge said is not a judgement.

    Attributes:
        reason: a short name of what is wrong, for counting.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Form(Protocol[T_co]):
    """A form of judgements."""

    @property
    def tool(self) -> Tool:
        """The form as the arguments of a tool."""
        ...

    def read(self, arguments: Mapping[str, Any], /) -> T_co:
        """Return the judgement.

        Raises:
            UnreadableError: it is not exactly of this form.
        """
        ...


@dataclass(frozen=True, slots=True)
class PointsForm:
    """Whole points for each criterion of a rubric, in its order."""

    rubric: Rubric

    @property
    def tool(self) -> Tool:
        """An object of points; a list of the allowed numbers, since not every vendor knows bounds."""
        points = {"type": "integer", "enum": list(range(self.rubric.most + 1))}
        scores = _object(dict.fromkeys(self.rubric.keys, points))
        schema = _object({"rationale": _RATIONALE, "scores": scores})
        return Tool("record_judgement", "Records the points that the answer gets.", schema)

    def read(self, arguments: Mapping[str, Any], /) -> tuple[int, ...]:
        """Return the points.

        Raises:
            UnreadableError: a key too few or too many, points that are no whole number (true, "7", 7.0), or
                off the scale.
        """
        _require_keys(arguments, {"rationale", "scores"})
        scores = arguments["scores"]
        if not isinstance(scores, Mapping):
            raise UnreadableError("wrong_keys")
        _require_keys(scores, set(self.rubric.keys))
        points = tuple(scores[key] for key in self.rubric.keys)
        if any(type(n) is not int for n in points):
            raise UnreadableError("not_an_integer")
        if any(not 0 <= n <= self.rubric.most for n in points):
            raise UnreadableError("out_of_range")
        return points


@dataclass(frozen=True, slots=True)
class ChoiceForm(Generic[T]):
    """One of several words, each of which means something.

    Attributes:
        meanings: of the words.
    """

    meanings: Mapping[str, T]

    @property
    def tool(self) -> Tool:
        """An object with the word."""
        verdict = {"type": "string", "enum": list(self.meanings)}
        schema = _object({"rationale": _RATIONALE, "verdict": verdict})
        return Tool("record_verdict", "Records the verdict.", schema)

    def read(self, arguments: Mapping[str, Any], /) -> T:
        """Return what the word means.

        Raises:
            UnreadableError: a key too few or too many, or another word.
        """
        _require_keys(arguments, {"rationale", "verdict"})
        verdict = arguments["verdict"]
        if not isinstance(verdict, str) or verdict not in self.meanings:
            raise UnreadableError("unknown_verdict")
        return self.meanings[verdict]


def rationale_of(arguments: Mapping[str, Any]) -> str:
    """Return why, untrusted and cut to 2,000 characters."""
    return str(arguments["rationale"])[:_LONGEST_RATIONALE]


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _require_keys(arguments: Mapping[str, Any], wanted: set[str]) -> None:
    if set(arguments) != wanted:
        raise UnreadableError("wrong_keys")
    if "rationale" in wanted and not isinstance(arguments["rationale"], str):
        raise UnreadableError("wrong_keys")
