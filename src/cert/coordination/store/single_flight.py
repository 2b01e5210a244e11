"""Each answer is made once, by whichever task and process comes first, and kept before anybody sees it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from cert.coordination.store.base import CompletionStore
from cert.coordination.store.billing import why_lost
from cert.coordination.store.records import Call, Lease, Outcome, Record
from cert.coordination.store.uninterrupted import uninterrupted
from cert.core.errors import CertError, DeadlineExceededError, StoreError, StoreUnusableError

__all__ = ["Codec", "SingleFlight"]


class _Answer(Protocol):
    @property
    def from_cache(self) -> bool: ...


T = TypeVar("T", bound=_Answer)
Make: TypeAlias = Callable[[float | None], Awaitable[T]]

# How often to look whether another process has the answer: soon at first, then rarely.
_SOONEST, _LATEST = 0.02, 0.25
# The call itself says best that its time is over; this is for when it does not.
_GRACE_SECONDS = 0.5


class Codec(Protocol[T]):
    """How answers of one type go into a store and come out."""

    def encode(self, value: T, /) -> str:
        """Return an answer as JSON."""
        ...

    def decode(self, value: str, /) -> T:
        """Return an answer of a store, marked as such.

        Raises:
            ValueError: it is none.
        """
        ...

    def cost(self, value: T, /) -> int:
        """Return what an answer cost, in micro-dollars."""
        ...

    def counts(self, value: T, /) -> bool:
        """Say whether an answer is one that a store could save anything of."""
        ...

    def keep(self, value: T, /) -> bool:
        """Say whether an answer is to be kept."""
        ...


@dataclass(slots=True)
class _Flight(Generic[T]):
    """A call that is being made for one or more tasks.

    Attributes:
        waiting: how many still want the answer; the call is cancelled when the last of them leaves.
    """

    task: asyncio.Task[tuple[T, Outcome]]
    waiting: int = 0


class SingleFlight(Generic[T]):
    """Answers from a store, or has the answer made and kept.

    Tasks of one event loop that want the same answer share one call, whoever of them is cancelled: it ends
    when nobody waits any more. Other processes, and other event loops, wait for the lease in the store. An
    answer that arrives in the very moment of a cancellation is kept, since it is paid.

    Errors are shared among those who wait, and never kept. Only the time-out is the first caller's own: the
    others ask again.
    """

    def __init__(self, store: CompletionStore, codec: Codec[T]) -> None:
        self.store = store
        self._codec = codec
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def get(self, call: Call, make: Make[T], timeout: float | None = None) -> T:
        """Return the answer of a call.

        Args:
            call: what is asked, under its key.
            make: makes the call, within the seconds that it is told; it starts in a task of its own.
            timeout: seconds for everything, waiting for others included.

        Raises:
            StoreError: the store can neither be read nor announce the call, which was not made.
            DeadlineExceededError: the time is over.
            Exception: whatever ``make`` raises.
        """
        until = None if timeout is None else time.monotonic() + timeout
        record = await self.store.find(call.key)
        if record is not None:
            return self._told(call, self._decode(record), "hit")
        while True:
            value = await self._fly(call, make, until)
            if value is not None:
                return value

    async def _fly(self, call: Call, make: Make[T], until: float | None) -> T | None:
        """Join the flight or begin it; ``None`` says to try again."""
        slot = (asyncio.get_running_loop(), call.key)
        flight = self._flights.get(slot)
        leads = flight is None
        if flight is None:
            flight = self._flights[slot] = _Flight(asyncio.create_task(self._answer(call, make, until)))
            flight.task.add_done_callback(lambda _: self._landed(slot, flight))
        flight.waiting += 1
        try:
            await asyncio.wait({flight.task}, timeout=_left(until, _GRACE_SECONDS * leads))
            if not flight.task.done():
                raise _too_late(call, begun=True)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Whoever comes now starts anew, rather than waiting for a call that is being stopped.
                self._landed(slot, flight)
                await uninterrupted(_stopped(flight.task))
        return self._landing(call, flight.task, leads)

    def _landing(self, call: Call, task: asyncio.Task[tuple[T, Outcome]], leads: bool) -> T | None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            value, outcome = task.result()
            if leads or outcome == "hit":
                return self._told(call, value, outcome)
            return self._told(call, self._codec.decode(self._codec.encode(value)), "shared")
        if leads:
            raise error
        if isinstance(error, DeadlineExceededError | asyncio.CancelledError):
            return None
        # Each a copy: an error that is raised in several tasks gathers the tracebacks of all.
        raise copy.copy(error) if isinstance(error, CertError) else error

    def _landed(self, slot: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(slot) is flight:
            del self._flights[slot]

    async def _answer(self, call: Call, make: Make[T], until: float | None) -> tuple[T, Outcome]:
        claim = await self._claimed(call, until)
        if isinstance(claim, Record):
            return self._decode(claim), "hit"
        async with self._renewed(claim):
            return await self._made(claim, make, until)

    async def _claimed(self, call: Call, until: float | None) -> Record | Lease:
        wait = _SOONEST
        while True:
            claim = await self._claim(call)
            if claim is not None:
                return claim
            while await self.store.busy(call.key):
                left = _left(until)
                if left is not None and left <= 0:
                    raise _too_late(call, begun=False)
                await asyncio.sleep(wait if left is None else min(wait, left))
                wait = min(wait * 1.5, _LATEST)

    async def _claim(self, call: Call) -> Record | Lease | None:
        claiming = asyncio.create_task(self.store.claim(call))
        try:
            await asyncio.wait({claiming})
        except asyncio.CancelledError:
            # A lease that nobody knows of would keep all others waiting until it expires.
            await uninterrupted(self._given_back(claiming))
            raise
        return claiming.result()

    async def _given_back(self, claiming: asyncio.Task[Record | Lease | None]) -> None:
        await asyncio.wait({claiming})
        if not claiming.cancelled() and claiming.exception() is None:
            claim = claiming.result()
            if isinstance(claim, Lease):
                with contextlib.suppress(StoreError):
                    await self.store.release(claim)

    async def _made(self, lease: Lease, make: Make[T], until: float | None) -> tuple[T, Outcome]:
        cancelled: asyncio.CancelledError | None = None
        work = asyncio.create_task(_in_time(lease.call, make, until))
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
            await uninterrupted(_stopped(work))
        told = await uninterrupted(self._settled(lease, work))
        if cancelled is not None:
            raise cancelled
        return told

    async def _settled(self, lease: Lease, work: asyncio.Task[T]) -> tuple[T, Outcome]:
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if error is not None:
            # The failure of the call is what its caller has to hear of; the lease expires by itself.
            with contextlib.suppress(StoreError):
                await self.store.release(lease, why_lost(error))
            raise error
        value = work.result()
        if not self._codec.keep(value):
            with contextlib.suppress(StoreError):
                await self.store.release(lease)
            return value, "miss"
        kept = await self.store.record(lease, await self._encoded(lease, value), self._codec.cost(value))
        if kept.made_by == lease.id:
            return value, "miss"
        # Another took over, made the call too, and was first. All have to see the same answer; that ours is
        # paid as well stands among the lost calls.
        return self._decode(kept), "hit"

    async def _encoded(self, lease: Lease, value: T) -> str:
        try:
            return self._codec.encode(value)
        except Exception:
            await self.store.release(lease, "error")
            raise

    @contextlib.asynccontextmanager
    async def _renewed(self, lease: Lease) -> AsyncIterator[None]:
        renewal = asyncio.create_task(self._renew(lease))
        try:
            yield
        finally:
            renewal.cancel()
            await uninterrupted(_stopped(renewal))

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self.store.lease_seconds / 3)
            # A store in trouble may be back before the lease expires.
            with contextlib.suppress(StoreError):
                await self.store.renew(lease)

    def _told(self, call: Call, value: T, outcome: Outcome) -> T:
        # What was made, but from answers that were there (of a client with a store inside), was not paid.
        outcome = "hit" if outcome == "miss" and value.from_cache else outcome
        if self._codec.counts(value):
            self.store.count(call, outcome, self._codec.cost(value))
        return value

    def _decode(self, record: Record) -> T:
        try:
            return self._codec.decode(record.value)
        except (ValueError, TypeError, KeyError) as error:
            raise StoreUnusableError(
                f"{self.store.name}: the answer {record.key} cannot be read: {type(error).__name__}",
                hint="It was changed by something else, or its disk fails. Restore a copy of the store.",
                context={"store": self.store.name, "reason": "unreadable"},
            ) from error


async def _in_time(call: Call, make: Make[T], until: float | None) -> T:
    left = _left(until)
    if left is not None and left <= 0:
        raise _too_late(call, begun=False)
    return await make(left)


async def _stopped(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # has been seen


def _left(until: float | None, grace: float = 0.0) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic() + grace)


def _too_late(call: Call, *, begun: bool) -> DeadlineExceededError:
    return DeadlineExceededError(
        "the time is over and the answer is not there",
        hint="Allow more time, or see what the call, or another process at work on it, waits for.",
        context={"model": call.model} | ({} if begun else {"attempts": 0}),
    )
