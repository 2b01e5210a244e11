"""Writes of many requests in one transaction: a disk is waited for once, not once for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from cert.core.errors import StoreError

__all__ = ["GroupWriter"]

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 64


class GroupWriter(Generic[T, R]):
    """Hands what comes while a write is under way to the next one, together.

    Args:
        write: puts several into the database, all or none, and says of each how it is there.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]]) -> None:
        self._write = write
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def put(self, one: T) -> R:
        """Return when it is in the database.

        Raises:
            StoreError: it is not there for sure.
        """
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, done))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await done

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
                await self._together(group)
        finally:
            self._task = None

    async def _together(self, group: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            written = await self._write([one for one, _ in group])
        except Exception as error:  # for whoever waits
            for _, done in group:
                if not done.done():
                    done.set_exception(error if isinstance(error, StoreError) else _unforeseen(error))
            return
        for (_, done), how in zip(group, written, strict=True):
            if not done.done():
                done.set_result(how)


def _unforeseen(error: Exception) -> StoreError:
    # Its name alone: the text may quote what was to be written.
    return StoreError(f"a write failed: {type(error).__name__}", context={"reason": type(error).__name__})
