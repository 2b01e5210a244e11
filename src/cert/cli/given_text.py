"""Prompts and other texts that a command is given as an argument, on standard input or in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Annotated

import typer

from cert.core.errors import InputError

__all__ = ["PromptFile", "given_text", "read_json", "read_text"]

PromptFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", exists=True, dir_okay=False, help="Read the prompt from a file."),
]

# No prompt within any sensible limit is larger; a wrong file must not be read into memory whole.
_MOST_BYTES = 16 * 1024 * 1024


def given_text(text: str | None, file: Path | None, what: str = "prompt") -> str:
    """Return the text that is given as an argument, by ``-`` on standard input, or in a file.

    Raises:
        typer.BadParameter: none or both are given.
        InputError: it cannot be read, is too large or is not UTF-8.
    """
    if (text is None) == (file is None):
        raise typer.BadParameter(f"give a {what}, '-' for stdin, or a file, and just one of them")
    return text if text is not None and text != "-" else read_text(file, what)


def read_text(file: Path | None, what: str) -> str:
    """Return the text of a file, or of standard input for ``None``.

    Raises:
        InputError: it cannot be read, is too large or is not UTF-8.
    """
    try:
        if file is not None:
            with file.open("rb") as stream:
                raw = _bounded(stream, what)
        elif sys.stdin is None:
            raise InputError(f"the {what} cannot be read: standard input is closed")
        else:
            raw = _bounded(sys.stdin.buffer, what)
    except OSError as error:
        raise InputError(f"the {what} cannot be read: {error.strerror or error}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the {what} is not UTF-8 text: byte {error.start}") from error


def read_json(file: Path, what: str) -> object:
    """Return what the JSON of a file says.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    import msgspec

    try:
        return msgspec.json.decode(read_text(file, what))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"the {what} is not JSON: {error}") from error


def _bounded(stream: IO[bytes], what: str) -> bytes:
    raw = stream.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise InputError(f"the {what} is larger than {_MOST_BYTES:,} bytes")
    return raw
