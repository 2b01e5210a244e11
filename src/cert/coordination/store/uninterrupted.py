"""Work that a cancellation of its caller does not stop half way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["uninterrupted"]

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Return what the work returns; a cancellation waits until it is done, and then goes on.

    For steps of milliseconds that must not be left half done. The end of the event loop stops them all the
    same.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # has been seen: the cancellation is what the caller hears of
        raise cancelled
    return task.result()
