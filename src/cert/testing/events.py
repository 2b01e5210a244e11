"""Events of a hub, kept for a test to look at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from cert.core.events import Event, EventHub, default_hub

__all__ = ["CapturedEvents", "captured_events"]

E = TypeVar("E", bound=Event)


class CapturedEvents:
    """What a hub told so far; reading waits until everything emitted before has arrived."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._taken: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Take an event: this is an observer."""
        self._taken.append(event)

    def all(self) -> tuple[Event, ...]:
        """Return every event, in order."""
        if not self._hub.flush():
            raise AssertionError("the hub did not deliver its events in time")
        return tuple(self._taken)

    def of(self, kind: type[E]) -> tuple[E, ...]:
        """Return the events of one class, in order."""
        return tuple(event for event in self.all() if isinstance(event, kind))

    def names(self) -> tuple[str, ...]:
        """Return the names of all events, in order."""
        return tuple(event.name for event in self.all())


@contextlib.contextmanager
def captured_events(hub: EventHub | None = None) -> Iterator[CapturedEvents]:
    """Capture what a hub (by default that of the process) tells its observers during a block.

    What was captured can still be read after the block.
    """
    hub = default_hub() if hub is None else hub
    captured = CapturedEvents(hub)
    remove = hub.observe(captured)
    try:
        yield captured
    finally:
        hub.flush()
        remove()
