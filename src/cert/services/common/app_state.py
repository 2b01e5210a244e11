"""What every service has beside its own resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from prometheus_client import CollectorRegistry
from starlette.requests import Request

from cert.core.config import Settings
from cert.core.health import HealthRegistry
from cert.services.common.policy import AccessPolicy
from cert.services.common.sessions import Sessions

__all__ = ["Base", "base_of"]


@dataclass(frozen=True)
class Base:
    """What every service has; an app keeps it as ``app.state.base``.

    Attributes:
        settings: all of them.
        policy: who is let in.
        sessions: sign-ins to the page.
        health: the checks; a service registers its own.
        registry: of the metrics, served on a port of their own.
    """

    settings: Settings
    policy: AccessPolicy
    sessions: Sessions
    health: HealthRegistry
    registry: CollectorRegistry


async def base_of(request: Request) -> Base:
    """Return that of the service which a request came to."""
    return cast(Base, request.app.state.base)
