"""``cert --profile FILE``: where a command's time went."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cert.core.errors import OutputError

__all__ = ["profiled"]


@contextlib.contextmanager
def profiled(path: Path) -> Iterator[None]:
    """Profile a block, and write the profile also when the block fails or is interrupted.

    How the block ended decides the exit code, and never the profile: one that cannot be written in the end is
    told on standard error.

    Raises:
        CertError: before the block: the file's name, place or the missing library, as `profile_to` says.
    """
    from cert.cli.console import stderr
    from cert.cli.view import printable
    from cert.observability.profiling import profile_to

    profile = profile_to(path)
    profile.__enter__()
    try:
        yield
    finally:
        try:
            profile.__exit__(None, None, None)
            told = f"profile: {path}"
        except OutputError as error:
            told = f"warning: {error.message}"
        stderr().print(printable(told), markup=False, highlight=False, soft_wrap=True)
