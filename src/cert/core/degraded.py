"""Which parts work in a reduced way just now, gathered from their events, as a health check."""

from __future__ import annotations

import threading

from cert.core.events import ComponentDegraded, Event
from cert.core.health import Finding

__all__ = ["DegradedParts"]


class DegradedParts:
    """Observes `ComponentDegraded` events.

    ::

        parts = DegradedParts()
        hub.observe(parts)
        health.register("degraded_parts", parts.finding, critical=False)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._modes: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Take note of an event; those of other kinds are no matter."""
        if not isinstance(event, ComponentDegraded):
            return
        with self._lock:
            if event.active:
                self._modes[event.component] = event.mode
            else:
                self._modes.pop(event.component, None)

    def finding(self) -> Finding:
        """Return healthy, or degraded with every part and what it does instead."""
        with self._lock:
            modes = sorted(self._modes.items())
        if not modes:
            return Finding("healthy")
        told = ", ".join(f"{component}: {mode}" for component, mode in modes)
        return Finding("degraded", "component_degraded", told)
