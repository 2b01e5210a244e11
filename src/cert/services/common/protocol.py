"""The HTTP protocol of the server, with an end for connections that hold a place and do not go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cert.services.common.errors import problem_bytes

__all__ = ["HEAD_BYTES", "guarded_protocol"]

HEAD_BYTES: Final = 32_768
# How long the rest of a body is read and thrown away after its request was answered, so that the answer
# arrives: a connection that is closed with unread bytes is reset, and takes its last answer with it.
_LINGER_SECONDS: Final = 2.0


def guarded_protocol(
    head_seconds: float, *, most_connections: int = 8_192, stalled_seconds: float = 60.0
) -> type[H11Protocol]:
    """Return a protocol that ends connections which would be held for good.

    Four ways to hold one are known: a request's head that comes a byte a minute (slowloris; the server's own
    keep-alive time ends with the first byte), a body that goes on after its answer, an answer that nobody
    reads, and no request at all.

    Args:
        head_seconds: from a head's first byte, or from the connection, to its last byte.
        most_connections: that are open at once; one more is answered 503 and closed.
        stalled_seconds: that a reader may take nothing of an answer which is ready for it.
    """

    class GuardedProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(cast(asyncio.Transport, _HeadWithBody(transport, self.loop)))
            self._timers = _Timers(self.loop)
            if len(self.connections) > most_connections:
                self._refuse(503, "overloaded", "too many connections are open", 1.0)
            else:
                self._timers.begin("head", head_seconds, self._end)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return  # what came behind a request that was refused
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._timers.end("head")
            elif self.conn.trailing_data[0]:
                self._timers.begin("head", head_seconds, self._end)
            if self.conn.their_state is not h11.SEND_BODY:
                self._timers.end("rest")

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
                self._timers.begin("rest", _LINGER_SECONDS, self._end)

        def timeout_keep_alive_handler(self) -> None:
            self._end()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._timers.begin("stall", stalled_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._timers.end("stall")
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timers.end("head", "rest", "stall")
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # the signature is uvicorn's
            """Answer what is no HTTP in the form of every error, unless an answer has begun."""
            cycle: Any = self.cycle  # None before the first request, whatever its annotation says
            if cycle is None or cycle.response_complete or not cycle.response_started:
                if len(self.conn.trailing_data[0]) > HEAD_BYTES:
                    self._refuse(431, "headers_too_large", "the head of the request is too long")
                else:
                    self._refuse(400, "invalid_request", "this is no HTTP request")
            self._end()

        def _should_upgrade(self) -> bool:
            return False  # there are no web sockets here, and no need to tell the log at every try

        def _refuse(self, status: int, code: str, detail: str, retry_after: float | None = None) -> None:
            fields, body = problem_bytes(status, code, detail, retry_after=retry_after)
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
            self.transport.write(b"HTTP/1.1 %d \r\n%sconnection: close\r\n\r\n%s" % (status, lines, body))
            self._end()

        def _end(self) -> None:
            self._timers.end("head", "rest")
            self.transport.close()
            # An answer that nobody reads would keep a closed connection open.
            self._timers.begin("stall", stalled_seconds, self.transport.abort)

    return GuardedProtocol


class _HeadWithBody:
    """A transport that sends the head of an answer with the first piece of its body: one call for two.

    A head that no body follows in the same step of the event loop is sent with the next.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self._sending: asyncio.Handle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, or hold a head."""
        if self._sending is not None:
            data = self._taken() + data
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head, self._sending = data, self._loop.call_soon(self._send_head)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close once what is held has been sent."""
        if self._sending is not None:
            self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        self._transport.write(self._taken())

    def _taken(self) -> bytes:
        if self._sending is not None:
            self._sending.cancel()
        head, self._head, self._sending = self._head, b"", None
        return head


class _Timers:
    """What happens to a connection if nothing else does before; one of each name at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[str, asyncio.TimerHandle] = {}

    def begin(self, name: str, seconds: float, what: Callable[[], None]) -> None:
        """Begin one, unless it runs already."""
        if name not in self._running:
            self._running[name] = self._loop.call_later(seconds, what)

    def end(self, *names: str) -> None:
        """End those that run."""
        for name in names:
            if (timer := self._running.pop(name, None)) is not None:
                timer.cancel()
