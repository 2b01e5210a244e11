"""A store in SQLite, shared by the processes of one machine, or in PostgreSQL, shared by all machines."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from cert.coordination.store import statements
from cert.coordination.store.base import CompletionStore, gone
from cert.coordination.store.databases import open_database
from cert.coordination.store.faults import store_error
from cert.coordination.store.memory import costly
from cert.coordination.store.processes import this_process
from cert.coordination.store.records import Call, Kind, Lease, LostCall, LostCalls, Record
from cert.coordination.store.uninterrupted import uninterrupted
from cert.core.bounds import positive
from cert.core.events import EventHub

__all__ = ["SqlStore"]

T = TypeVar("T")


class SqlStore(CompletionStore):
    """Answers in a database, for any number of processes and event loops.

    SQLite runs in WAL mode with ``synchronous=FULL``: an answer is on the disk before anybody sees it. Its
    file must lie on a disk of this machine, not on a network drive. It holds answers, not prompts, and is
    readable by its owner alone when it is made here.

    Args:
        store: a path, or the URL of a database.
        timeout: seconds to wait for a lock, a connection, or an answer of the database.
        lease_seconds, hub: as of `CompletionStore`.
        now: tells the time to SQLite's leases, for tests; PostgreSQL has its own.

    Raises:
        ConfigurationError: no URL of a database that is known here.
    """

    def __init__(
        self,
        store: str,
        *,
        timeout: float = 10.0,
        lease_seconds: float = 30.0,
        hub: EventHub | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        positive("timeout", timeout)
        super().__init__(lease_seconds=lease_seconds, hub=hub)
        self._database = open_database(store, timeout)
        self._own_clock = now
        self.name = self._database.name

    async def busy(self, key: str) -> bool:
        """Say whether somebody is at work on an answer."""

        def look(connection: sa.Connection) -> bool:
            held = statements.lease(_first(connection, statements.HELD, key))
            return held is not None and not gone(held, self._now(connection))

        return await self._told(self._database.read(look))

    async def renew(self, lease: Lease) -> bool:
        """Give a sign of life."""

        def push(connection: sa.Connection) -> bool:
            until = self._now(connection) + self.lease_seconds
            return bool(connection.execute(statements.RENEW, {"of_id": lease.id, "until": until}).rowcount)

        return await self._told(self._database.write(push))

    async def release(self, lease: Lease, lost: str | None = None) -> None:
        """Give up a call without an answer."""

        def give_up(connection: sa.Connection) -> None:
            connection.execute(statements.DROP_LEASE, {"of_id": lease.id})
            if lost is not None:
                _lose(connection, lease, lost)

        await self._told(self._database.write(give_up))

    async def lost(self, scope: str | None = None) -> LostCalls:
        """Return the calls that may be billed and whose answer is not there."""

        def look(connection: sa.Connection) -> LostCalls:
            # The leases first: one that is taken over meanwhile is then seen twice and not never.
            held = _leases(connection, scope)
            rows = connection.execute(statements.lost_calls(scope)).mappings()
            known = {lost.id: lost for lost in map(statements.lost_call, rows)}
            now = self._now(connection)
            died = {lease.id: _died(lease) for lease in held if gone(lease, now) and costly(lease.call)}
            calls = sorted((died | known).values(), key=lambda lost: lost.started_at)
            return LostCalls(tuple(calls), sum(not gone(lease, now) for lease in held))

        return await self._told(self._database.read(look))

    async def forget_lost(self, scope: str | None = None) -> int:
        """Take the lost calls off the list."""

        def forget(connection: sa.Connection) -> int:
            now = self._now(connection)
            for lease in _leases(connection, scope):
                if gone(lease, now):
                    connection.execute(statements.DROP_LEASE, {"of_id": lease.id})
                    _lose(connection, lease, "died")
            return connection.execute(statements.forget(scope)).rowcount

        return await self._told(self._database.write(forget))

    async def clear(self, scope: str | None = None) -> int:
        """Delete the answers of one scope, or all."""
        return await self._change(statements.clear(scope))

    async def prune(self, older_than: timedelta) -> int:
        """Delete the answers that were made longer ago."""
        return await self._change(statements.prune(self._own_clock() - older_than.total_seconds()))

    async def entries(self, scope: str | None = None, kind: Kind | None = None) -> int:
        """Return how many answers there are."""

        def count(connection: sa.Connection) -> int:
            return int(connection.scalar(statements.entries(scope, kind)) or 0)

        return await self._told(self._database.read(count))

    async def _find(self, key: str) -> Record | None:
        def look(connection: sa.Connection) -> Record | None:
            return statements.record(_first(connection, statements.FIND, key))

        return await self._told(self._database.read(look))

    async def _claim(self, call: Call) -> Record | Lease | None:
        return await self._told(self._database.write(lambda connection: self._claimed(connection, call)))

    def _claimed(self, connection: sa.Connection, call: Call) -> Record | Lease | None:
        now = self._now(connection)
        lease = Lease(
            call=call,
            id=secrets.token_hex(16),
            owner=this_process(),
            started_at=now,
            expires_at=now + self.lease_seconds,
        )
        insert, row = statements.insert_lease(connection.dialect.name), statements.lease_row(lease)
        if not connection.execute(insert, row).rowcount:
            held = statements.lease(_first(connection, statements.HELD_FOR_UPDATE, call.key))
            if held is None or not gone(held, now):
                return None
            connection.execute(statements.DROP_LEASE, {"of_id": held.id})
            _lose(connection, held, "died")
            connection.execute(insert, row)
        # Only now: who had the lease before has kept the answer in the same step in which it went.
        record = statements.record(_first(connection, statements.FIND, call.key))
        if record is not None:
            connection.execute(statements.DROP_LEASE, {"of_id": lease.id})
        return record or lease

    async def _record(self, lease: Lease, record: Record) -> Record:
        def keep(connection: sa.Connection) -> Record:
            insert = statements.insert_record(connection.dialect.name)
            done = connection.execute(insert, statements.record_row(record))
            connection.execute(statements.DROP_LEASE, {"of_id": lease.id})
            if done.rowcount:
                connection.execute(statements.FOUND, {"of_id": lease.id})
                return record
            return statements.record(_first(connection, statements.FIND, record.key)) or record

        return await self._told(self._database.write(keep))

    async def _close(self) -> None:
        await uninterrupted(self._database.aclose())

    def _now(self, connection: sa.Connection) -> float:
        # Machines' clocks differ; all that share a database share its clock.
        if self._database.shared_clock:
            return float(connection.scalar(statements.NOW) or 0.0)
        return self._own_clock()

    async def _change(self, statement: sa.Delete) -> int:
        return await self._told(
            self._database.write(lambda connection: connection.execute(statement).rowcount)
        )

    async def _told(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, and tell a failure of the database as an error of the tree."""
        try:
            return await work
        except Exception as error:
            told = store_error(error, self.name)
            if told is None:
                raise
            raise told from error


def _first(connection: sa.Connection, statement: sa.Select[Any], key: str) -> sa.RowMapping | None:
    return connection.execute(statement, {"key": key}).mappings().first()


def _leases(connection: sa.Connection, scope: str | None) -> list[Lease]:
    rows = connection.execute(statements.leases(scope)).mappings()
    return [lease for lease in map(statements.lease, rows) if lease is not None]


def _lose(connection: sa.Connection, lease: Lease, why: str) -> None:
    if costly(lease.call):
        insert = statements.insert_lost(connection.dialect.name)
        connection.execute(insert, statements.lost_row(lease, why))


def _died(lease: Lease) -> LostCall:
    return LostCall(call=lease.call, id=lease.id, started_at=lease.started_at, why="died")
