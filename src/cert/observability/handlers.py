"""Handlers that write each line whole, count what they lose, and never raise into the work."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import sys
import threading
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO, cast

from concurrent_log_handler import ConcurrentRotatingFileHandler

from cert.core.errors import ConfigurationError
from cert.observability.losses import count_lost_line

__all__ = ["FileLines", "StreamLines"]


class _Counting(logging.Handler):
    """Counts a line that cannot be written, and says so once on standard error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """Count the loss; called by the standard library inside the handling of the exception."""
        if count_lost_line() == 1:
            reason = type(sys.exception()).__name__
            with contextlib.suppress(Exception):  # there may be nowhere left to say it
                sys.stderr.write(f"cert: log lines are being lost ({reason} in {record.name})\n")

    def format(self, record: logging.LogRecord) -> str:
        """Format the record; one whose arguments do not fit its message is still told."""
        try:
            return super().format(record)
        except Exception as error:
            record.msg, record.args, record.exc_info = f"{record.msg} ({type(error).__name__})", (), None
            return super().format(record)


class StreamLines(_Counting, logging.StreamHandler[TextIO]):
    """Writes to a stream in whatever encoding it has: what that lacks is spelled out."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record in characters that the stream can take."""
        text = super().format(record)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


class FileLines(_Counting, ConcurrentRotatingFileHandler):
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
