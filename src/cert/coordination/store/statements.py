"""What is asked of the tables, and rows as records."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cert.coordination.store.records import Call, Kind, Lease, LostCall, Record
from cert.coordination.store.schema import LEASES, LOST, RECORDS

__all__ = [
    "DROP_LEASE",
    "FIND",
    "FOUND",
    "HELD",
    "HELD_FOR_UPDATE",
    "NOW",
    "RENEW",
    "clear",
    "entries",
    "forget",
    "insert_lease",
    "insert_lost",
    "insert_record",
    "lease",
    "lease_row",
    "leases",
    "lost_call",
    "lost_calls",
    "lost_row",
    "prune",
    "record",
    "record_row",
]

FIND = sa.select(RECORDS).where(RECORDS.c.key == sa.bindparam("key"))
HELD = sa.select(LEASES).where(LEASES.c.key == sa.bindparam("key"))
HELD_FOR_UPDATE = HELD.with_for_update()
RENEW = LEASES.update().where(LEASES.c.id == sa.bindparam("of_id")).values(expires_at=sa.bindparam("until"))
DROP_LEASE = LEASES.delete().where(LEASES.c.id == sa.bindparam("of_id"))
# An answer that came after all is not lost.
FOUND = LOST.delete().where(LOST.c.id == sa.bindparam("of_id"))
NOW = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))


@functools.cache
def _unless_there(table: sa.Table, dialect: str) -> Any:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def insert_record(dialect: str) -> Any:
    """Return the statement that keeps an answer unless there is one."""
    return _unless_there(RECORDS, dialect)


def insert_lease(dialect: str) -> Any:
    """Return the statement that takes a lease unless somebody has it."""
    return _unless_there(LEASES, dialect)


def insert_lost(dialect: str) -> Any:
    """Return the statement that writes a lost call down, once."""
    return _unless_there(LOST, dialect)


def clear(scope: str | None) -> sa.Delete:
    """Return the statement that deletes the answers of one scope, or all."""
    return RECORDS.delete() if scope is None else RECORDS.delete().where(RECORDS.c.scope == scope)


def prune(made_before: float) -> sa.Delete:
    """Return the statement that deletes old answers."""
    return RECORDS.delete().where(RECORDS.c.made_at < made_before)


def forget(scope: str | None) -> sa.Delete:
    """Return the statement that deletes the list of lost calls."""
    return LOST.delete() if scope is None else LOST.delete().where(LOST.c.scope == scope)


def entries(scope: str | None, kind: Kind | None) -> sa.Select[Any]:
    """Return the statement that counts answers."""
    counting = sa.select(sa.func.count()).select_from(RECORDS)
    if scope is not None:
        counting = counting.where(RECORDS.c.scope == scope)
    return counting if kind is None else counting.where(RECORDS.c.kind == kind)


def leases(scope: str | None) -> sa.Select[Any]:
    """Return the statement that lists calls that are out."""
    return sa.select(LEASES) if scope is None else sa.select(LEASES).where(LEASES.c.scope == scope)


def lost_calls(scope: str | None) -> sa.Select[Any]:
    """Return the statement that lists lost calls."""
    return sa.select(LOST) if scope is None else sa.select(LOST).where(LOST.c.scope == scope)


def record_row(record: Record) -> dict[str, Any]:
    """Return an answer as a row."""
    return {column.name: getattr(record, column.name) for column in RECORDS.c}


def record(row: sa.RowMapping | None) -> Record | None:
    """Return a row as an answer."""
    return None if row is None else Record(**row)


def lease_row(lease: Lease) -> dict[str, Any]:
    """Return a lease as a row."""
    return _call_row(lease) | {"owner": lease.owner, "expires_at": lease.expires_at}


def lease(row: sa.RowMapping | None) -> Lease | None:
    """Return a row as a lease."""
    if row is None:
        return None
    return Lease(
        call=_call(row),
        id=row["id"],
        owner=row["owner"],
        started_at=row["started_at"],
        expires_at=row["expires_at"],
    )


def lost_row(lease: Lease, why: str) -> dict[str, Any]:
    """Return a lease that ended without an answer as a row."""
    return _call_row(lease) | {"why": why}


def lost_call(row: sa.RowMapping) -> LostCall:
    """Return a row as a lost call."""
    return LostCall(call=_call(row), id=row["id"], started_at=row["started_at"], why=row["why"])


def _call_row(lease: Lease) -> dict[str, Any]:
    call = lease.call
    return {
        "id": lease.id,
        "key": call.key,
        "kind": call.kind,
        "scope": call.scope,
        "model": call.model,
        "most_micro_dollars": call.most_micro_dollars,
        "started_at": lease.started_at,
    }


def _call(row: sa.RowMapping) -> Call:
    return Call(
        key=row["key"],
        kind=row["kind"],
        scope=row["scope"],
        model=row["model"],
        most_micro_dollars=row["most_micro_dollars"],
    )
