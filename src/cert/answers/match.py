"""Whether an answer is the expected one: yes, no, or not to be decided by this rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import numpy as np

from cert.answers.extract import choice
from cert.answers.linear_regex import LinearRegex
from cert.answers.normalize import Normalization, bounded, same_text_key
from cert.answers.numbers import DecimalMark, Number, parse_number, same_number
from cert.core.errors import ConfigurationError, InputError

__all__ = [
    "CallableMatcher",
    "ChoiceMatcher",
    "ExactMatcher",
    "Matcher",
    "NormalizedMatcher",
    "NumericMatcher",
    "RegexMatcher",
    "matches_any",
]


_ONE = Fraction(1)
_NORMALIZATION = Normalization()


class Matcher(Protocol):
    """A rule that tells whether an answer matches the expected one (the gold answer)."""

    def __call__(self, answer: str, gold: str, /) -> bool | None:
        """Return whether they match; ``None`` where the rule cannot decide, which is *not measured*.

        Raises:
            InputError: one of them cannot be worked on, as it is too long.
        """
        ...


def matches_any(matcher: Matcher, answer: str, golds: Sequence[str]) -> bool | None:
    """Return whether an answer matches one of several accepted answers (aliases).

    Returns:
        True if one matches; False if none of them does; ``None`` if none matches and one is undecided.

    Raises:
        InputError: there is no accepted answer, or a bare string was given for the set of them.
    """
    if isinstance(golds, str) or not golds:
        raise InputError("the accepted answers must be a list of one string or more")
    results = [matcher(answer, gold) for gold in golds]
    if True in results:
        return True
    return None if None in results else False


@dataclass(frozen=True, slots=True)
class ExactMatcher:
    """The same text but for canonical Unicode form and white space. Always decides."""

    def __call__(self, answer: str, gold: str, /) -> bool:
        """Return whether the texts are the same."""
        return same_text_key(answer) == same_text_key(gold)


@dataclass(frozen=True, slots=True)
class NormalizedMatcher:
    """The same text after normalisation. Always decides.

    Attributes:
        normalize: `Normalization`, or `squad_normalize` for results that must compare with published ones.
    """

    normalize: Callable[[str], str] = _NORMALIZATION

    def __call__(self, answer: str, gold: str, /) -> bool:
        """Return whether the normalised texts are the same."""
        return self.normalize(bounded(answer)) == self.normalize(bounded(gold))


@dataclass(frozen=True, slots=True)
class NumericMatcher:
    """The same number, within tolerances, in exact arithmetic.

    Undecided where one side has no number or several, or one that cannot be read ("four" may be 4); where
    both name a unit and the units differ ("5 km", "5 m": units are not converted); and where only one side
    has a percent sign and the other is the bare percentage ("50%", "50"). Different currencies are different.

    Attributes:
        relative, absolute: as in `same_number`.
        percent_optional: "50%" and "50" are the same, for questions that ask for a percentage.
        decimal: the decimal mark.
    """

    relative: float = 0.0
    absolute: float = 0.0
    percent_optional: bool = False
    decimal: DecimalMark = "."

    def __post_init__(self) -> None:
        if self.decimal not in {".", ","}:
            raise ConfigurationError(f"the decimal mark is '.' or ',', not {self.decimal!r}")
        same_number(_ONE, _ONE, relative=self.relative, absolute=self.absolute)

    def __call__(self, answer: str, gold: str, /) -> bool | None:
        """Return whether both are the same number."""
        a, b = parse_number(answer, self.decimal), parse_number(gold, self.decimal)
        if a is None or b is None:
            return None
        if a.unit and b.unit and a.unit != b.unit:
            return None
        if a.currency and b.currency and a.currency != b.currency:
            return False
        return self._same(a, b)

    def _same(self, a: Number, b: Number) -> bool | None:
        if self._close(a.value, b.value):
            return True
        if a.percent == b.percent or not self._close(_as_shown(a), _as_shown(b)):
            return False
        return True if self.percent_optional else None

    def _close(self, a: Fraction | None, b: Fraction | None) -> bool:
        assert a is not None  # parse_number gives readable numbers alone
        assert b is not None
        return same_number(a, b, relative=self.relative, absolute=self.absolute)


def _as_shown(number: Number) -> Fraction | None:
    return number.value * 100 if number.percent and number.value is not None else number.value


@dataclass(frozen=True, slots=True)
class ChoiceMatcher:
    """The same letter of a multiple choice question; undecided where a side names no letter.

    Attributes:
        letters: the letters on offer.
    """

    letters: str = "ABCDE"

    def __post_init__(self) -> None:
        choice("", self.letters)

    def __call__(self, answer: str, gold: str, /) -> bool | None:
        """Return whether both name the same letter."""
        a, b = choice(bounded(answer), self.letters), choice(bounded(gold), self.letters)
        return None if a is None or b is None else a == b


@lru_cache(maxsize=256)
def _compiled(pattern: str, ignore_case: bool) -> LinearRegex:
    return LinearRegex(pattern, ignore_case=ignore_case)


@dataclass(frozen=True, slots=True)
class RegexMatcher:
    """The whole answer matches the gold answer read as a regular expression, in linear time.

    A pattern is the user's, a text the model's: no pattern can be made to run for ever by a text. See
    `LinearRegex` for what a pattern may hold. Undecided where pattern times text would be too much work.

    Attributes:
        ignore_case: letters match in both cases.
        search: the pattern may match anywhere within the answer.
    """

    ignore_case: bool = False
    search: bool = False

    def __call__(self, answer: str, gold: str, /) -> bool | None:
        """Return whether the pattern ``gold`` matches the answer without the space around it.

        Raises:
            ConfigurationError: the pattern is not valid or not supported.
        """
        pattern = _compiled(gold, self.ignore_case)
        answer = bounded(answer).strip()
        return pattern.search(answer) if self.search else pattern.fullmatch(answer)


@dataclass(frozen=True, slots=True)
class CallableMatcher:
    """A rule of the user. What it raises is the user's and passes through.

    Attributes:
        function: ``(answer, gold)`` to True, False or ``None``.
    """

    function: Callable[[str, str], bool | None]

    def __call__(self, answer: str, gold: str, /) -> bool | None:
        """Return what the function says.

        Raises:
            ConfigurationError: it says anything but True, False or ``None``.
        """
        result = self.function(bounded(answer), bounded(gold))
        if result is not None and not isinstance(result, bool | np.bool_):
            raise ConfigurationError(
                f"a matcher returns True, False or None, not {type(result).__name__}",
                hint="compare with a threshold inside the function",
            )
        return None if result is None else bool(result)
