"""The Coordination service as an application."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta

from fastapi import APIRouter, FastAPI

from cert.coordination.chat import ChatClient
from cert.coordination.drift import DriftMonitor
from cert.coordination.store.databases import open_database
from cert.core.config import Settings
from cert.core.errors import StoreError
from cert.core.health import HealthRegistry
from cert.core.redis_scripts import RedisScripts
from cert.observability.logging import get_logger
from cert.services.common.app import create_base
from cert.services.common.drain import drain_of
from cert.services.coordination.budgets import TenantBudgets
from cert.services.coordination.chats import Chats
from cert.services.coordination.drift import DriftWatch
from cert.services.coordination.jobs.answers import SealedStore
from cert.services.coordination.jobs.claims import JobClaims
from cert.services.coordination.jobs.database import places_of
from cert.services.coordination.jobs.ledger import Ledger
from cert.services.coordination.jobs.runner import JobRunner
from cert.services.coordination.jobs.store import JobStore
from cert.services.coordination.jobs.table import JobTable
from cert.services.coordination.measuring import Measuring
from cert.services.coordination.options import CoordinationOptions, options_of
from cert.services.coordination.routes import measurements, money, watching
from cert.services.coordination.state import CoordinationState
from cert.services.page import page_router
from cert.services.sealed.cipher import Cipher
from cert.services.sealed.renewal import renew_seals
from cert.services.sealed.resealing import Resealed

__all__ = ["create_app", "when_there"]

_DESCRIPTION = """Measures whether a team of agents is worth it, against one agent that spends the same.

A measurement is a job: it goes on without its caller, survives the end of a process, and pays for no answer
twice. Verdicts are `worth_it`, `not_worth_it` and `not_enough_data`.
"""
_MOST_SECONDS_BETWEEN_CLEANINGS = 600.0
_DATABASE_SECONDS = 10.0


def create_app(
    settings: Settings | None = None,
    *,
    clients: Mapping[str, ChatClient] | None = None,
    options: CoordinationOptions | None = None,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the service.

    Args:
        settings: all settings; nothing is read from the environment without them.
        clients: models by the names that requests use, in place of those that the options name.
        options: in place of those that the settings say.
        routers: further routes, such as the page's.

    Raises:
        CertError: a setting that cannot be right.
    """
    settings = Settings() if settings is None else settings
    options = options_of(settings) if options is None else options
    health = HealthRegistry()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _resources(options, clients) as (state, cleaning):
            app.state.cert = state
            removals = [
                drain_of(app).tell(state.runner.drain),
                health.register("jobs", _checked(state.jobs)),
                health.register("anthropic", state.chats.health, critical=False),
            ]
            state.runner.start()
            keeping = asyncio.create_task(cleaning())
            try:
                yield
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
                for remove in removals:
                    remove()
                await state.runner.stop()

    return create_base(
        settings,
        title="CERT Coordination service",
        description=_DESCRIPTION,
        routers=[measurements.router, money.router, watching.router, page_router("coordination"), *routers],
        lifespan=lifespan,
        health=health,
    )


async def when_there(prepare: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Prepare a database; one that comes up at the same time as this service is waited for.

    Raises:
        StoreError: it is not there when the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await prepare()
        except StoreError as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            log = get_logger("cert.services.coordination")
            log.warning("waiting_for_database", error=error.code, seconds_left=round(left, 1))
            await asyncio.sleep(min(1.0, left))


@contextlib.asynccontextmanager
async def _resources(
    options: CoordinationOptions, clients: Mapping[str, ChatClient] | None
) -> AsyncIterator[tuple[CoordinationState, _Cleaning]]:
    url = None if options.database_url is None else options.database_url.get_secret_value()
    cipher = Cipher.of_text(None if options.key is None else options.key.get_secret_value())
    redis = None
    if options.redis_url is not None:
        redis = RedisScripts(options.redis_url.get_secret_value())
    async with contextlib.AsyncExitStack() as stack:
        places = stack.enter_context(places_of(url))
        table = JobTable(places.jobs, cipher)
        stack.push_async_callback(table.aclose)
        comes_later = url is not None and not url.startswith("sqlite:")
        await when_there(table.prepare, options.database_wait_seconds if comes_later else 0.0)
        drift = DriftWatch(DriftMonitor(places.drift))
        stack.push_async_callback(drift.aclose)
        chats = Chats(options, redis, clients)
        stack.push_async_callback(chats.aclose)
        ledger = Ledger(table)
        budgets = TenantBudgets(options, ledger, redis)

        kept = open_database(places.answers, _DATABASE_SECONDS)
        stack.push_async_callback(kept.aclose)

        def answers() -> SealedStore:
            return SealedStore(places.answers, cipher, database=kept, lease_seconds=options.lease_seconds)

        jobs = JobStore(table, options.queue)
        runner = JobRunner(
            JobClaims(table, options.lease_seconds),
            Measuring(chats, budgets, answers, drift),
            options.concurrent,
        )
        state = CoordinationState(options, jobs, runner, chats, budgets, ledger, drift)
        yield state, _Cleaning(table, jobs, answers, options.retention_seconds)


class _Cleaning:
    """Deletes what was kept long enough, and seals anew what an earlier key sealed, now and then."""

    def __init__(
        self, table: JobTable, jobs: JobStore, answers: Callable[[], SealedStore], retention_seconds: float
    ) -> None:
        self._table = table
        self._jobs = jobs
        self._answers = answers
        self._retention = retention_seconds

    async def __call__(self) -> None:
        """Do it for ever."""
        while True:
            try:
                await self.clean()
                await renew_seals(self._table, self._reseal)
            except StoreError as error:
                get_logger("cert.services.coordination").warning("retention_failed", error=error.code)
            await asyncio.sleep(min(_MOST_SECONDS_BETWEEN_CLEANINGS, self._retention / 4))

    async def clean(self) -> None:
        """Delete jobs that ended, and answers that were made, before the retention."""
        await self._jobs.forget(self._retention)
        # An answer that a job at work was paid for must outlive it, whenever it was made.
        oldest = await self._jobs.oldest_open()
        age = self._retention if oldest is None else max(self._retention, time.time() - oldest)
        async with self._answers() as answers:
            await answers.prune(timedelta(seconds=age))

    async def _reseal(self) -> Resealed:
        async with self._answers() as answers:
            return await self._table.reseal() + await answers.reseal()


def _checked(jobs: JobStore) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        await jobs.counts()

    return check
