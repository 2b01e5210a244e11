"""Metrics of requests, by route and class of status: a bounded number of series whatever is asked."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cert.observability.catalogue import HTTP_CATALOGUE, HTTP_LABELS
from cert.observability.labels import Fixed

__all__ = ["HttpMetrics"]

_BY_NAME: Final = {metric.name: metric for metric in HTTP_CATALOGUE}


class HttpMetrics:
    """The instruments, in the registry of one service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = _BY_NAME["cert_http_requests_total"]
        self.requests = Counter(requests.name, requests.help, requests.labels, registry=registry)
        seconds = _BY_NAME["cert_http_request_duration_seconds"]
        self.seconds = Histogram(
            seconds.name, seconds.help, seconds.labels, buckets=seconds.buckets, registry=registry
        )
        in_flight = _BY_NAME["cert_http_requests_in_flight"]
        self.in_flight = Gauge(in_flight.name, in_flight.help, registry=registry)
        waiting, limit = _BY_NAME["cert_http_requests_waiting"], _BY_NAME["cert_http_queue_limit"]
        self.waiting = Gauge(waiting.name, waiting.help, registry=registry)
        self.queue_limit = Gauge(limit.name, limit.help, registry=registry)
        self.method = Fixed(_values("method"))
        self.status = Fixed(_values("status"))
        # Of what the application declares, so that there are as few as there are series.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: whatever the caller wrote; an unknown one counts as ``other``.
            route: the template of the route, never the path: that is the caller's to choose.
            status: of the answer.
            seconds: until the answer began.
        """
        known = self.method(method)
        children = self._children.get((known, route, status // 100))
        if children is None:
            shown = self.status(f"{status // 100}xx")
            children = (self.requests.labels(known, route, shown), self.seconds.labels(known, route))
            self._children[known, route, status // 100] = children
        children[0].inc()
        children[1].observe(seconds)


def _values(label: str) -> tuple[str, ...]:
    bound = HTTP_LABELS[label][1]
    assert isinstance(bound, tuple)
    return bound
