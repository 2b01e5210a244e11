"""Connections belong to the event loop that made them; a client does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One thing for each running event loop, so that a program may call ``asyncio.run`` more than once.

    Args:
        make: one, on its loop.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._held: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T:
        """Return the one of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._held:
            # Those of loops that have ended can be neither used nor closed.
            self._held = {other: held for other, held in self._held.items() if not other.is_closed()}
            self._held[loop] = self._make()
        return self._held[loop]

    def take(self) -> T | None:
        """Return the one of the running loop, if there is one, and forget it."""
        return self._held.pop(asyncio.get_running_loop(), None)
