"""Regular expressions that take time linear in the text, whatever the pattern.

Python's ``re`` tries one way after the other, which a text can make take for ever. Here all ways advance
together, a set of states a character (Thompson, "Regular expression search algorithm", CACM 11(6), 1968).
Only whether a text matches is told, so that groups and greediness play no part. Patterns are parsed by
Python's own parser and mean what they mean there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final, TypeAlias

from cert.core.errors import ConfigurationError

__all__ = ["MAX_STATES", "MAX_WORK", "LinearRegex"]

MAX_STATES: Final = 2000
MAX_WORK: Final = 10_000_000

_Test: TypeAlias = Callable[[str], bool]
_Condition: TypeAlias = Callable[[str, int], bool]


class LinearRegex:
    r"""A compiled pattern.

    Supported: literals, classes, ``.``, groups, alternatives, repeats, ``^ $ \A \Z \b \B``. Refused: what
    is no regular language (references back, lookaround, atomic groups and possessive repeats) and flags
    within the pattern.

    Args:
        pattern: in Python's syntax, without flags.
        ignore_case: letters match in both cases.

    Raises:
        ConfigurationError: the pattern is not valid, not supported, or over `MAX_STATES` when spelt out.
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        self.pattern = pattern
        self._ignore_case = ignore_case
        # A state either tests a character, or moves on without one, where its condition holds.
        self._tests: list[_Test | None] = []
        self._conditions: list[_Condition | None] = []
        self._next: list[tuple[int, ...]] = []
        self._accept = self._state()
        try:
            tree = _parser.parse(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise self._refused(str(error)) from error
        if tree.state.flags & ~re.UNICODE:
            raise self._refused("flags within the pattern are not supported")
        self._start = self._sequence(tree, self._accept)

    def fullmatch(self, text: str) -> bool | None:
        """Return whether the whole text matches; ``None`` if states times characters exceed `MAX_WORK`."""
        return self._run(text, anywhere=False)

    def search(self, text: str) -> bool | None:
        """Return whether some part of the text matches; ``None`` if it would be too much work."""
        return self._run(text, anywhere=True)

    def _run(self, text: str, *, anywhere: bool) -> bool | None:
        if len(self._tests) * len(text) > MAX_WORK:
            return None
        active = self._reach([self._start], text, 0)
        for i, character in enumerate(text):
            if anywhere and self._accept in active:
                return True
            moved = [self._next[state][0] for state in active if (t := self._tests[state]) and t(character)]
            active = self._reach([*moved, self._start] if anywhere else moved, text, i + 1)
            if not active:
                return False
        return self._accept in active

    def _reach(self, states: Iterable[int], text: str, i: int) -> set[int]:
        reached: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in reached:
                continue
            reached.add(state)
            condition = self._conditions[state]
            if self._tests[state] is None and (condition is None or condition(text, i)):
                waiting.extend(self._next[state])
        return reached

    # --- compilation: each part is built backwards, towards the state that follows it ---

    def _state(self, *following: int, test: _Test | None = None, condition: _Condition | None = None) -> int:
        if len(self._tests) >= MAX_STATES:
            raise self._refused(f"it needs more than {MAX_STATES} states")
        self._tests.append(test)
        self._conditions.append(condition)
        self._next.append(following)
        return len(self._tests) - 1

    def _sequence(self, nodes: Iterable[tuple[Any, Any]], following: int) -> int:
        for kind, argument in reversed(list(nodes)):
            following = self._node(kind, argument, following)
        return following

    def _node(self, kind: Any, argument: Any, following: int) -> int:
        if kind in {sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN}:
            return self._state(following, test=self._test(kind, argument))
        if kind is sre.AT and argument in _CONDITIONS:
            return self._state(following, condition=_CONDITIONS[argument])
        if kind is sre.BRANCH:
            return self._state(*(self._sequence(branch, following) for branch in argument[1]))
        if kind is sre.SUBPATTERN and not argument[1] and not argument[2]:
            return self._sequence(argument[3], following)
        if kind in {sre.MAX_REPEAT, sre.MIN_REPEAT}:
            least, most, body = argument
            return self._repeat(least, most, body, following)
        raise self._refused(f"{str(kind).lower()} is not supported")

    def _repeat(self, least: int, most: int, body: Any, following: int) -> int:
        if least > MAX_STATES or (most != sre.MAXREPEAT and most > MAX_STATES):
            raise self._refused(f"it needs more than {MAX_STATES} states")
        if most == sre.MAXREPEAT:
            loop = self._state()
            self._next[loop] = (self._sequence(body, loop), following)
            following = loop
        else:
            for _ in range(most - least):
                following = self._state(self._sequence(body, following), following)
        for _ in range(least):
            following = self._sequence(body, following)
        return following

    def _test(self, kind: Any, argument: Any) -> _Test:
        if kind is sre.ANY:
            return lambda character: character != "\n"
        items = [(kind, argument)] if kind is not sre.IN else list(argument)
        negated = items[0][0] in {sre.NEGATE, sre.NOT_LITERAL}
        members = [_member(*item) for item in items if item[0] is not sre.NEGATE]
        if not self._ignore_case:
            return lambda character: any(member(character) for member in members) != negated
        return lambda character: any(m(c) for c in _cases(character) for m in members) != negated

    def _refused(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"the pattern {self.pattern[:80]!r} cannot be used: {reason}",
            hint="classes, groups, alternatives, repeats and anchors are supported",
        )


def _cases(character: str) -> set[str]:
    return {character, character.lower(), character.upper()}


def _member(kind: Any, argument: Any) -> _Test:
    if kind in {sre.LITERAL, sre.NOT_LITERAL}:
        wanted = chr(argument)
        return lambda character: character == wanted
    if kind is sre.RANGE:
        first, last = map(chr, argument)
        return lambda character: first <= character <= last
    inside = _CATEGORIES[argument]
    return lambda character: inside.match(character) is not None


_CATEGORIES: Final = {
    sre.CATEGORY_DIGIT: re.compile(r"\d"),
    sre.CATEGORY_NOT_DIGIT: re.compile(r"\D"),
    sre.CATEGORY_SPACE: re.compile(r"\s"),
    sre.CATEGORY_NOT_SPACE: re.compile(r"\S"),
    sre.CATEGORY_WORD: re.compile(r"\w"),
    sre.CATEGORY_NOT_WORD: re.compile(r"\W"),
}


def _is_boundary(text: str, i: int) -> bool:
    before, after = text[i - 1 : i] if i else "", text[i : i + 1]
    return (before.isalnum() or before == "_") != (after.isalnum() or after == "_")


_CONDITIONS: Final[dict[Any, _Condition]] = {
    sre.AT_BEGINNING: lambda _, i: i == 0,
    sre.AT_BEGINNING_STRING: lambda _, i: i == 0,
    sre.AT_END: lambda text, i: i == len(text) or (i == len(text) - 1 and text[i] == "\n"),
    sre.AT_END_STRING: lambda text, i: i == len(text),
    sre.AT_BOUNDARY: _is_boundary,
    sre.AT_NON_BOUNDARY: lambda text, i: not _is_boundary(text, i),
}
