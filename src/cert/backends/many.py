"""Many calls at once: a window of them in flight, so that one caller's thousand never fill the queue."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from cert.backends.control import Control
from cert.backends.detached import detached
from cert.core.errors import CertError, OverloadedError

__all__ = ["Flight", "fly", "outcome_of"]

I = TypeVar("I")  # noqa: E741  # an item
R_co = TypeVar("R_co", covariant=True)


class Flight(Protocol[R_co]):
    """One call on its way."""

    control: Control

    @property
    def future(self) -> Future[Any] | None:
        """What it waits for now; ``None`` when its result is there."""
        ...

    @property
    def result(self) -> R_co:
        """The result, once there is nothing to wait for."""
        ...

    def land(self, outcome: Any) -> None:
        """Take what its future gave, a value or an exception; there may be another future afterwards.

        Raises:
            BaseException: the call has failed.
        """
        ...


def fly(
    items: Iterable[I], begin: Callable[[I], Flight[R_co]], window: int
) -> Generator[tuple[int, R_co | CertError], None, None]:
    """Begin a call for each item and yield each one's place and outcome as soon as it is there.

    At most ``window`` are in flight. One that there is no room for (`OverloadedError`) is begun again when
    another is done. Leaving the iteration early gives up what is in flight.

    Raises:
        BaseException: what a call failed with, if it is no `CertError`: a defect, or the caller's own doing.
    """
    waiting = enumerate(items)
    held = next(waiting, None)
    flying: dict[Future[Any], tuple[int, Flight[R_co]]] = {}
    # `concurrent.futures.wait` does not hear of a future that is cancelled while it waits; a callback does.
    landings: queue.SimpleQueue[int] = queue.SimpleQueue()
    try:
        while held or flying:
            while held and len(flying) < window:
                place, item = held
                try:
                    flight = begin(item)
                except CertError as error:
                    if flying and isinstance(error, OverloadedError):
                        break
                    yield place, detached(error, noted=False)
                else:
                    if flight.future is None:
                        yield place, flight.result
                    else:
                        flying[flight.future] = place, flight
                        flight.future.add_done_callback(_tell(landings, place))
                held = next(waiting, None)
            for future in _landed(flying, landings) if flying else ():
                place, flight = flying[future]
                try:
                    flight.land(outcome_of(future, flight.control))
                except CertError as error:
                    del flying[future]
                    yield place, detached(error, noted=False)
                    continue
                del flying[future]
                if flight.future is None:
                    yield place, flight.result
                else:
                    flying[flight.future] = place, flight
                    flight.future.add_done_callback(_tell(landings, place))
    finally:
        for future, (_, flight) in flying.items():
            flight.control.cancel()
            future.cancel()
            with contextlib.suppress(BaseException):
                flight.land(flight.control.error())


def _tell(landings: queue.SimpleQueue[int], place: int) -> Callable[[object], None]:
    # Of the place and not of the future, which would be held by what it holds.
    return lambda _: landings.put(place)


def _landed(
    flying: Mapping[Future[Any], tuple[int, Flight[Any]]], landings: queue.SimpleQueue[int]
) -> list[Future[Any]]:
    """Wait until a future is done, or a deadline is over, and return those."""
    controls = [flight.control for _, flight in flying.values()]
    times = [left for control in controls if (left := control.remaining()) is not None]
    done = set()
    with contextlib.suppress(queue.Empty):
        done.add(landings.get(timeout=min(times, default=None)))
        while True:
            done.add(landings.get_nowait())
    return [
        future
        for future, (place, flight) in flying.items()
        if place in done or flight.control.remaining() == 0.0
    ]


def outcome_of(future: Future[Any], control: Control) -> Any:
    """Wait for a future and return its value, or what it failed with."""
    try:
        return control.wait(future)
    except BaseException as error:
        return error
    finally:
        del future  # which holds the error, whose traceback holds this frame
