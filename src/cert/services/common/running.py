"""A service as a process: one worker, metrics on a port of their own, an end that finishes work."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from cert.core.errors import CertError, ConfigurationError
from cert.core.events import default_hub
from cert.observability.exposition import MetricsServer, start_metrics_server
from cert.observability.logging import get_logger
from cert.observability.metrics import metrics_observer
from cert.services.common.app import Base
from cert.services.common.drain import drain_of
from cert.services.common.protocol import HEAD_BYTES, guarded_protocol

__all__ = ["Bound", "ServiceServer", "serve", "server_config"]

# Of the time for the end, what requests in hand may take; the rest is for resources to be closed.
_SHARE_OF_REQUESTS: Final = 0.8
# Exit code of a process whose end took too long, as a shell tells one that was killed (128 + SIGKILL).
_TOOK_TOO_LONG: Final = 137


@dataclass(frozen=True)
class Bound:
    """Where a service listens.

    Attributes:
        url: of the service.
        metrics_url: of the metrics, ``None`` if they are not served.
    """

    url: str
    metrics_url: str | None


class ServiceServer(uvicorn.Server):
    """uvicorn's server, which tells the app of its end in time and keeps the end within its time.

    Args:
        config: as `server_config` makes it.
        app: whose `Drain` is told.
        shutdown_seconds: from the signal to the end of the process, whatever is in hand then.
        ready: called when requests are answered.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        shutdown_seconds: float,
        ready: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._seconds = shutdown_seconds
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        # What is there now (a model, its libraries: half a million objects) stays: a full collection of
        # garbage that goes through all of it holds every request up.
        gc.collect()
        gc.freeze()
        if self.started and self._ready is not None:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell those who have work in hand, then wait for it and for nothing beyond the time."""
        drain_of(self._app).begin()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin the end at the first signal; the clock of the end begins with it."""
        if not self.should_exit:
            threading.Thread(target=self._watch, name="cert-end", daemon=True).start()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take SIGINT and SIGTERM; an end that they asked for is no failure of the process."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    def _watch(self) -> None:
        # A thread of a model's or a driver's cannot be cancelled, and would hold the process for good, beyond
        # the end of the server too. This thread is a daemon: where the process ends by itself, it never acts.
        time.sleep(self._seconds)
        get_logger("cert.services").error("end_took_too_long", setting="CERT_SHUTDOWN_SECONDS")
        logging.shutdown()
        os._exit(_TOOK_TOO_LONG)


def serve(
    app: FastAPI, *, port: int, metrics_port: int | None, ready: Callable[[Bound], object] | None = None
) -> None:
    """Serve an app until SIGINT or SIGTERM, then finish what is in hand.

    Limits are of a process, so there is one worker; more is more replicas.

    Args:
        app: as `create_base` makes it.
        port: where; 0 is any.
        metrics_port: where metrics are; ``None`` is nowhere.
        ready: called when requests are answered.

    Raises:
        ConfigurationError: an address is taken or not allowed.
        CertError: what the service needs could not be made.
    """
    base: Base = app.state.base
    service = base.settings.service
    with contextlib.ExitStack() as exits:
        listener = exits.enter_context(contextlib.closing(_listener(service.host, port)))
        metrics = _metrics(exits, base, metrics_port)
        bound = _bound(listener, service.metrics_host, metrics)
        failures = exits.enter_context(_failures_of(app))
        server = ServiceServer(
            server_config(app), app, service.shutdown_seconds, None if ready is None else lambda: ready(bound)
        )
        try:
            server.run(sockets=[listener])
        except SystemExit:
            if failures:
                raise failures[0] from None
            raise


def server_config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves an app of ours; its own log lines would name addresses and paths."""
    base: Base = app.state.base
    service = base.settings.service
    return uvicorn.Config(
        app,
        http=guarded_protocol(service.body_seconds, most_connections=_most_connections(service)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(service.trusted_proxies),
        forwarded_allow_ips=list(service.trusted_proxies),
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=max(1, int(service.shutdown_seconds * _SHARE_OF_REQUESTS)),
    )


def _most_connections(service: Any) -> int:
    # Twice what can be at work or wait, so that idle connections of browsers find a place too.
    return int(2 * (service.max_streams + service.max_concurrent + service.max_queue))


@contextlib.contextmanager
def _failures_of(app: FastAPI) -> Iterator[list[CertError]]:
    """Collect why the app did not start: the server itself would log it with a traceback, and exit with 3."""
    failures: list[CertError] = []
    made = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def told(of: Any) -> Any:
        log = logging.getLogger("uvicorn.error")
        context = made(of)
        try:
            state = await context.__aenter__()
        except CertError as error:
            failures.append(error)
            log.disabled = True  # what it would say is said better by whoever called `serve`
            raise
        try:
            yield state
        finally:
            await context.__aexit__(None, None, None)

    app.router.lifespan_context = told
    try:
        yield failures
    finally:
        app.router.lifespan_context = made
        logging.getLogger("uvicorn.error").disabled = False


def _metrics(exits: contextlib.ExitStack, base: Base, port: int | None) -> MetricsServer | None:
    hub = default_hub()
    exits.callback(hub.observe(metrics_observer(base.registry, hub=hub)))
    if port is None:
        return None
    return exits.enter_context(start_metrics_server(base.registry, port, base.settings.service.metrics_host))


def _bound(listener: socket.socket, metrics_host: str, metrics: MetricsServer | None) -> Bound:
    host, port = listener.getsockname()[:2]
    at = None if metrics is None else f"http://{_shown(metrics_host)}:{metrics.port}/metrics"
    return Bound(f"http://{_shown(host)}:{port}", at)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listener(host: str, port: int) -> socket.socket:
    """Take the address before anything is loaded, so that a port in use is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, the event loop sees TCP in each connection and sends small pieces at once:
    # the end of an answer would else wait for the reader's delayed acknowledgement, some 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"the service cannot listen on {host}:{port}: {error.strerror or error}",
            hint="another CERT_PORT or --port, another CERT_HOST or --host, or stop what uses this one",
            context={"host": host, "port": port},
        ) from error
    listener.setblocking(False)
    return listener
