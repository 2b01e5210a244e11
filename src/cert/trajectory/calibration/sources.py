"""The files that data are read from: which they are, and what they hold, by digest."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import msgspec

from cert.core.errors import InputError
from cert.trajectory.calibration.label_file import Labels, read_labels

__all__ = ["identity", "labels_and_digest", "sha256"]


def labels_and_digest(labels: Labels | str | Path | None) -> tuple[Labels | None, str | None]:
    """Return labels, read if they are in a file, and their digest.

    Raises:
        InputError: the file cannot be read.
    """
    if labels is None:
        return None, None
    if isinstance(labels, Labels):
        rows = sorted((key, one.correct, one.unit, one.group) for key, one in labels.by_key.items())
        return labels, hashlib.sha256(msgspec.json.encode(rows)).hexdigest()
    return read_labels(labels), sha256(Path(labels))


def identity(path: Path) -> tuple[int, ...]:
    """Return what changes when somebody writes a file.

    Raises:
        InputError: it is not there, or is no regular file.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"'{path}' is no file", hint="a pipe can be read once only; save it first")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def sha256(path: Path) -> str:
    """Return the digest of a file's bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
