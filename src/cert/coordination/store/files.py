"""The file of a store: made for its owner's eyes alone, and never taken for what it is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cert.core.errors import StoreUnusableError

__all__ = ["make_file"]

_PERMISSION = "See that this user may write the file and its folder."


def make_file(path: Path, timeout: float) -> None:
    """Make the file of a new store; one that is there is only looked at.

    Args:
        path: of the file; missing folders are made.
        timeout: seconds in which another process that makes it at this moment has to fill it.

    Raises:
        StoreUnusableError: there is no room for a file, or what is there is none, is empty, or cannot be
            written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its other files (-wal, -shm) the mode of this one.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        if not path.exists():
            raise _unusable(path, f"cannot be made: {error.strerror}", _PERMISSION, "cannot_open") from error
        _look_at(path, timeout)


def _look_at(path: Path, timeout: float) -> None:
    if not path.is_file():
        raise _unusable(path, "is not a regular file", "Name a file.", "not_a_file")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise _unusable(path, "cannot be written", _PERMISSION, "read_only")
    until = time.monotonic() + timeout
    while path.stat().st_size == 0:
        if time.monotonic() > until:
            hint = "If nothing was in it, delete it; otherwise restore a copy."
            raise _unusable(path, "is empty, which no store ever is", hint, "corrupt")
        time.sleep(0.02)


def _unusable(path: Path, what: str, hint: str, reason: str) -> StoreUnusableError:
    return StoreUnusableError(f"'{path}' {what}", hint=hint, context={"store": str(path), "reason": reason})
