"""Answers that are kept as long as this object lives."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from cert.coordination.store.base import CompletionStore, gone
from cert.coordination.store.processes import this_process
from cert.coordination.store.records import Call, Kind, Lease, LostCall, LostCalls, Record
from cert.core.events import EventHub

__all__ = ["MemoryStore"]


class MemoryStore(CompletionStore):
    """A store of this process, without a trace on disk; for one thread at a time.

    Args:
        lease_seconds, hub: as of `CompletionStore`.
        now: tells the time, for tests.
    """

    name = "memory"

    def __init__(
        self,
        *,
        lease_seconds: float = 30.0,
        hub: EventHub | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(lease_seconds=lease_seconds, hub=hub)
        self._now = now
        self._records: dict[str, Record] = {}
        self._leases: dict[str, Lease] = {}
        self._lost: dict[str, LostCall] = {}

    async def busy(self, key: str) -> bool:
        """Say whether somebody is at work on an answer."""
        lease = self._leases.get(key)
        return lease is not None and not gone(lease, self._now())

    async def renew(self, lease: Lease) -> bool:
        """Give a sign of life."""
        held = self._leases.get(lease.call.key)
        if held is None or held.id != lease.id:
            return False
        self._leases[lease.call.key] = replace(held, expires_at=self._now() + self.lease_seconds)
        return True

    async def release(self, lease: Lease, lost: str | None = None) -> None:
        """Give up a call without an answer."""
        self._drop(lease)
        if lost is not None:
            self._lose(lease, lost)

    async def lost(self, scope: str | None = None) -> LostCalls:
        """Return the calls that may be billed and whose answer is not there."""
        now = self._now()
        leases = [lease for lease in self._leases.values() if scope in (None, lease.call.scope)]
        died = [_lost(lease, "died") for lease in leases if gone(lease, now) and costly(lease.call)]
        known = [lost for lost in self._lost.values() if scope in (None, lost.call.scope)]
        return LostCalls(
            tuple(sorted(known + died, key=lambda lost: lost.started_at)),
            sum(not gone(lease, now) for lease in leases),
        )

    async def forget_lost(self, scope: str | None = None) -> int:
        """Take the lost calls off the list."""
        now = self._now()
        for lease in list(self._leases.values()):
            if gone(lease, now) and scope in (None, lease.call.scope):
                await self.release(lease, "died")
        seen = [name for name, lost in self._lost.items() if scope in (None, lost.call.scope)]
        for name in seen:
            del self._lost[name]
        return len(seen)

    async def clear(self, scope: str | None = None) -> int:
        """Delete the answers of one scope, or all."""
        return self._delete(lambda record: scope in (None, record.scope))

    async def prune(self, older_than: timedelta) -> int:
        """Delete the answers that were made longer ago."""
        oldest = self._now() - older_than.total_seconds()
        return self._delete(lambda record: record.made_at < oldest)

    async def entries(self, scope: str | None = None, kind: Kind | None = None) -> int:
        """Return how many answers there are."""
        return sum(
            scope in (None, record.scope) and kind in (None, record.kind) for record in self._records.values()
        )

    async def _find(self, key: str) -> Record | None:
        return self._records.get(key)

    async def _claim(self, call: Call) -> Record | Lease | None:
        if call.key in self._records:
            return self._records[call.key]
        held, now = self._leases.get(call.key), self._now()
        if held is not None:
            if not gone(held, now):
                return None
            self._lose(held, "died")
        lease = self._leases[call.key] = Lease(
            call=call,
            id=secrets.token_hex(16),
            owner=this_process(),
            started_at=now,
            expires_at=now + self.lease_seconds,
        )
        return lease

    async def _record(self, lease: Lease, record: Record) -> Record:
        kept = self._records.setdefault(record.key, record)
        self._drop(lease)
        if kept is record:
            self._lost.pop(lease.id, None)
        return kept

    def _drop(self, lease: Lease) -> None:
        held = self._leases.get(lease.call.key)
        if held is not None and held.id == lease.id:
            del self._leases[lease.call.key]

    def _lose(self, lease: Lease, why: str) -> None:
        if costly(lease.call):
            self._lost[lease.id] = _lost(lease, why)

    def _delete(self, which: Callable[[Record], bool]) -> int:
        keys = [key for key, record in self._records.items() if which(record)]
        for key in keys:
            del self._records[key]
        return len(keys)


def costly(call: Call) -> bool:
    """Say whether a call can cost anything."""
    return call.most_micro_dollars != 0


def _lost(lease: Lease, why: str) -> LostCall:
    return LostCall(call=lease.call, id=lease.id, started_at=lease.started_at, why=why)
