"""Failures of SQLite and PostgreSQL as errors of the tree, told with what to do."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cert.core.errors import StoreError, StoreUnusableError

__all__ = ["store_error"]

_WAIT = "Another program holds it. Try again, or allow more time."
_DAMAGED = (
    "It was not touched. Move it away to start anew (its answers are then paid for again), or restore a copy."
)
_ROOM = "Make room where it lies; answers that cannot be kept are returned, and nothing new is asked."
_PERMISSION = "See that this user may write the file and its folder."
_LOGIN = "See that the URL names the right user, password and database."
_DOWN = "See that the database runs and can be reached, and that its URL is right."

# By the beginning of SQLite's name of the error: reason, what it means, hint, may pass by itself.
_SQLITE = (
    ("SQLITE_BUSY", "busy", "is locked", _WAIT, True),
    ("SQLITE_LOCKED", "busy", "is locked", _WAIT, True),
    ("SQLITE_NOTADB", "corrupt", "is not a SQLite database, or is damaged", _DAMAGED, False),
    ("SQLITE_CORRUPT", "corrupt", "is damaged", _DAMAGED, False),
    ("SQLITE_FULL", "full", "cannot grow: the disk is full", _ROOM, True),
    ("SQLITE_READONLY", "read_only", "cannot be written", _PERMISSION, False),
    ("SQLITE_CANTOPEN", "cannot_open", "cannot be opened", _PERMISSION, False),
    ("SQLITE_PERM", "cannot_open", "cannot be opened", _PERMISSION, False),
)
# By the beginning of the SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL = (
    ("28", "refused", "refuses the login", _LOGIN, False),
    ("3D000", "refused", "does not exist", _LOGIN, False),
    ("42501", "refused", "does not permit this", _LOGIN, False),
    ("25006", "read_only", "cannot be written", "Use the primary server, not a replica.", False),
    ("53100", "full", "cannot grow: the disk is full", _ROOM, True),
    ("55P03", "busy", "is locked", _WAIT, True),
    ("XX001", "corrupt", "is damaged", _DAMAGED, False),
)


def store_error(error: Exception, name: str) -> StoreError | None:
    """Return the error of the tree, or ``None`` for one that is no failure of a database."""
    # The driver of PostgreSQL raises its own where it cannot connect.
    drivers = type(error).__module__.startswith("asyncpg")
    if not drivers and not isinstance(error, sa.exc.SQLAlchemyError | OSError):
        return None
    original: Any = getattr(error, "orig", None) or error
    code, table = _code(original)
    for beginning, reason, what, hint, passes in table:
        if code.startswith(beginning):
            kind = StoreError if passes else StoreUnusableError
            return kind(f"'{name}' {what}", hint=hint, context={"store": name, "reason": reason})
    # Neither text nor arguments of a statement: they hold answers.
    return StoreError(
        f"'{name}' failed: {code or type(original).__name__}",
        hint=_DOWN,
        context={"store": name, "reason": code or type(original).__name__},
    )


def _code(original: Any) -> tuple[str, tuple[tuple[str, str, str, str, bool], ...]]:
    for error in (original, original.__cause__):
        if name := getattr(error, "sqlite_errorname", None):
            return str(name), _SQLITE
        if state := getattr(error, "sqlstate", None):
            return str(state), _POSTGRESQL
    return "", ()
