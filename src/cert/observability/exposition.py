"""The port from which Prometheus reads the metrics."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from cert.core.errors import ConfigurationError

__all__ = ["MetricsServer", "start_metrics_server"]


class MetricsServer:
    """A running server of metrics; closes as a context manager or by `close`.

    Attributes:
        port: where it listens; the one that the system chose if 0 was asked for.
    """

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self.port = int(server.server_port)
        self._server = server
        self._thread = thread

    def close(self) -> None:
        """Stop listening. May be called again."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_metrics_server(
    registry: CollectorRegistry, port: int = 9090, host: str = "127.0.0.1"
) -> MetricsServer:
    """Serve a registry's metrics on a thread of its own, as text or OpenMetrics, whichever is asked for.

    Exemplars are in OpenMetrics only. The default host is this machine's own; a container whose Prometheus
    is elsewhere says ``0.0.0.0``.

    Raises:
        ConfigurationError: the port is in use, not allowed, or out of range; the host is not this machine.
    """
    if type(port) is not int or not 0 <= port <= 65535:
        raise ConfigurationError(f"{port!r} is no port", hint="set CERT_METRICS_PORT to 0 … 65535")
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"metrics cannot be served on {host}:{port}: {reason}",
            hint="choose another CERT_METRICS_PORT, or stop what uses this one",
            context={"host": host, "port": port},
        ) from error
    return MetricsServer(server, thread)
