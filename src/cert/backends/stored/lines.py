"""Lines of a file of any size, one at a time, in constant memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from cert.backends.stored.items import record_error
from cert.core.errors import CertError, DependencyMissingError, InputError

__all__ = ["COMPRESSED", "Line", "open_binary", "read_lines"]

COMPRESSED = (".gz", ".zst")

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank.

    Attributes:
        number: counted from 1, blank lines included.
        data: its bytes, or the error that there are none to be had.
        whole: it ends with a line feed; the last line of a file may not, and may then be cut off.
    """

    number: int
    data: bytes | CertError
    whole: bool = True


def open_binary(path: Path) -> IO[bytes]:
    """Open a file to be read, unpacking ``.gz`` and ``.zst``.

    Raises:
        InputError: it is not there, is a folder or may not be read.
        DependencyMissingError: ``.zst`` without pyarrow.
    """
    try:
        if path.is_dir():
            raise InputError(f"'{path}' is a folder", hint="name a file")
        if path.suffix == ".gz":
            return cast("IO[bytes]", gzip.open(path, "rb"))
        if path.suffix == ".zst":
            return _open_zstd(path)
        return path.open("rb", buffering=2**20)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def read_lines(stream: IO[bytes], max_bytes: int) -> Iterator[Line]:
    """Yield the lines of a stream and close it; a damaged end is the last line's error."""
    number = 0
    with stream:
        try:
            while data := stream.readline(max_bytes + 1):
                number += 1
                if len(data) > max_bytes and not data.endswith(b"\n"):
                    _pass_over(stream)
                    yield Line(number, record_error(f"the line is longer than {max_bytes:,} bytes"))
                    continue
                if number == 1:
                    data = data.removeprefix(_BOM)
                if not data.isspace() or data.strip(_BLANK):
                    yield Line(number, data, whole=data.endswith(b"\n"))
        except (OSError, EOFError, zlib.error) as error:
            message = "the file is damaged or cut off, so that nothing after this can be read"
            damaged = record_error(message, line=number + 1)
            damaged.__cause__ = error
            yield Line(number + 1, damaged, whole=False)


def _pass_over(stream: IO[bytes]) -> None:
    while (data := stream.readline(2**20)) and not data.endswith(b"\n"):
        pass


def _open_zstd(path: Path) -> IO[bytes]:
    try:
        import pyarrow as pa
    except ImportError:
        raise DependencyMissingError(
            "reading .zst files needs pyarrow", hint="pip install 'cert-framework[parquet]'"
        ) from None
    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 2**16)
