"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from cert.core.errors import OutputError

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a regular file whole or not at all; devices, pipes and links are written through.

    Returns:
        The path.

    Raises:
        OutputError: it could not be written; a regular file that was there before is still there.
    """
    file = Path(path)
    try:
        # Replacing a link or a device would destroy it.
        if file.is_symlink() or (file.exists() and not file.is_file()):
            file.write_bytes(content)
        else:
            _replace(file, content)
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"'{file}' could not be written: {reason}") from error
    return file


def _replace(file: Path, content: bytes) -> None:
    # mkstemp makes the file private: it becomes as readable as the old one, or as any new file.
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o666 & ~_umask()
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".cert-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, file)
    # Also on Ctrl-C: nothing half written stays behind.
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
