"""A store of paid answers: what every kind of it can do, and what it does when it cannot keep one."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from cert.coordination.store.processes import surely_dead
from cert.coordination.store.records import CacheStats, Call, Kind, Lease, LostCalls, Outcome, Record
from cert.core.bounds import positive
from cert.core.errors import StoreError
from cert.core.events import CacheAsked, ComponentDegraded, EventHub, default_hub
from cert.core.money import dollars

__all__ = ["CompletionStore", "gone"]

_COMPONENT = "completion_store"
_MODE = "answers_in_memory_only"


class CompletionStore(ABC):
    """Keeps answers under their keys, and who is at work on which.

    A call is announced before it goes out (`claim`) and its answer kept before anybody sees it (`record`). So
    a process that dies leaves a note of what it may have paid for. Safe for many tasks of one event loop; how
    far it can be shared beyond says each kind.

    An answer that was paid for and cannot be kept (the disk is full, the database gone) is not withheld. It
    is returned and stays in memory, an event `ComponentDegraded` tells of it, no further call is begun before
    it could be kept after all, and `aclose` fails if it never could.

    Args:
        lease_seconds: how long an announced call is another's without a sign of life; a process that runs
            gives one every third of it.
        hub: told of hits, misses and trouble.

    Attributes:
        name: for people: the file, or the database without its password.
    """

    name: str

    def __init__(self, *, lease_seconds: float = 30.0, hub: EventHub | None = None) -> None:
        positive("lease_seconds", lease_seconds)
        self.lease_seconds = lease_seconds
        self._hub = hub or default_hub()
        self._unkept: dict[str, tuple[Lease, Record]] = {}
        self._counts: dict[tuple[str, Kind], CacheStats] = defaultdict(CacheStats)

    # --- answers and the right to make them ---

    async def find(self, key: str) -> Record | None:
        """Return an answer that is there.

        Raises:
            StoreError: the store cannot be read.
        """
        if key in self._unkept:
            return self._unkept[key][1]
        return await self._find(key)

    async def claim(self, call: Call) -> Record | Lease | None:
        """Announce a call, unless its answer is there or another is at work on it (``None``).

        A call of one that is surely dead, or has given no sign of life for too long, is taken over; what it
        may have cost is among `lost` from then on.

        Raises:
            StoreError: the store cannot be written; the call must not be made.
        """
        if call.key in self._unkept:
            return self._unkept[call.key][1]
        await self._keep_unkept()
        return await self._claim(call)

    @abstractmethod
    async def busy(self, key: str) -> bool:
        """Say whether somebody is at work on an answer; cheaper than `claim`.

        Raises:
            StoreError: the store cannot be read.
        """

    @abstractmethod
    async def renew(self, lease: Lease) -> bool:
        """Give a sign of life; ``False`` says that another has taken the call over.

        Raises:
            StoreError: the store cannot be written.
        """

    async def record(self, lease: Lease, value: str, cost_micro_dollars: int) -> Record:
        """Keep the answer of a call and return the one that is kept: another's, where that was first."""
        call = lease.call
        record = Record(
            key=call.key,
            kind=call.kind,
            scope=call.scope,
            model=call.model,
            cost_micro_dollars=cost_micro_dollars,
            made_at=time.time(),
            made_by=lease.id,
            value=value,
        )
        try:
            return await self._record(lease, record)
        except StoreError:
            if not self._unkept:
                self._hub.emit(ComponentDegraded(component=_COMPONENT, mode=_MODE, active=True))
            self._unkept[call.key] = (lease, record)
            return record

    @abstractmethod
    async def release(self, lease: Lease, lost: str | None = None) -> None:
        """Give up a call without an answer.

        Args:
            lease: of the call.
            lost: why there is none, where it may be billed; it is among `lost` then, unless it is known to
                cost nothing.

        Raises:
            StoreError: the store cannot be written; the call is among `lost` when its lease has expired.
        """

    # --- looking after it ---

    @abstractmethod
    async def lost(self, scope: str | None = None) -> LostCalls:
        """Return the calls that may be billed and whose answer is not there, of one scope or of all.

        Raises:
            StoreError: the store cannot be read.
        """

    @abstractmethod
    async def forget_lost(self, scope: str | None = None) -> int:
        """Take the lost calls off the list, once somebody has seen them; return how many.

        Raises:
            StoreError: the store cannot be written.
        """

    @abstractmethod
    async def clear(self, scope: str | None = None) -> int:
        """Delete the answers of one scope, or all; return how many. Lost calls stay on their list.

        Raises:
            StoreError: the store cannot be written.
        """

    @abstractmethod
    async def prune(self, older_than: timedelta) -> int:
        """Delete the answers that were made longer ago; return how many.

        Raises:
            StoreError: the store cannot be written.
        """

    @abstractmethod
    async def entries(self, scope: str | None = None, kind: Kind | None = None) -> int:
        """Return how many answers there are.

        Raises:
            StoreError: the store cannot be read.
        """

    async def aclose(self) -> None:
        """Let go of connections, of PostgreSQL those of the running event loop; a later use opens new ones.

        Raises:
            StoreError: answers that were paid for could not be kept.
        """
        try:
            await self._keep_unkept()
        except StoreError as error:
            count = len(self._unkept)
            cost = dollars(sum(record.cost_micro_dollars for _, record in self._unkept.values()))
            raise StoreError(
                f"{self.name}: {count} answer{'s' * (count != 1)} for ${cost} could not be kept and will be "
                f"paid for again: {error.message}",
                hint=error.hint,
                context=error.context,
            ) from error
        finally:
            await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- counting ---

    def count(self, call: Call, outcome: Outcome, micro_dollars: int) -> None:
        """Book one answer: what it cost, or had cost when it was made."""
        before = self._counts[call.scope, call.kind]
        made = outcome == "miss"
        self._counts[call.scope, call.kind] = CacheStats(
            hits=before.hits + (outcome == "hit"),
            shared=before.shared + (outcome == "shared"),
            misses=before.misses + made,
            saved_micro_dollars=before.saved_micro_dollars + micro_dollars * (not made),
            spent_micro_dollars=before.spent_micro_dollars + micro_dollars * made,
        )
        self._hub.emit(CacheAsked(cache=f"{call.kind}s", outcome=outcome))

    async def stats(self, scope: str | None = None, kind: Kind | None = None) -> CacheStats:
        """Return what was answered through this object, of one scope or kind or of all.

        Raises:
            StoreError: the entries cannot be counted.
        """
        entries = await self.entries(scope, kind)
        return sum_stats(
            [
                counts
                for (of, what), counts in self._counts.items()
                if scope in (None, of) and kind in (None, what)
            ],
            entries,
        )

    def scopes(self) -> tuple[str, ...]:
        """Return the scopes that were used through this object."""
        return tuple(sorted({scope for scope, _ in self._counts}))

    # --- what each kind of store does in its own way ---

    @abstractmethod
    async def _find(self, key: str) -> Record | None: ...

    @abstractmethod
    async def _claim(self, call: Call) -> Record | Lease | None: ...

    @abstractmethod
    async def _record(self, lease: Lease, record: Record) -> Record: ...

    async def _close(self) -> None:
        return None

    async def _keep_unkept(self) -> None:
        if not self._unkept:
            return
        for key, (lease, record) in list(self._unkept.items()):
            await self._record(lease, record)
            self._unkept.pop(key, None)
        self._hub.emit(ComponentDegraded(component=_COMPONENT, mode=_MODE, active=False))


def sum_stats(parts: list[CacheStats], entries: int) -> CacheStats:
    """Return the sum of several counts."""
    return CacheStats(
        hits=sum(part.hits for part in parts),
        shared=sum(part.shared for part in parts),
        misses=sum(part.misses for part in parts),
        saved_micro_dollars=sum(part.saved_micro_dollars for part in parts),
        spent_micro_dollars=sum(part.spent_micro_dollars for part in parts),
        entries=entries,
    )


def gone(lease: Lease, now: float, dead: Callable[[str], bool] = surely_dead) -> bool:
    """Say whether nobody is at work on a call any more."""
    return lease.expires_at <= now or dead(lease.owner)
