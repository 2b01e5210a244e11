"""The id of a request, from its headers into logs and back; what nobody foresaw; the log line of it."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import traceback
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cert.core.correlation import correlated, correlation_id
from cert.observability.logging import get_logger
from cert.services.common.errors import GENERIC, problem_bytes
from cert.services.common.head import headers_of

__all__ = ["BrokenOffError", "CorrelationMiddleware", "outgoing_headers", "places_of", "trace_id_of"]

_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_trace: ContextVar[str | None] = ContextVar("cert_trace_id", default=None)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def trace_id_of(header: str) -> str | None:
    """Return the trace id of a W3C ``traceparent``, or ``None`` if it is not one."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None or set(match[1]) == {"0"} or set(match[2]) == {"0"}:
        return None
    return match[1]


def places_of(error: BaseException) -> list[str]:
    """Return where an exception came through, innermost last: files and lines, and no text of its own."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def outgoing_headers() -> dict[str, str]:
    """Return the headers that carry the request in hand on to a server that we call.

    ``traceparent`` goes on with the trace id that came, or with the correlation id where that can be one.
    """
    identifier = correlation_id()
    if identifier is None:
        return {}
    trace = _trace.get() or (identifier if _TRACE_ID.fullmatch(identifier) else None)
    headers = {"X-Request-ID": identifier}
    if trace is not None and set(trace) != {"0"}:
        headers["traceparent"] = f"00-{trace}-{secrets.token_hex(8)}-00"
    return headers


class BrokenOffError(Exception):
    """An answer that had begun could not be finished; the text is the kind of what went wrong."""


class CorrelationMiddleware:
    """Runs a request under the id of ``X-Request-ID``, else of ``traceparent``, else a new one.

    The id goes back in ``X-Request-ID`` and into logs and events. An exception that reaches this place is a
    defect: its kind and place go to the log (its text may hold a prompt), and a generic 500 to the caller.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = get_logger("cert.services")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        parent = headers.get("traceparent")
        trace = None if parent is None else trace_id_of(parent)
        token = _trace.set(trace)
        try:
            with correlated(headers.get("x-request-id") or trace) as identifier:
                await self._serve(scope, receive, send, identifier)
        finally:
            _trace.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, identifier: str) -> None:
        begun, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # What an answer names itself is of a server that was asked, and goes.
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"x-request-id"]
                kept.append((b"x-request-id", identifier.encode()))
                message["headers"] = kept
            await send(message)

        try:
            await self._app(scope, receive, told)
        except asyncio.CancelledError:
            # Nothing else cancels a request as a whole than the end of the service.
            if status:
                raise
            await _tell(told, 503, "ending", "the service is about to end", 5.0)
        except Exception as error:
            self._log.error("request_failed", error=type(error).__name__, at=places_of(error))
            if status:
                # The connection has to break. The server logs what reaches it, text and all.
                raise BrokenOffError(type(error).__name__) from None
            await _tell(told, 500, "internal", GENERIC)
        else:
            if (known := scope.get("cert.error")) is not None:
                self._log.warning("request_error", status=status, code=known.code, error=type(known).__name__)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            seconds = round(time.perf_counter() - begun, 6)
            self._log.info("request", method=scope["method"], route=route, status=status, seconds=seconds)


async def _tell(send: Send, status: int, code: str, detail: str, retry_after: float | None = None) -> None:
    fields, body = problem_bytes(status, code, detail, retry_after=retry_after)
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
