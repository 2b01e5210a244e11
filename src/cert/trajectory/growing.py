"""A file that grows line by line, each safe as soon as it is written.

A line is one ``write`` to the end of the file, so that a process that is killed leaves whole lines and at
most one that is cut off, which the next run moves aside. Against a machine that fails, lines have to be
synchronised (``sync``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from cert.core.errors import OutputError

__all__ = ["GrowingFile"]

_CHUNK = 2**20


class GrowingFile:
    """Appends lines to a file.

    Args:
        path: the file. It is locked: a second writer is refused.
        sync: when lines are brought to the disk itself: ``each`` one, or at the ``end``.

    Attributes:
        moved: bytes of a line that was cut off; they are now in a file with ``.cut`` at the end of its name.

    Raises:
        OutputError: the file cannot be written, or is being written by another process.
    """

    def __init__(self, path: str | Path, *, sync: Literal["each", "end"] = "end") -> None:
        self.path, self._sync = Path(path), sync
        self._file = _locked(self.path)
        self.moved = 0

    def is_empty(self) -> bool:
        """Whether it holds nothing."""
        return os.fstat(self._file).st_size == 0

    def move_cut_line(self) -> None:
        """Move a last line that was cut off to a file of its own; until then no line may be appended."""
        self.moved = _cut(self._file, self.path)

    def append(self, line: bytes) -> None:
        """Append one line; when this returns, it outlives the process.

        Args:
            line: without its line feed.

        Raises:
            OutputError: it could not be written; the file then ends with the line before it.
        """
        if self._file < 0:
            raise OutputError(f"'{self.path}' is closed")
        size = os.fstat(self._file).st_size
        try:
            rest = memoryview(line + b"\n")
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if self._sync == "each":
                os.fsync(self._file)
        except BaseException as error:
            # A full disk or Ctrl-C in the middle must leave no half line for the next one to go on from.
            os.ftruncate(self._file, size)
            if isinstance(error, OSError):
                raise OutputError(f"'{self.path}' cannot be written: {error.strerror or error}") from error
            raise

    def close(self, *, sync: bool = True) -> None:
        """Bring everything to the disk and let go of the file."""
        if self._file >= 0:
            file, self._file = self._file, -1
            try:
                if sync:
                    os.fsync(file)
            finally:
                os.close(file)


def _locked(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error
    try:
        import fcntl
    except ImportError:  # where files cannot be locked so, two writers are the caller's to avoid
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise OutputError(f"'{path}' is being written by another process") from None
    return file


def _read_at(file: int, start: int, count: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    return os.read(file, count)


def _cut(file: int, path: Path) -> int:
    """Move what stands behind the last line feed to a file of its own, and return how much it was."""
    size = os.fstat(file).st_size
    end = size
    while end and (chunk := _read_at(file, max(0, end - _CHUNK), min(_CHUNK, end))):
        found = chunk.rfind(b"\n")
        if found >= 0:
            end = end - len(chunk) + found + 1
            break
        end -= len(chunk)
    if end < size:
        with open(f"{path}.cut", "ab") as aside:
            aside.write(_read_at(file, end, size - end) + b"\n")
        os.ftruncate(file, end)
    return size - end
