"""Files that a command writes: found to be writable before the work starts, and never half written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cert.core.errors import OutputError

__all__ = ["check_writable", "write_text"]


def check_writable(path: Path) -> None:
    """Make sure that a file can be written, leaving what is there as it is.

    Raises:
        OutputError: the folder is not there, or the path is a folder or may not be written.
    """
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder", hint="name a file")
    if not folder.is_dir():
        raise OutputError(
            f"'{path}' cannot be written: there is no folder '{folder}'", hint="create it first"
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"'{path}' cannot be written: permission denied")
    try:
        # Permission bits say nothing of a read-only or full file system: only trying does.
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: it could not be written; what was there before is still there.
    """
    if path.exists() and not path.is_file():
        _write_device(path, text)
        return
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        # mkstemp makes the file private; a report is as readable as any new file.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(f"'{path}' could not be written: {error.strerror or error}") from error


def _write_device(path: Path, text: str) -> None:
    # /dev/stdout and pipes can't be replaced.
    try:
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise OutputError(f"'{path}' could not be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
