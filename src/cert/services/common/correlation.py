"""Outermost of all: the id of a request, what nobody foresaw, and the log line of it."""

from __future__ import annotations

import re
import time
import traceback
from pathlib import Path
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cert.core.correlation import correlated
from cert.services.common.errors import GENERIC, problem_bytes

__all__ = ["CorrelationMiddleware", "trace_id_of"]

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def trace_id_of(header: str) -> str | None:
    """Return the trace id of a W3C ``traceparent``, or ``None`` if it is not one."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None or set(match[1]) == {"0"} or set(match[2]) == {"0"}:
        return None
    return match[1]


def _places(error: BaseException) -> list[str]:
    """Where an exception came through, innermost last: files and lines, no text."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


class CorrelationMiddleware:
    """Runs a request under the id of ``X-Request-ID``, else of ``traceparent``, else a new one.

    The id goes back in ``X-Request-ID`` and into logs and events. An exception that reaches this place is a
    defect: its kind and place go to the log (its text may hold a prompt), and a generic 500 to the caller.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = structlog.get_logger("cert.services")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        wanted = headers.get("x-request-id") or trace_id_of(headers.get("traceparent", ""))
        with correlated(wanted) as identifier:
            await self._serve(scope, receive, send, identifier)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, identifier: str) -> None:
        begun, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*kept, (b"x-request-id", identifier.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception as error:
            self._log.error("request_failed", error=type(error).__name__, at=_places(error))
            if status:
                raise  # the answer has begun: the connection has to break
            fields, body = problem_bytes(500, "internal", GENERIC)
            await told({"type": "http.response.start", "status": 500, "headers": fields})
            await send({"type": "http.response.body", "body": body})
        else:
            if (known := scope.get("cert.error")) is not None:
                self._log.warning("request_error", status=status, code=known.code, error=type(known).__name__)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            seconds = round(time.perf_counter() - begun, 6)
            self._log.info("request", method=scope["method"], route=route, status=status, seconds=seconds)
