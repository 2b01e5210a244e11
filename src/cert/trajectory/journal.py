"""The journal of a long run: one record a line, each safe as soon as it is written.

A line is one ``write`` to the end of the file, so that a process that is killed leaves whole lines and at
most one that is cut off, which the next run moves aside. Against a machine that fails, lines have to be
synchronised (``sync``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec

from cert._version import __version__
from cert.backends.stored.lines import open_binary, read_lines
from cert.core.errors import CertError, InputError, OutputError
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["RECORD_VERSION", "RecordWriter"]

RECORD_VERSION = 1
_MAX_LINE = 2**28
_CHUNK = 2**20


class Entry(msgspec.Struct):
    """What of a line tells whether its work is done."""

    kind: Literal["trajectory_record"]
    key: str
    error: Any = None


_ENTRY = msgspec.json.Decoder(Entry)


class RecordWriter:
    """Appends records to a JSONL file.

    Args:
        path: the file. It is locked: a second writer is refused.
        resume: go on with a file that is there; else a file with content is refused.
        retry_failures: with ``resume``, records of failures do not count as done.
        sync: when lines are brought to the disk itself: ``each`` one, or at the ``end``.

    Attributes:
        done: keys that need no work any more.
        failed: those of them whose record is of a failure.
        moved: bytes of a line that was cut off; they are now in a file with ``.cut`` at the end of its name.
        broken: numbers of the lines that cannot be read. They are left as they are.

    Raises:
        OutputError: the file cannot be written, is being written by another process, or holds something
            while ``resume`` is off.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        resume: bool = False,
        retry_failures: bool = False,
        sync: Literal["each", "end"] = "end",
    ) -> None:
        self.path, self._sync = Path(path), sync
        self._lock = threading.Lock()
        self._file = _locked(self.path)
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.moved = 0
        self.broken: list[int] = []
        try:
            if os.fstat(self._file).st_size and not resume:
                raise OutputError(f"'{path}' exists already", hint="go on with it (resume), or name another")
            self.moved = _cut(self._file, self.path)
            self._read_back()
        except BaseException:
            os.close(self._file)
            raise
        if retry_failures:
            self.done -= self.failed

    def write(self, key: str, outcome: TrajectoryAnalysis | CertError) -> None:
        """Append one record; when this returns, the record outlives the process.

        Raises:
            OutputError: it could not be written; the file then ends with the record before it.
        """
        failed = isinstance(outcome, CertError)
        line = msgspec.json.encode(
            {
                "schema_version": RECORD_VERSION,
                "kind": "trajectory_record",
                "cert_version": __version__,
                "key": key,
                "analysis": None if failed else outcome.to_dict(),
                "error": outcome.to_dict() if failed else None,
            },
            enc_hook=str,
        )
        with self._lock:
            self._append(line + b"\n")
            self.done.add(key)
            (self.failed.add if failed else self.failed.discard)(key)

    def close(self) -> None:
        """Bring everything to the disk and let go of the file."""
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        if self._file < 0:
            raise OutputError(f"'{self.path}' is closed")
        size = os.fstat(self._file).st_size
        try:
            rest = memoryview(line)
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

    def _read_back(self) -> None:
        for number, entry in _entries(self.path):
            if entry is None:
                self.broken.append(number)
                continue
            self.done.add(entry.key)
            (self.failed.discard if entry.error is None else self.failed.add)(entry.key)


def _entries(path: Path) -> Iterator[tuple[int, Entry | None]]:
    """Yield the number and the content of each line, ``None`` where it cannot be read."""
    for line in read_lines(open_binary(path), _MAX_LINE):
        try:
            if isinstance(line.data, CertError):
                raise line.data
            yield line.number, _ENTRY.decode(line.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InputError):
            yield line.number, None


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
