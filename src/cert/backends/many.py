"""Many requests at once: a window of them in flight, so that one caller's thousand never fill the queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from cert.backends.control import Control
from cert.core.errors import CertError, OverloadedError

if TYPE_CHECKING:
    from cert.backends.base import Backend, Generation, GenerationRequest, Outcome

__all__ = ["landed", "run_all"]

T = TypeVar("T")


def run_all(
    backend: Backend, requests: Iterable[tuple[GenerationRequest, Control]]
) -> Iterator[tuple[int, Outcome]]:
    """Run requests and yield each one's place and outcome as soon as it is done.

    At most ``backend.window`` are in flight. A request that the backend has no room for is asked again
    when one of those is done. Leaving the iteration early cancels what is in flight.
    """
    waiting = enumerate(requests)
    places: dict[Future[Generation], int] = {}
    flying: dict[Future[Generation], Control] = {}
    held = next(waiting, None)
    try:
        while held or flying:
            while held and len(flying) < backend.window:
                place, (request, control) = held
                try:
                    future = backend.begin(request, control)
                except CertError as error:
                    if flying and isinstance(error, OverloadedError):
                        break
                    yield place, error
                else:
                    places[future], flying[future] = place, control
                held = next(waiting, None)
            for future, outcome in landed(flying) if flying else ():
                del flying[future]
                yield places.pop(future), outcome
    finally:
        for future, control in flying.items():
            control.cancel()
            future.cancel()


def landed(flying: Mapping[Future[T], Control]) -> list[tuple[Future[T], T | CertError]]:
    """Wait until at least one future is done, or out of time, and return those with their outcomes.

    Raises:
        Exception: what a future failed with, if it is no `CertError`: a defect, or the caller's own doing.
    """
    times = [left for control in flying.values() if (left := control.remaining()) is not None]
    done, _ = wait(flying, min(times, default=None), FIRST_COMPLETED)
    late = {future for future, control in flying.items() if control.remaining() == 0.0}
    return [(future, _outcome(future, flying[future])) for future in done | late]


def _outcome(future: Future[Any], control: Control) -> Any:
    try:
        return control.wait(future)
    except CertError as error:
        return error
