"""Metrics of requests, by route and class of status: a bounded number of series whatever is asked."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HttpMetrics", "HttpMetricsMiddleware"]

_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    """The collectors, in a registry of one service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "cert_http_requests",
            "Requests answered, by route and class of status.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "cert_http_request_seconds",
            "Seconds from a request to the beginning of its answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "cert_http_requests_in_flight",
            "Requests and streams that are not at their end.",
            registry=registry,
        )


class HttpMetricsMiddleware:
    """Counts requests."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, first = time.perf_counter(), 500, 0.0

        async def seen(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status, first = message["status"], time.perf_counter()
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, seen)
        finally:
            self._metrics.in_flight.dec()
            # The template of the route, never the path: that is the caller's to choose.
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, f"{status // 100}xx").inc()
            self._metrics.seconds.labels(method, route).observe((first or time.perf_counter()) - begun)
