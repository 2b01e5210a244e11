"""Whether two answers to a question say the same: the protocol, and rules that fulfil it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from cert.answers.extract import Extractor, extract
from cert.answers.match import Matcher
from cert.core.errors import ConfigurationError

__all__ = [
    "AsyncCascade",
    "AsyncEquivalence",
    "Cascade",
    "Equivalence",
    "MatcherEquivalence",
    "Pair",
    "checked",
]

Pair: TypeAlias = tuple[str, str]
_T = TypeVar("_T")


class Equivalence(Protocol):
    """A rule that tells whether two answers to one question say the same."""

    @property
    def name(self) -> str:
        """The rule, with all that changes its decisions, for records."""
        ...

    def same(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:
        """Return for each pair whether its answers are the same; ``None`` is undecided, not "different".

        Raises:
            CertError: the rule cannot be used at all (a server is away).
        """
        ...


class AsyncEquivalence(Protocol):
    """The same for rules that wait for a network."""

    @property
    def name(self) -> str:
        """The rule, with all that changes its decisions, for records."""
        ...

    async def same_async(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:
        """Return one decision a pair, as `Equivalence.same` does."""
        ...


@dataclass(frozen=True, slots=True)
class MatcherEquivalence:
    """Two answers are the same if a matcher says so.

    Attributes:
        matcher: exact, normalised, numeric, of choices, or the user's. `NumericMatcher` with a tolerance is
            not transitive.
        extractors: compare what these find in the answers, as in `extract`; undecided where they find
            nothing. Empty compares the whole answers.
        decides_difference: take the matcher's "no" as "different". Without it only its "yes" counts: texts
            that differ ("Paris", "It is Paris") may still say the same, and a later rule has to decide.
    """

    matcher: Matcher
    extractors: tuple[str | Extractor, ...] = ()
    decides_difference: bool = True

    def __post_init__(self) -> None:
        if self.extractors:
            extract("", *self.extractors)

    @property
    def name(self) -> str:
        """The matcher and the extractors."""
        found = ", ".join(getattr(e, "__name__", None) or str(e) for e in self.extractors)
        only = "" if self.decides_difference else ", yes only"
        return f"{self.matcher!r}{f' of {found}' if found else ''}{only}"

    def same(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:  # noqa: ARG002
        """Return what the matcher says of each pair."""
        return [self._one(*pair) for pair in pairs]

    def _one(self, a: str, b: str) -> bool | None:
        if self.extractors:
            found = extract(a, *self.extractors), extract(b, *self.extractors)
            if found[0] is None or found[1] is None:
                return None
            a, b = found[0].answer, found[1].answer
        result = self.matcher(a, b)
        return None if result is False and not self.decides_difference else result


@dataclass(frozen=True, slots=True)
class Cascade:
    """Rules in order, each asked only about what those before it left undecided: the cheap ones first.

    Attributes:
        rules: one or more.

    Raises:
        ConfigurationError: there is no rule.
    """

    rules: tuple[Equivalence, ...]

    def __post_init__(self) -> None:
        if not self.rules:
            raise ConfigurationError("a cascade needs one rule or more")

    @property
    def name(self) -> str:
        """The rules in order."""
        return " → ".join(rule.name for rule in self.rules)

    def same(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:
        """Return for each pair what the first rule that decides says."""
        results: list[bool | None] = [None] * len(pairs)
        for rule in self.rules:
            open_ = [i for i, result in enumerate(results) if result is None]
            if open_:
                said = checked(rule.same(question, [pairs[i] for i in open_]), len(open_), rule.name)
                for i, result in zip(open_, said, strict=True):
                    results[i] = result
        return results


@dataclass(frozen=True, slots=True)
class AsyncCascade:
    """A rule at hand, and one that waits for a network, which is asked about what the first left undecided.

    Attributes:
        first: `Cascade` makes several into one.
        then: usually a judge.
    """

    first: Equivalence
    then: AsyncEquivalence

    @property
    def name(self) -> str:
        """The rules in order."""
        return f"{self.first.name} → {self.then.name}"

    async def same_async(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:
        """Return for each pair what the first rule that decides says."""
        results = list(checked(self.first.same(question, pairs), len(pairs), self.first.name))
        open_ = [i for i, result in enumerate(results) if result is None]
        if open_:
            asked = await self.then.same_async(question, [pairs[i] for i in open_])
            for i, result in zip(open_, checked(asked, len(open_), self.then.name), strict=True):
                results[i] = result
        return results


def checked(results: Sequence[_T], expected: int, name: str) -> Sequence[_T]:
    """Return the results of somebody's rule, model or judge.

    Raises:
        ValueError: their number is wrong, so that they cannot be told apart: a defect of the implementation.
    """
    if len(results) != expected:
        raise ValueError(f"{name} returned {len(results)} results where {expected} were asked for")
    return results
