"""An event loop on a thread of its own, for callers that have none or another one."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from cert.core.errors import ConfigurationError

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """Runs coroutines on one daemon thread, which starts with the first and ends with `close`.

    It belongs to the process that started it: after a fork the thread is not in the child.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._closed = False
        self._endings: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_current(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.current_thread() is self._thread

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine.

        Raises:
            ConfigurationError: it was closed, or the process was forked since it started.
        """
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._started())
        except BaseException:
            coroutine.close()
            raise

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have something closed on the thread before it ends; it must not hold the one that holds this."""
        self._endings.append(close)

    def close(self) -> None:
        """Cancel what runs and end the thread; again is harmless."""
        with self._lock:
            loop, thread, self._closed = self._loop, self._thread, True
            self._loop = None
        if loop is None or thread is None or self._process != os.getpid():
            return
        _stop(loop)
        if not self.is_current:
            thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise ConfigurationError("the backend was closed")
            if self._loop is None:
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop, self._endings), name=self._name, daemon=True
                )
                self._thread.start()
                # One that nobody closes ends with its last user.
                weakref.finalize(self, _stop, self._loop)
            if self._process != os.getpid():
                raise ConfigurationError(
                    "this backend was used before the process was forked",
                    hint="make one in each process, or start processes by spawn",
                )
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop, endings: list[Callable[[], Awaitable[None]]]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_end(endings))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _end(endings: list[Callable[[], Awaitable[None]]]) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(close() for close in endings), return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
