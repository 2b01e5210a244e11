"""Files that a command writes: found to be writable before the work starts, and never half written."""

from __future__ import annotations

import os
import stat
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
    try:
        if path.is_dir():
            raise OutputError(f"'{path}' is a folder", hint="name a file")
        if not folder.is_dir():
            raise OutputError(f"'{path}' cannot be written: no folder '{folder}'", hint="create it first")
        if path.exists() and not os.access(path, os.W_OK):
            raise OutputError(f"'{path}' cannot be written: permission denied")
        if not _in_place(path):
            # Permission bits say nothing of a read-only or full file system: only trying does.
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"\0")
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a regular file whole or not at all; devices, pipes and links are written through.

    Raises:
        OutputError: it could not be written; a regular file that was there before is still there.
    """
    try:
        if _in_place(path):
            with path.open("w", encoding="utf-8") as stream:
                stream.write(text)
        else:
            _replace(path, text)
    except OSError as error:
        raise OutputError(f"'{path}' could not be written: {error.strerror or error}") from error


def _in_place(path: Path) -> bool:
    # Replacing a link or a device (/dev/stdout is both) would destroy it.
    return path.is_symlink() or (path.exists() and not path.is_file())


def _replace(path: Path, text: str) -> None:
    # mkstemp makes the file private: it becomes as readable as the old one, or as any new file.
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".cert-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    # Also on Ctrl-C: nothing half written stays behind.
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
