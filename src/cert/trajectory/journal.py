"""The journal of a long run: one record a line, each safe as soon as it is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec

from cert._version import __version__
from cert.backends.stored.lines import open_binary, read_lines
from cert.core.errors import CertError, InputError, OutputError
from cert.trajectory.growing import GrowingFile
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["RECORD_VERSION", "RecordWriter"]

RECORD_VERSION = 1
_MAX_LINE = 2**28


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
        self.path = Path(path)
        self._lock = threading.Lock()
        self._file = GrowingFile(self.path, sync=sync)
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.broken: list[int] = []
        try:
            if not resume and not self._file.is_empty():
                raise OutputError(f"'{path}' exists already", hint="go on with it (resume), or name another")
            self._file.move_cut_line()
            self._read_back()
        except BaseException:
            self._file.close(sync=False)
            raise
        self.moved = self._file.moved
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
            self._file.append(line)
            self.done.add(key)
            (self.failed.add if failed else self.failed.discard)(key)

    def close(self) -> None:
        """Bring everything to the disk and let go of the file."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
