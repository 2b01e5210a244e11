"""Many requests on one event loop: a bounded number at work, a bounded number waiting, each with its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, TypeAlias

from cert.backends.base import Generation
from cert.backends.control import Control, Ending
from cert.backends.openai_server.flight import Flight, ListenerError
from cert.backends.openai_server.loop import LoopThread
from cert.core.bounds import positive
from cert.core.errors import CertError, DeadlineExceededError, OverloadedError

__all__ = ["Lanes", "ServerLimits"]

Work: TypeAlias = Callable[[], Coroutine[Any, Any, Generation]]
Partial: TypeAlias = Callable[[Flight, Ending], Generation | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """How much work a backend takes, and how much of an answer it reads.

    Attributes:
        concurrency: requests that are with the server at once.
        waiting: requests that wait for their turn.
        answer_bytes: the largest answer.
        connect_seconds: for a connection to be made.
    """

    concurrency: int = 64
    waiting: int = 1024
    answer_bytes: int = 64 * 1024 * 1024
    connect_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "waiting", "answer_bytes", "connect_seconds"):
            positive(name, getattr(self, name))


class Lanes:
    """Takes requests from any thread, in order, and settles their futures.

    Args:
        loop: where they are worked on.
        limits: how many at once, and how many wait.
        partial: makes a generation of what came of a request that was ended from outside.
    """

    def __init__(self, loop: LoopThread, limits: ServerLimits, partial: Partial) -> None:
        self._loop = loop
        self._limits = limits
        self._partial = partial
        self._places = asyncio.Semaphore(limits.concurrency)
        self._lock = threading.Lock()
        self._flights: dict[Flight, None] = {}

    def begin(self, flight: Flight, work: Work) -> Future[Generation]:
        """Take a request.

        Raises:
            OverloadedError: too many are waiting.
            ConfigurationError: the loop was closed or belongs to another process.
        """
        with self._lock:
            if len(self._flights) >= self._limits.waiting + self._limits.concurrency:
                raise OverloadedError(
                    f"{len(self._flights)} requests are on their way or wait already",
                    hint="send fewer at once",
                    retry_after=1.0,
                    context={"waiting": self._limits.waiting, "concurrency": self._limits.concurrency},
                )
            self._flights[flight] = None
        flight.future.add_done_callback(functools.partial(self._landed, flight))
        try:
            self._loop.submit(self._fly(flight, work))
        except CertError:
            flight.future.cancel()
            raise
        return flight.future

    def cancel_all(self) -> None:
        """Give up everything that waits or is at work."""
        with self._lock:
            flights = list(self._flights)
        for flight in flights:
            flight.control.cancel()
            flight.future.cancel()

    def _landed(self, flight: Flight, _: Future[Generation]) -> None:
        with self._lock:
            self._flights.pop(flight, None)

    async def _fly(self, flight: Flight, work: Work) -> None:
        """Wait for a place, do the work, and settle the future whatever happens."""
        try:
            async with self._place(flight):
                if flight.future.set_running_or_notify_cancel():
                    if flight.control.ending is not None:
                        raise flight.control.error()
                    flight.future.set_result(await self._until_ended(flight, work()))
        except ListenerError:
            _fail(flight.future, flight.raised or flight.control.error())
        except asyncio.CancelledError:
            _fail(flight.future, flight.control.error())
            raise
        # Defects too must reach whoever waits.
        except BaseException as error:
            _fail(flight.future, error)

    @contextlib.asynccontextmanager
    async def _place(self, flight: Flight) -> AsyncIterator[None]:
        """Hold a place with the server, or none if the request was withdrawn or ended before its turn."""
        turn = asyncio.get_running_loop().create_task(self._places.acquire())
        leave = _from_any_thread(turn.cancel)
        flight.future.add_done_callback(lambda _: leave())
        await _done_or_ended(turn, flight.control)
        try:
            yield
        finally:
            if not turn.cancelled():
                self._places.release()

    async def _until_ended(self, flight: Flight, work: Coroutine[Any, Any, Generation]) -> Generation:
        """Do the work until its control ends it; what was measured until then is in the error."""
        task = asyncio.get_running_loop().create_task(work)
        await _done_or_ended(task, flight.control)
        try:
            return task.result()
        except (asyncio.CancelledError, DeadlineExceededError) as error:
            ending = flight.control.ending
            if ending is None:
                raise
            partial = self._partial(flight, ending)
            if ending == "early_stop" and partial is not None:
                return partial
            failure = flight.control.error()
            failure.partial = partial if partial is not None and len(partial.steps) else None
            raise failure from (error if isinstance(error, Exception) else None)


async def _done_or_ended(task: asyncio.Task[Any], control: Control) -> None:
    """Wait for a task; cancel it at the deadline or when the word to end is given."""
    control.on_end(_from_any_thread(task.cancel))
    try:
        while not task.done() and control.ending is None:
            await asyncio.wait({task}, timeout=control.remaining())
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _from_any_thread(call: Callable[[], object]) -> Callable[[], None]:
    loop = asyncio.get_running_loop()

    def later() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it all is ended
            loop.call_soon_threadsafe(call)

    return later


def _fail(future: Future[Generation], error: BaseException) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
