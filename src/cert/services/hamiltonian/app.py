"""The Hamiltonian service as an application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from fastapi import APIRouter, FastAPI

from cert.core.config import Settings
from cert.core.health import HealthRegistry
from cert.services.common.app import create_base
from cert.services.common.drain import drain_of
from cert.services.hamiltonian.configured import options_of
from cert.services.hamiltonian.models import ModelTable
from cert.services.hamiltonian.options import HamiltonianOptions
from cert.services.hamiltonian.passthrough.engine import Engine
from cert.services.hamiltonian.passthrough.routes import router as passthrough
from cert.services.hamiltonian.recent import RecentAnalyses
from cert.services.hamiltonian.routes import analyses, analyze, calibrations
from cert.services.hamiltonian.state import HamiltonianState, LiveStreams
from cert.services.page import page_router
from cert.trajectory.api import HamiltonianMonitor

__all__ = ["create_app"]

# Of the time for the end, what answers of a chat may still take before they are told of it; the server
# cancels what is left after four fifths.
_PATIENCE = 0.5
_DESCRIPTION = """Watches language models at work: how far each answer can be trusted, token by token.

A verdict is `pass`, `fail`, `undecided` or `not_measured`. It comes with a promise where an operator has
configured a certificate; see `/v1/calibrations`. `/v1/chat/completions` speaks the OpenAI API: an application
is watched by changing its base URL.
"""


def create_app(
    settings: Settings | None = None,
    *,
    monitors: Mapping[str, HamiltonianMonitor] | None = None,
    options: HamiltonianOptions | None = None,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the service.

    Args:
        settings: all settings; nothing is read from the environment without them.
        monitors: models by the names that requests use, in place of those that the options name.
        options: in place of those that the settings say.
        routers: further routes, such as the page's.

    Raises:
        CertError: a setting that cannot be right.
    """
    settings = Settings() if settings is None else settings
    options = options_of(settings) if options is None else options
    if monitors is None:
        models = ModelTable.of(options.models, cache_size=options.cache_size)
    else:
        models = ModelTable(monitors, cache_size=options.cache_size)
    health = HealthRegistry()
    health.register("models", models.health)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = (
            None if options.upstream is None else Engine(options.upstream, breaker=settings.breaker.policy())
        )
        async with _recent(options, health) as recent:
            live = LiveStreams(_PATIENCE * settings.service.shutdown_seconds)
            app.state.cert = state = HamiltonianState(options, models, recent, engine, live)
            forget = drain_of(app).tell(state.live.end)
            await asyncio.to_thread(models.load)
            try:
                yield
            finally:
                forget()
                if engine is not None:
                    await engine.close()
                if monitors is None:  # others are their maker's to end
                    await asyncio.to_thread(models.close)

    return create_base(
        settings,
        title="CERT Hamiltonian service",
        description=_DESCRIPTION,
        routers=[
            analyze.router,
            analyses.router,
            calibrations.router,
            passthrough,
            page_router("hamiltonian"),
            *routers,
        ],
        lifespan=lifespan,
        health=health,
        direct=analyze.direct,
    )


@contextlib.asynccontextmanager
async def _recent(options: HamiltonianOptions, health: HealthRegistry) -> AsyncIterator[RecentAnalyses]:
    if options.keeping is None:
        yield RecentAnalyses(options.recent, options.recent_bytes)
        return
    from cert.services.hamiltonian.kept import opened  # without a database none of its library is loaded

    async with opened(options.keeping, options.recent, options.recent_bytes) as kept:
        # Not critical: answers go on without it.
        remove = health.register("analyses", kept.health, critical=False)
        try:
            yield kept
        finally:
            remove()
