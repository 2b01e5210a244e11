"""Recent analyses that outlive the process and are shared by replicas.

The database is written to before an answer that names an analysis is sent. While it cannot be used, answers
are measured and sent all the same; what is not kept says so, and is written as soon as that is possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from cert.core.errors import CertError, ConfigurationError, StoreError, StoreUnusableError
from cert.core.events import EventHub, default_hub
from cert.core.health import Finding
from cert.core.outage import Outage
from cert.observability.logging import get_logger
from cert.services.hamiltonian.kept_store import AnalysisStore, Kept, Packed
from cert.services.hamiltonian.kept_writing import GroupWriter
from cert.services.hamiltonian.options import KeepingOptions
from cert.services.hamiltonian.recent import Entry, Page, RecentAnalyses, Source
from cert.services.sealed.cipher import Cipher
from cert.services.sealed.renewal import renew_seals
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["KeptAnalyses", "opened"]

_COMPONENT: Final = "analyses"
_MODE: Final = "memory_only"
_LOOK_SECONDS: Final = 1.0
_MOST_SECONDS_BETWEEN_CLEANINGS: Final = 60.0
_SECONDS_BETWEEN_RENEWALS: Final = 600.0  # each looks at every row, where there are several keys


@contextlib.asynccontextmanager
async def opened(keeping: KeepingOptions, size: int, most_bytes: int) -> AsyncIterator[KeptAnalyses]:
    """Open what an operator configured, for as long as the block runs.

    Raises:
        ConfigurationError, StoreUnusableError: as `KeptAnalyses.running`.
    """
    cipher = Cipher.of_text(keeping.key.get_secret_value(), setting="CERT_ANALYSES_KEY")
    store = AnalysisStore(
        keeping.database_url.get_secret_value(),
        cipher,
        retention_seconds=keeping.retention_seconds,
        most=keeping.most,
        timeout=keeping.wait_seconds,
    )
    clean = min(_MOST_SECONDS_BETWEEN_CLEANINGS, keeping.retention_seconds / 4)
    kept = KeptAnalyses(store, size, most_bytes, wait_seconds=keeping.wait_seconds, clean_seconds=clean)
    async with kept.running():
        yield kept


class KeptAnalyses(RecentAnalyses):
    """`RecentAnalyses` over a database; memory has the latest, so that a repeated answer is written once.

    Lists come from the database alone: in the order in which analyses were made, whichever replica made
    them. A repetition from a cache does not go to their head, since it is not written.

    Args:
        store: the database.
        size, most_bytes: of memory, as of `RecentAnalyses`.
        wait_seconds: for a write, before an answer is sent without.
        clean_seconds: between two deletions of what is too old.
        hub: hears when the database fails, and when it is back.
    """

    def __init__(
        self,
        store: AnalysisStore,
        size: int = 200,
        most_bytes: int = 256 * 2**20,
        *,
        wait_seconds: float = 2.0,
        clean_seconds: float = _MOST_SECONDS_BETWEEN_CLEANINGS,
        hub: EventHub | None = None,
    ) -> None:
        super().__init__(size, most_bytes)
        self._store = store
        self._wait, self._clean = wait_seconds, clean_seconds
        self._outage = Outage(_COMPONENT, _MODE, default_hub() if hub is None else hub)
        self._writer: GroupWriter[Packed, Kept] = GroupWriter(store.keep)
        self._writes: dict[Entry, asyncio.Task[None]] = {}
        self._given_up: set[Entry] = set()
        self._prepared = self._behind = False
        self._renew_at = 0.0
        self._log = get_logger("cert.services.hamiltonian")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the database in order for as long as the block runs, and write the last of it at its end.

        Raises:
            ConfigurationError: a key is missing.
            StoreUnusableError: somebody has to act. A database that is out for now is waited for.
        """
        try:
            await self._prepare()
        except (StoreUnusableError, ConfigurationError):
            await self._store.aclose()
            raise
        except StoreError as error:
            self._failed(error)
        keeping = asyncio.create_task(self._keeping())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self._last()
            if lost := len(self._not_kept()):
                self._log.error("analyses_lost", count=lost)
            await self._store.aclose()

    async def health(self) -> Finding:
        """Return how the database is; degraded at most, since answers go on without it."""
        if self._outage.mode is not None:
            return Finding("degraded", "not_kept", "analyses are in memory alone")
        await self._store.check()
        return Finding("healthy")

    async def keep(
        self,
        tenant: str,
        analysis: TrajectoryAnalysis,
        *,
        model: str,
        source: Source,
        group: str | None = None,
    ) -> Entry:
        """Keep an analysis and return its entry, which says whether it outlives the process.

        The first time it is in the database when this returns; a repetition from the cache writes nothing.
        """
        entry = self._noted(tenant, analysis, model=model, source=source, group=group)
        if not entry.kept:
            await self._write(tenant, entry)
        return entry

    async def get(self, tenant: str, identifier: str) -> Entry:
        """Return one, whichever replica made it.

        Raises:
            NotFoundError: as `RecentAnalyses.get`.
            StoreError: the database cannot be read, and the analysis is not of this process alone.
        """
        known = self._known(tenant, identifier)
        if known is None:
            return await self._store.get(tenant, identifier)
        if known.kept:
            label = await self._store.label_of(tenant, identifier)
            if label is not known.label:
                known.label = label
                known.written.clear()
        return known

    async def page(self, tenant: str, limit: int, before: int | None = None) -> Page:
        """Return up to ``limit`` analyses of all replicas.

        Raises:
            StoreError: the database cannot be read.
        """
        return await self._store.page(tenant, limit, before)

    async def label(self, tenant: str, identifier: str, correct: bool) -> Entry:
        """Say once, of all replicas, whether an answer turned out right.

        Raises:
            NotFoundError, ConflictError: as `RecentAnalyses.label`.
            StoreError: the label cannot be kept; it does not count.
        """
        known = self._known(tenant, identifier)
        if known is not None and not known.kept:
            await self._write(tenant, known)
            identifier = known.id
        await self._store.label(tenant, identifier, correct)
        return await self.get(tenant, identifier)

    async def unlabel(self, tenant: str, identifier: str) -> None:
        """Take a label back that could not be counted.

        Raises:
            StoreError: it is there, and counts for nothing.
        """
        await self._store.unlabel(tenant, identifier)

    # --- writing ---

    async def _write(self, tenant: str, entry: Entry) -> None:
        """Write an entry, or wait for a write that is under way; not for long, and not while all fail."""
        if self._outage.mode is None:
            # Once begun it goes on, whatever becomes of the caller.
            done, _ = await asyncio.wait({self._writing(tenant, entry)}, timeout=self._wait)
            if not done:
                self._failed(StoreError("the database does not answer in time", context={"reason": "slow"}))
        if not entry.kept:
            self._behind = True
            self._log.warning("analysis_not_kept", analysis=entry.id)

    def _writing(self, tenant: str, entry: Entry) -> asyncio.Task[None]:
        task = self._writes.get(entry)
        if task is None:
            task = self._writes[entry] = asyncio.create_task(self._written(tenant, entry))
            task.add_done_callback(lambda _: self._writes.pop(entry, None))
        return task

    async def _written(self, tenant: str, entry: Entry) -> None:
        try:
            packed = await asyncio.to_thread(self._store.pack, tenant, entry)
            there = await self._writer.put(packed)
        except StoreError as error:
            self._failed(error)
            return
        except Exception as error:  # of packing: it would fail again, and the others must not wait for it
            self._given_up.add(entry)
            self._log.error("analysis_cannot_be_kept", analysis=entry.id, error=type(error).__name__)
            return
        if there.id != entry.id:
            self._renamed(tenant, entry, there.id)
        entry.label, entry.kept = there.label, True
        entry.written.clear()
        self._worked()

    def _failed(self, error: CertError) -> None:
        if self._outage.mode is None:
            self._log.error("analyses_in_memory_only", error=error.code, reason=error.context.get("reason"))
        self._outage.failed(time.monotonic())

    def _worked(self) -> None:
        if self._outage.worked():
            self._log.info("analyses_kept_again")

    def _let_go(self, entry: Entry) -> None:
        self._given_up.discard(entry)
        if not entry.kept and entry not in self._writes:
            self._log.error("analysis_lost", analysis=entry.id)

    # --- beside the requests ---

    async def _keeping(self) -> None:
        clean_at = 0.0
        while True:
            try:
                await self._prepare()
                if await self._caught_up():
                    self._worked()
                    if time.monotonic() >= clean_at:
                        await self._cleaned()
                        clean_at = time.monotonic() + self._clean
            except CertError as error:
                self._failed(error)
            except Exception as error:  # a defect of ours: whoever keeps the database in order goes on
                self._log.error("keeping_failed", error=type(error).__name__)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _last(self) -> None:
        self._behind = True
        with contextlib.suppress(TimeoutError, StoreError):
            await asyncio.wait_for(self._caught_up(), self._wait)

    async def _prepare(self) -> None:
        if not self._prepared:
            await self._store.prepare()
            self._prepared = True

    async def _caught_up(self) -> bool:
        if self._outage.mode is None and not self._behind:
            return True
        await self._store.check()
        self._behind = False
        for tenant, entry in self._not_kept():
            if entry not in self._given_up:
                await asyncio.wait({self._writing(tenant, entry)})  # which goes on where this is cancelled
                if not entry.kept and entry not in self._given_up:
                    self._behind = True
                    return False
        return True

    async def _cleaned(self) -> None:
        await self._store.forget()
        # What the database has no longer, a repeated question must not be answered with.
        kept = {entry.id: (tenant, entry) for tenant, entry in self._all() if entry.kept}
        for identifier in set(kept) - await self._store.there(list(kept)):
            self._dropped(*kept[identifier])
        if time.monotonic() >= self._renew_at:
            await renew_seals(self._store, self._store.reseal)
            self._renew_at = time.monotonic() + _SECONDS_BETWEEN_RENEWALS
