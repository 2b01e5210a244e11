"""How an app of ours is put together: the order of its layers, written once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry

from cert._version import __version__
from cert.core.config import ServiceSettings, Settings
from cert.core.health import HealthRegistry
from cert.services.common.app_state import Base
from cert.services.common.direct import Direct, DirectMiddleware
from cert.services.common.edge import EdgeMiddleware
from cert.services.common.errors import PROBLEM, install_handlers
from cert.services.common.health import health_router
from cert.services.common.http_metrics import HttpMetrics
from cert.services.common.keys import KeyFile, Keys
from cert.services.common.limits import Limits, LimitsMiddleware
from cert.services.common.policy import AccessPolicy, AuthenticationMiddleware
from cert.services.common.reference import reference_router
from cert.services.common.sessions import Sessions
from cert.services.common.sign_in import sign_in_router

__all__ = ["Base", "create_base"]


def create_base(
    settings: Settings,
    *,
    title: str,
    description: str,
    routers: Sequence[APIRouter],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    health: HealthRegistry | None = None,
    direct: Sequence[Direct] = (),
) -> FastAPI:
    """Return an app with everything that both services share.

    Layers from outside: the edge (id, log, metrics, security headers), who asks, limits, routes. Who asks
    comes before the limits, so that nobody without a key can fill the queue or have a body read.

    Args:
        settings: all of them; `cert.core.config.load_settings` reads them.
        title: of the service, for the OpenAPI document.
        description: the same.
        routers: the service's own routes.
        lifespan: makes the service's resources as ``app.state.cert`` and ends them.
        health: the checks; new ones by default.
        direct: POST routes of the routers that plain requests reach past the framework.

    Raises:
        ConfigurationError: others would reach a service without keys, or the file of keys is none.
    """
    service = settings.service
    keys = None if service.api_keys_file is None else Keys(KeyFile(service.api_keys_file))
    policy = AccessPolicy(service.host, keys, service.allow_anonymous, await_keys=service.await_api_keys)
    health = HealthRegistry() if health is None else health
    base = Base(settings, policy, Sessions(service.session_seconds), health, CollectorRegistry())
    app = FastAPI(
        title=title,
        description=description,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads scripts from elsewhere; ours is `reference_router`
        redoc_url=None,
        openapi_url="/openapi.json",
        # Spans and metrics are FastAPI's own; its logs would hold messages of exceptions, which hold prompts.
        telemetry={"logs": False},
        responses={
            "default": {"description": "a problem (RFC 9457)", "content": {PROBLEM: {"schema": _SCHEMA}}}
        },
    )
    app.state.base = base
    install_handlers(app)
    # Routes are tried in turn: those that are asked most come first.
    for router in (*routers, health_router(health), sign_in_router(), reference_router()):
        app.include_router(router)
    # The last that is added is the outermost.
    if direct:
        app.add_middleware(DirectMiddleware, routes=direct)
    metrics = HttpMetrics(base.registry)
    app.add_middleware(LimitsMiddleware, limits=_limits(service), metrics=metrics)
    app.add_middleware(AuthenticationMiddleware, policy=policy, sessions=base.sessions)
    app.add_middleware(EdgeMiddleware, metrics=metrics)
    return app


def _limits(service: ServiceSettings) -> Limits:
    return Limits(
        body_bytes=service.max_body_bytes,
        body_seconds=service.body_seconds,
        concurrent=service.max_concurrent,
        queue=service.max_queue,
        streams=service.max_streams,
        request_seconds=service.request_seconds,
        stream_seconds=service.stream_seconds,
    )


_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "correlation_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "correlation_id": {"type": ["string", "null"]},
        "hint": {"type": "string"},
        "retry_after": {"type": "number"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
