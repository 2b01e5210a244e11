"""A service as a process: one worker, metrics on a port of their own, an end that finishes work."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI

from cert.core.errors import ConfigurationError
from cert.core.events import default_hub
from cert.observability.exposition import MetricsServer, start_metrics_server
from cert.observability.metrics import metrics_observer
from cert.services.common.app import Base
from cert.services.common.protocol import guarded_protocol

__all__ = ["Bound", "serve"]

# Connections beyond it are answered 503 by the server itself.
_MOST_CONNECTIONS = 8_192
_HEAD_BYTES = 32_768


class Bound:
    """Where a service listens.

    Attributes:
        url: of the service.
        metrics_url: of the metrics, ``None`` if they are not served.
    """

    def __init__(self, url: str, metrics_url: str | None) -> None:
        self.url = url
        self.metrics_url = metrics_url


def serve(
    app: FastAPI, *, port: int, metrics_port: int | None, ready: Callable[[Bound], object] | None = None
) -> None:
    """Serve an app until SIGINT or SIGTERM, then finish what is in hand.

    Limits are of a process, so there is one worker; more is more replicas.

    Args:
        app: as `create_base` makes it.
        port: where; 0 is any.
        metrics_port: where metrics are; ``None`` is nowhere.
        ready: called once the address is taken, before the first request.

    Raises:
        ConfigurationError: an address is taken or not allowed.
    """
    base: Base = app.state.base
    service = base.settings.service
    with contextlib.ExitStack() as exits:
        listener = exits.enter_context(contextlib.closing(_listen(service.host, port)))
        metrics = _metrics(exits, base, metrics_port)
        config = uvicorn.Config(
            app,
            http=guarded_protocol(service.body_seconds),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_graceful_shutdown=int(service.shutdown_seconds),
        )
        if ready is not None:
            host, taken = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            at = None if metrics is None else f"http://{service.metrics_host}:{metrics.port}/metrics"
            ready(Bound(f"http://{shown}:{taken}", at))
        uvicorn.Server(config).run(sockets=[listener])


def _metrics(exits: contextlib.ExitStack, base: Base, port: int | None) -> MetricsServer | None:
    exits.enter_context(_observed(metrics_observer(base.registry)))
    if port is None:
        return None
    return exits.enter_context(start_metrics_server(base.registry, port, base.settings.service.metrics_host))


@contextlib.contextmanager
def _observed(observer: Any) -> Iterator[None]:
    forget = default_hub().observe(observer)
    try:
        yield
    finally:
        forget()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"the service cannot listen on {host}:{port}: {error.strerror or error}",
            hint="another CERT_PORT or --port, or stop what uses this one",
            context={"host": host, "port": port},
        ) from error
    listener.setblocking(False)
    return listener
