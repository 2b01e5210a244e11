"""Work for as long as its caller is there."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from cert.services.common.errors import ServiceError

__all__ = ["CallerGoneError", "while_present"]


class CallerGoneError(ServiceError):
    """The caller went away before the answer was there; nobody reads this."""

    code = "caller_gone"
    status = 499


class while_present:  # noqa: N801  # reads as the condition that it is
    """Cancels the block of ``async with`` when the connection of a request ends.

    The body must have been read. A block that does not wait for anything costs almost nothing more.

    Raises:
        CallerGoneError: the caller went away, and the block was cancelled.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        # A block that ends without waiting for anything ends before the watch begins.
        self._beginning = asyncio.get_running_loop().call_soon(self._begin)

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._beginning.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            return
        if self._gone and self._task.uncancel() <= 0:
            raise CallerGoneError("the caller went away") from None

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
