"""Answers compared with the references of their task by a rule: no model, no chance, no cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

from cert.answers import (
    ChoiceMatcher,
    ExactMatcher,
    Extractor,
    Matcher,
    MatcherEquivalence,
    NormalizedMatcher,
    NumericMatcher,
    RegexMatcher,
    extract,
    matches_any,
)
from cert.coordination.types import Evaluation, Task
from cert.core.errors import ConfigurationError, InputError

__all__ = [
    "MatchEvaluator",
    "choice",
    "exact",
    "named",
    "normalized",
    "numeric",
    "regex",
]


class MatchEvaluator:
    """1 where a rule says that an answer matches one of the task's references, 0 where it matches none.

    Missing where the rule cannot decide, where the task has no reference (``no_reference``) and where the
    extractors find no answer (``no_answer_found``).

    Args:
        matcher: the rule, called with the answer and a reference.
        extractors: of the final answer within the text, by name or of the user, in order; none takes the
            whole text. References are taken as they are.
        references: in place of those of each task.

    Raises:
        ConfigurationError: there is no such extractor, or the matcher is a function without a name.

    Attributes:
        free: an evaluation asks no model.
    """

    free: ClassVar[bool] = True

    def __init__(
        self, matcher: Matcher, *extractors: str | Extractor, references: Sequence[str] = ()
    ) -> None:
        if extractors:
            extract("", *extractors)
        if isinstance(references, str):
            raise ConfigurationError("references are a list of strings, not one string")
        self._matcher = matcher
        self._extractors = extractors
        self._references = tuple(references)
        of = f" of {', '.join(named(extractor) for extractor in extractors)}" if extractors else ""
        against = f" against {self._references!r}" if references else ""
        self._identity = f"match({named(matcher)}{of}{against})"

    @property
    def identity(self) -> str:
        """The rule and the extractors with all their settings."""
        return self._identity

    @property
    def equivalence(self) -> MatcherEquivalence | None:
        """The same rule between two answers, for votes and consensus; of patterns there is none."""
        if isinstance(self._matcher, RegexMatcher):
            return None
        return MatcherEquivalence(self._matcher, self._extractors)

    async def evaluate(self, task: Task, answer: str, *, draw: str = "") -> Evaluation:  # noqa: ARG002
        """Compare an answer with the references.

        Raises:
            ConfigurationError: a reference is no pattern that the rule can read.
        """
        try:
            matched = self._match(self._references or task.references, answer)
        except InputError as error:  # an answer over the limit of length
            matched = error.code
        missing = matched if isinstance(matched, str) else None
        return Evaluation(
            score=None if missing else float(bool(matched)), missing=missing, evaluator=self._identity
        )

    def _match(self, references: Sequence[str], answer: str) -> bool | str:
        if not references:
            return "no_reference"
        if self._extractors:
            found = extract(answer, *self._extractors)
            if found is None:
                return "no_answer_found"
            answer = found.answer
        decision = matches_any(self._matcher, answer, references)
        return "undecided" if decision is None else decision


def exact(*extractors: str | Extractor) -> MatchEvaluator:
    """Return an evaluator for the same text, but for Unicode form and white space; it always decides."""
    return MatchEvaluator(ExactMatcher(), *extractors)


def normalized(*extractors: str | Extractor) -> MatchEvaluator:
    """Return an evaluator for the same text after normalisation; it always decides."""
    return MatchEvaluator(NormalizedMatcher(), *extractors)


def numeric(*extractors: str | Extractor, relative: float = 0.0, absolute: float = 0.0) -> MatchEvaluator:
    """Return an evaluator for the same number; by default of the boxed, stated or last number of the answer.

    Args:
        extractors: of the number.
        relative: tolerance, as `cert.answers.same_number` has it.
        absolute: the same.
    """
    matcher = NumericMatcher(relative=relative, absolute=absolute)
    return MatchEvaluator(matcher, *(extractors or ("boxed", "hash_marks", "stated", "last_number")))


def choice(letters: str = "ABCDE") -> MatchEvaluator:
    """Return an evaluator for the same letter of a multiple choice question."""
    return MatchEvaluator(ChoiceMatcher(letters))


def regex(*patterns: str, ignore_case: bool = False, search: bool = True) -> MatchEvaluator:
    """Return an evaluator for answers that match a pattern, in time linear in the answer.

    Args:
        patterns: of which one has to match; without any, the references of each task are the patterns.
        ignore_case: letters match in both cases.
        search: the pattern may match anywhere in the answer; else it has to match all of it.

    Raises:
        ConfigurationError: a pattern is not valid or not supported.
    """
    matcher = RegexMatcher(ignore_case=ignore_case, search=search)
    for pattern in patterns:
        matcher("", pattern)
    return MatchEvaluator(matcher, references=patterns)


def named(rule: Any) -> str:
    """Return a name of a rule that is the same in every process, with all its settings.

    Raises:
        ConfigurationError: a function without a name of its own, which could be told from no other.
    """
    if isinstance(rule, str | int | float | bool) or rule is None:
        return repr(rule)
    if is_dataclass(rule) and not isinstance(rule, type):
        settings = (f"{field.name}={named(getattr(rule, field.name))}" for field in fields(rule))
        return f"{type(rule).__name__}({', '.join(settings)})"
    name = getattr(rule, "__qualname__", None) or getattr(rule, "name", None)
    if not isinstance(name, str) or "<lambda>" in name:
        raise ConfigurationError(
            f"a rule of the type {type(rule).__name__} has no name to be recorded with",
            hint="write it as a function with a name, or as a dataclass",
        )
    module = getattr(rule, "__module__", None)
    return f"{module}.{name}" if module else name
