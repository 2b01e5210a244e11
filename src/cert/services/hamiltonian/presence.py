"""Work for as long as its caller is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request

from cert.services.common.errors import ServiceError

__all__ = ["CallerGoneError", "while_present"]


class CallerGoneError(ServiceError):
    """The caller went away before the answer was there; nobody reads this."""

    code = "caller_gone"
    status = 499


@contextlib.asynccontextmanager
async def while_present(request: Request) -> AsyncIterator[None]:
    """Cancel the block when the connection of the request ends.

    The body must have been read. A block that does not wait for anything costs almost nothing more.

    Raises:
        CallerGoneError: the caller went away, and the block was cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher: asyncio.Task[None] | None = None

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    # A block that ends without waiting for anything ends before the watch begins.
    beginning = asyncio.get_running_loop().call_soon(begin)
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task.uncancel() > 0:
            raise
        raise CallerGoneError("the caller went away") from None
    finally:
        beginning.cancel()
        if watcher is not None:
            watcher.cancel()
