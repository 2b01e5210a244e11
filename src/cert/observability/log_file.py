"""A log file that several processes write and rotate: each line whole, or not at all.

Apart from `handlers`, since the library beneath it loads another ten that a log on standard error needs not.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from concurrent_log_handler import ConcurrentRotatingFileHandler

from cert.core.errors import ConfigurationError
from cert.observability.handlers import CountingHandler

__all__ = ["FileLines"]


class FileLines(CountingHandler, ConcurrentRotatingFileHandler):
    """Appends to a file that several processes write and rotate.

    Args:
        path: the file; its directory holds the rotated ones and a lock file too.
        max_bytes: size from which it is rotated.
        backups: how many rotated files are kept.

    Raises:
        ConfigurationError: the file, or one beside it, cannot be written.
    """

    def __init__(self, path: Path, *, max_bytes: int, backups: int) -> None:
        _check_writable(path)
        super().__init__(
            str(path),
            maxBytes=max_bytes,
            backupCount=backups,
        )
        _check_writable(Path(self.lockFilename))

    def do_open(self, mode: str | None = None) -> TextIOWrapper:
        """Open the file without a buffer: its lock could be held where a program forks, for ever."""
        return cast("TextIOWrapper", io.FileIO(self.baseFilename, mode or self.mode))

    def do_write(self, msg: str) -> None:
        """Write a line whole or not at all; the caller holds the lock of all processes."""
        if self.stream is None or self.stream.closed:
            self.stream = self.do_open()
        file = cast("io.FileIO", self.stream)
        start = os.fstat(file.fileno()).st_size
        rest = memoryview(f"{msg}\n".encode("utf-8", "replace"))
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            # The disk is full: half a line would spoil the next one too.
            os.truncate(file.fileno(), start)
            raise

    def _at_fork_reinit(self) -> None:
        # The standard library calls this in a forked child. A thread of the parent may have held the lock.
        super()._at_fork_reinit()
        self._thread_lock = threading.RLock()
        self.is_locked = False


def _check_writable(path: Path) -> None:
    try:
        # Opening a pipe would wait for its reader, and a device cannot be rotated.
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(
                f"the log file {str(path)!r} is not a regular file",
                hint="name a file, or log to stderr or stdout",
            )
        with path.open("ab"):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"the log file {str(path)!r} cannot be written: {reason}",
            hint="name a file in a directory that exists and that this user may write",
        ) from error
