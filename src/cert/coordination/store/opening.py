"""From what a user names to an open store."""

from __future__ import annotations

import os

from cert.coordination.store.base import CompletionStore
from cert.coordination.store.memory import MemoryStore
from cert.core.errors import DependencyMissingError
from cert.core.events import EventHub

__all__ = ["open_store"]


def open_store(
    store: CompletionStore | str | os.PathLike[str] | None = None,
    *,
    timeout: float = 10.0,
    lease_seconds: float = 30.0,
    hub: EventHub | None = None,
) -> CompletionStore:
    """Return the store that is meant.

    Args:
        store: the path of a SQLite file, which is made where there is none; the URL of a database
            (``postgresql://user:password@host/database``, ``sqlite:///path``); ``None`` for memory; an open
            one is returned as it is.
        timeout: seconds to wait for a locked file or for an answer of the database.
        lease_seconds: as of `CompletionStore`.
        hub: as of `CompletionStore`.

    Raises:
        ConfigurationError: a URL of no database that is known here.
        DependencyMissingError: SQLAlchemy or the driver is not installed.
    """
    if isinstance(store, CompletionStore):
        return store
    if store is None:
        return MemoryStore(lease_seconds=lease_seconds, hub=hub)
    try:
        from cert.coordination.store.sql import SqlStore

        return SqlStore(os.fspath(store), timeout=timeout, lease_seconds=lease_seconds, hub=hub)
    except ModuleNotFoundError as error:
        extra = "postgres" if error.name == "asyncpg" else "coordination"
        raise DependencyMissingError(
            f"a store on disk or in a database needs the package {error.name}",
            hint=f"install it with: pip install 'cert-framework[{extra}]'",
        ) from error
