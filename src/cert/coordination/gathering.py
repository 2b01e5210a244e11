"""Several calls at once, all to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

__all__ = ["all_to_their_end", "both_to_their_end"]

T = TypeVar("T")
U = TypeVar("U")


async def all_to_their_end(calls: Iterable[Awaitable[T]]) -> tuple[T, ...]:
    """Await all calls at once and return what they return, in their order.

    What was sent is paid for: where one of them raises, the others may end first, so that a store keeps what
    they say; then the first error is raised. Who cancels this cancels them all.
    """
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    results: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return tuple(results)


async def both_to_their_end(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Do the same with two calls of different kinds."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(other, BaseException):
        raise other
    return one, other
