"""The members of an ``.eval`` archive, none of which may be larger than it can honestly be.

An archive is a zip whose members are compressed by zstandard (method 93, which Python's own zip module reads
from 3.14 on) or, in older logs, by deflate. Nothing is ever unpacked to a file.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from cert.coordination.clients.packages import require
from cert.core.errors import InputError

__all__ = ["Archive"]

_MOST_DIRECTORY: Final = 32 * 1024**2  # some 300,000 members; each takes a kilobyte of memory
_MOST_MEMBER: Final = 256 * 1024**2
_MOST_RATIO: Final = 1000
_ANY_RATIO_BELOW: Final = 8 * 1024**2  # short texts that repeat compress beyond any ratio
_PIECE: Final = 1024**2
_ZSTANDARD: Final = 93
_LOCAL: Final = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field
_ENCRYPTED: Final = 0x1

# What Python's zip module raises for files that are none, or are damaged.
_FAULTS: Final = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(ValueError, RuntimeError, OverflowError, IndexError),
)


class Archive:
    """An open archive.

    Raises:
        InputError: it is damaged or cut short, or has a name that leads out of it.
    """

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        self._stream = stream
        with self._told("the archive is damaged or cut short"):
            self._zip = zipfile.ZipFile(_BoundedReads(stream))
        for name in self._zip.namelist():
            if _leads_out(name):  # harmless here, but not to whoever unpacks it
                raise InputError(f"'{path}' has a member whose name leads out of the archive: {name[:80]!r}")

    def __contains__(self, name: str) -> bool:
        return name in self._zip.NameToInfo

    def read(self, name: str) -> bytes:
        """Return a member; of several with one name the last, as Inspect does.

        Raises:
            InputError: it is not there, damaged, encrypted, or larger than a member may be.
        """
        if name not in self:
            raise InputError(f"'{self._path}' has no '{name[:80]}'")
        info = self._zip.getinfo(name)
        if max(info.file_size, info.compress_size) > _MOST_MEMBER:
            raise self._refused(name, f"is larger than {_MOST_MEMBER // 1024**2} MiB")
        if info.flag_bits & _ENCRYPTED:
            raise self._refused(name, "is encrypted")
        with self._told(f"'{name[:80]}' is damaged"), self._opened(info) as stream:
            data = self._bounded(stream, info)
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise self._refused(name, "is damaged")
        return data

    @contextmanager
    def _opened(self, info: zipfile.ZipInfo) -> Iterator[Any]:
        if info.compress_type == _ZSTANDARD:
            require("zstandard", "a log of Inspect that is compressed by zstandard")
            import zstandard

            try:
                raw = io.BytesIO(self._raw(info))
                yield zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            except zstandard.ZstdError as error:
                raise zlib.error(str(error)) from error
        elif info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            with self._zip.open(info) as stream:
                yield stream
        else:
            raise self._refused(info.filename, f"is compressed by method {info.compress_type}")

    def _raw(self, info: zipfile.ZipInfo) -> bytes:
        self._stream.seek(info.header_offset)
        signature, name, extra = _LOCAL.unpack(self._stream.read(_LOCAL.size))
        if signature != b"PK\3\4":
            raise self._refused(info.filename, "is damaged")
        self._stream.seek(name + extra, os.SEEK_CUR)
        return self._stream.read(info.compress_size)

    def _bounded(self, stream: Any, info: zipfile.ZipInfo) -> bytes:
        """Read no more than the member says that it has, and not at a ratio that only bombs reach."""
        most = min(info.file_size, max(_ANY_RATIO_BELOW, _MOST_RATIO * info.compress_size))
        pieces, size = [], 0
        while piece := stream.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise self._refused(info.filename, "is much larger than its compressed size tells")
        return b"".join(pieces)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except _FAULTS as error:
            raise InputError(f"'{self._path}' cannot be read: {what}") from error

    def _refused(self, name: str, why: str) -> InputError:
        return InputError(f"'{self._path}' cannot be read: '{name[:80]}' {why}")


class _BoundedReads:
    """A file that refuses to be read at once beyond what a directory of an archive can honestly have."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable
        self._size = os.fstat(stream.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """Return up to so many bytes."""
        if size < 0:
            size = max(0, self._size - self._stream.tell())
        if size > _MOST_DIRECTORY:
            raise zipfile.BadZipFile("the directory is too large")
        return self._stream.read(size)


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or ":" in parts[0] or "\0" in name
