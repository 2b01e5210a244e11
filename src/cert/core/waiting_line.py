"""A queue of threads and tasks that wait for their turn: first come, first served, and leaving is free."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import OrderedDict
from collections.abc import Callable

from cert.core.clock import Clock

__all__ = ["TaskTurn", "ThreadTurn", "Ticket", "WaitingLine"]


class Ticket:
    """A place in the line.

    Attributes:
        tokens: that its holder asks for.
        ahead: how many stood before it when it was taken.
        tokens_ahead: what they asked for.
    """

    def __init__(self, tokens: int, ahead: int, tokens_ahead: int, call: Callable[[], None]) -> None:
        self.tokens = tokens
        self.ahead = ahead
        self.tokens_ahead = tokens_ahead
        self.call = call


class WaitingLine:
    """Places in order of arrival; the holder of the first one is called.

    Threads and tasks of any event loop stand in the same line.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: OrderedDict[Ticket, None] = OrderedDict()
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._places)

    def join(self, tokens: int, call: Callable[[], None]) -> Ticket:
        """Take the last place; ``call`` is called, from whatever thread, when it has become the first."""
        with self._lock:
            ticket = Ticket(tokens, len(self._places), self._tokens, call)
            self._places[ticket] = None
            self._tokens += tokens
        if ticket.ahead == 0:
            call()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the place up, having been served or not; the next is called if it was the first."""
        following = self._remove(ticket)
        while following is not None:
            try:
                following.call()
                return
            except RuntimeError:
                # Its event loop is closed: nobody stands there any more.
                following = self._remove(following)

    def _remove(self, ticket: Ticket) -> Ticket | None:
        """The one whose turn it is by that, if it was another's before."""
        with self._lock:
            if ticket not in self._places:
                return None
            was_first = next(iter(self._places)) is ticket
            del self._places[ticket]
            self._tokens -= ticket.tokens
            return next(iter(self._places), None) if was_first else None


class ThreadTurn:
    """The waiting of a thread for its turn."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.call = self._event.set

    @property
    def come(self) -> bool:
        """Whether it is this thread's turn."""
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for the turn, at most so long (it may be infinite)."""
        self._event.wait(None if math.isinf(seconds) else min(seconds, threading.TIMEOUT_MAX))


class TaskTurn:
    """The waiting of a task for its turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def call(self) -> None:
        """Say that it is this task's turn, from whatever thread."""
        if threading.get_ident() == self._thread:
            self._set()
        else:
            self._loop.call_soon_threadsafe(self._set)

    @property
    def come(self) -> bool:
        """Whether it is this task's turn."""
        return self._future.done()

    async def wait(self, seconds: float, clock: Clock) -> None:
        """Wait for the turn, at most so long by the clock (it may be infinite)."""
        if math.isinf(seconds):
            await self._future
            return
        alarm = asyncio.ensure_future(clock.sleep_async(seconds))
        try:
            await asyncio.wait({self._future, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
