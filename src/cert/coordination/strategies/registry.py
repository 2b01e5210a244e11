"""Strategies by name, the user's own among them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

from cert.coordination.strategies.best_of_n import BestOfN
from cert.coordination.strategies.debate import Debate
from cert.coordination.strategies.parallel import Parallel
from cert.coordination.strategies.protocol import Strategy
from cert.coordination.strategies.sequential import Sequential
from cert.coordination.strategies.vote import Vote
from cert.core.errors import InputError

__all__ = ["get", "names", "parse", "register"]

_makers: dict[str, Callable[..., Strategy]] = {
    made.name: made for made in (Sequential, Parallel, Debate, Vote, BestOfN)
}


def names() -> tuple[str, ...]:
    """Return the names of all strategies, in the order in which they were registered."""
    return tuple(_makers)


def get(name: str, **parameters: Any) -> Strategy:
    """Return a strategy.

    Args:
        name: of the strategy.
        **parameters: its own, such as ``rounds`` of a debate.

    Raises:
        InputError: there is no such strategy or parameter, one is lacking, or it cannot be right.
    """
    if name not in _makers:
        raise InputError(f"there is no strategy {name!r}", hint=f"one of {', '.join(names())}")
    make = _makers[name]
    signature = inspect.signature(make)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise InputError(f"{name}: {error}", hint=f"its parameters are: {known}") from None
    return make(**parameters)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters of a strategy as people write it: ``debate(rounds=1)``.

    Raises:
        InputError: it is not of this form, or a value is no number, string, true or false.
    """
    found = re.fullmatch(r"\s*(?P<name>[\w-]+)\s*(?:\((?P<told>.*)\))?\s*", text)
    if found is None:
        raise InputError(f"{text!r} is no strategy", hint="such as vote or debate(rounds=1)")
    parameters: dict[str, Any] = {}
    for part in filter(str.strip, (found["told"] or "").split(",")):
        name, separator, value = part.partition("=")
        try:
            parameters[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            separator = ""
        if not separator:
            raise InputError(f"{text!r}: {part.strip()!r} is no parameter", hint="such as rounds=1")
    return found["name"], parameters


def register(name: str, make: Callable[..., Strategy], *, replace: bool = False) -> None:
    """Add a strategy.

    Args:
        name: by which it is asked for.
        make: called with the parameters, returns it; a class will do.
        replace: take the place of one with the same name.

    Raises:
        InputError: the name is empty, or taken.
    """
    if not name.strip():
        raise InputError("a strategy needs a name")
    if name in _makers and not replace:
        raise InputError(f"there is a strategy {name!r} already", hint="another name, or replace=True")
    _makers[name] = make
