"""Whether a shared store can be asked just now, and the word to whoever listens when that changes."""

from __future__ import annotations

import threading

from cert.core.events import ComponentDegraded, EventHub

__all__ = ["Outage"]


class Outage:
    """Remembers that a store failed, so that not every call waits for its time-out.

    While the store is out, one question a `probe_seconds` is let through; its success ends the outage.

    Args:
        component: what is degraded meanwhile, for the event.
        mode: what it does instead.
        hub: told of the beginning and the end.
        probe_seconds: between two questions while the store is out.
    """

    def __init__(self, component: str, mode: str, hub: EventHub, probe_seconds: float = 1.0) -> None:
        self._component = component
        self._mode = mode
        self._hub = hub
        self._probe_seconds = probe_seconds
        self._lock = threading.Lock()
        self._out = False
        self._probe_at = 0.0

    @property
    def mode(self) -> str | None:
        """What the component does instead just now; ``None`` when all is well."""
        return self._mode if self._out else None

    def closed_for(self, now: float) -> float:
        """Return for how long not to ask: 0 lets this caller ask, and in an outage no other."""
        with self._lock:
            if not self._out:
                return 0.0
            wait = self._probe_at - now
            if wait > 0:
                return wait
            self._probe_at = now + self._probe_seconds
            return 0.0

    def failed(self, now: float) -> None:
        """The store did not answer."""
        with self._lock:
            self._probe_at = now + self._probe_seconds
            began, self._out = not self._out, True
        if began:
            self._tell(active=True)

    def worked(self) -> bool:
        """The store answered; true where that ends an outage."""
        with self._lock:
            ended, self._out = self._out, False
        if ended:
            self._tell(active=False)
        return ended

    def _tell(self, *, active: bool) -> None:
        self._hub.emit(ComponentDegraded(component=self._component, mode=self._mode, active=active))
