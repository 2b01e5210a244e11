"""The end of a service, told to whoever has work in hand before the process waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import FastAPI

from cert.observability.logging import get_logger

__all__ = ["Drain", "drain_of"]


class Drain:
    """Whether the service is about to end.

    Streams of events that only look on should end by then, and jobs should be written down: what is still at
    work when the time of ``CERT_SHUTDOWN_SECONDS`` is over is cancelled.
    """

    def __init__(self) -> None:
        self._began = asyncio.Event()
        self._told: list[Callable[[], object]] = []

    @property
    def began(self) -> bool:
        """Whether it has begun."""
        return self._began.is_set()

    async def wait(self) -> None:
        """Wait until it begins."""
        await self._began.wait()

    def tell(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call a function, on the event loop, when it begins; the function that is returned takes it back.

        One that is told after the beginning is called at once.
        """
        if self.began:
            callback()
        self._told.append(callback)

        def remove() -> None:
            if callback in self._told:
                self._told.remove(callback)

        return remove

    def begin(self) -> None:
        """Begin; once."""
        if self.began:
            return
        self._began.set()
        for callback in list(self._told):
            try:
                callback()
            except Exception as error:  # the others have work to save too
                get_logger("cert.services").error("drain_failed", error=type(error).__name__)


def drain_of(app: FastAPI) -> Drain:
    """Return the drain of an app, the same one each time."""
    if not hasattr(app.state, "drain"):
        app.state.drain = Drain()
    drain: Drain = app.state.drain
    return drain
