"""The HTTP protocol of the server, with an end for connections that never say what they want."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["guarded_protocol"]


def guarded_protocol(head_seconds: float) -> type[H11Protocol]:
    """Return a protocol that closes a connection whose request's head is not whole in time.

    Without it a client that sends a byte a minute holds a connection for good (slowloris): the server's own
    keep-alive time ends with the first byte that comes.
    """

    class GuardedProtocol(H11Protocol):
        _guard: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._arm()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._busy():
                self._disarm()
            elif self._guard is None:
                self._arm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _arm(self) -> None:
            self._guard = self.loop.call_later(head_seconds, self._close_idle)

        def _disarm(self) -> None:
            if self._guard is not None:
                self._guard.cancel()
                self._guard = None

        def _close_idle(self) -> None:
            self._guard = None
            if not self._busy():
                self.transport.close()

        def _busy(self) -> bool:
            cycle: Any = self.cycle  # None before the first request, whatever its annotation says
            return cycle is not None and not cycle.response_complete

    return GuardedProtocol
