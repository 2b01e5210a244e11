"""The outermost layer: every request has an id, is counted and told, and every answer makes browsers careful.

It is one layer for three ends, since each layer costs a request twice: on its way in, and with every message
on its way out.
"""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cert.core.correlation import correlated
from cert.observability.logging import get_logger
from cert.services.common.correlation import places_of, trace_id_of, traced
from cert.services.common.errors import GENERIC, problem_bytes
from cert.services.common.head import headers_of
from cert.services.common.headers import with_care
from cert.services.common.http_metrics import HttpMetrics

__all__ = ["BrokenOffError", "EdgeMiddleware"]


class BrokenOffError(Exception):
    """An answer that had begun could not be finished; the text is the kind of what went wrong."""


class EdgeMiddleware:
    """Runs a request under the id of ``X-Request-ID``, else of ``traceparent``, else a new one.

    The id goes back in ``X-Request-ID`` and into logs and events. An exception that reaches this place is a
    defect: its kind and place go to the log (its text may hold a prompt), and a generic 500 to the caller.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._log = get_logger("cert.services")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        parent = headers.get("traceparent")
        trace = None if parent is None else trace_id_of(parent)
        with traced(trace), correlated(headers.get("x-request-id") or trace) as identifier:
            await self._serve(scope, receive, send, identifier)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, identifier: str) -> None:
        begun, first, status = time.perf_counter(), 0.0, 0

        async def told(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status, first = message["status"], time.perf_counter()
                # What an answer names itself is of a server that was asked, and goes.
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"x-request-id"]
                kept.append((b"x-request-id", identifier.encode()))
                message["headers"] = with_care(scope, kept)
            await send(message)

        self._metrics.in_flight.inc()
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
            self._metrics.in_flight.dec()
            # The template of the route, never the path: that is the caller's to choose.
            route, ended = getattr(scope.get("route"), "path", "unmatched"), time.perf_counter()
            self._metrics.count(scope["method"], route, status or 500, (first or ended) - begun)
            seconds = round(ended - begun, 6)
            self._log.info("request", method=scope["method"], route=route, status=status, seconds=seconds)


async def _tell(send: Send, status: int, code: str, detail: str, retry_after: float | None = None) -> None:
    fields, body = problem_bytes(status, code, detail, retry_after=retry_after)
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
