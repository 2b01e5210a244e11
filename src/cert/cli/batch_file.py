"""A file of records, a line each, to which one process at a time adds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cert.core.errors import OutputError

__all__ = ["RecordFile"]


class RecordFile:
    """Adds records to a file; one that was added outlives the process, however it ends: the system has it.

    Raises:
        OutputError: it cannot be opened, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = _opened(path)

    def close(self) -> None:
        """Close it, and take it away if it has no records."""
        with contextlib.suppress(OSError):  # a device
            os.fsync(self._descriptor)
            if self.is_empty() and self._path.is_file() and not self._path.is_symlink():
                self._path.unlink()
        os.close(self._descriptor)

    def is_empty(self) -> bool:
        """Whether it has no records."""
        return os.fstat(self._descriptor).st_size == 0

    def clear(self) -> None:
        """Forget every record.

        Raises:
            OutputError: the file cannot be changed.
        """
        try:
            if not self.is_empty():
                os.ftruncate(self._descriptor, 0)
        except OSError as error:
            raise self._error(error) from error

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a record.

        Raises:
            OutputError: it could not be written; the file ends with the record before it.
        """
        rest = memoryview(msgspec.json.encode(record) + b"\n")
        size = os.fstat(self._descriptor).st_size
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        # Also on Ctrl-C: nothing half written stays behind.
        except BaseException as error:
            with contextlib.suppress(OSError):  # a device
                os.ftruncate(self._descriptor, size)
            if isinstance(error, OSError):
                raise self._error(error) from error
            raise

    def fill(self, lines: Iterable[bytes]) -> None:
        """Take records that are lines already in place of what is there, all or none, however this ends.

        Raises:
            OutputError: they could not be written.
        """
        unfinished = self._path.with_name(f".{self._path.name}.part")
        try:
            with unfinished.open("wb") as stream:
                stream.writelines(lines)
            os.replace(unfinished, self._path)
        except OSError as error:
            raise self._error(error) from error
        finally:
            unfinished.unlink(missing_ok=True)
        before, self._descriptor = self._descriptor, _opened(self._path)
        os.close(before)

    def _error(self, error: OSError) -> OutputError:
        return OutputError(
            f"'{self._path}' could not be written: {error.strerror or error}",
            hint="what was written is kept: the same command, run again, goes on",
        )


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error
    try:
        _lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise OutputError(f"'{path}' is being written by another process") from error
    return descriptor


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
