"""Profiles of a block of code, and the timings of its stages."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cert.core.errors import ConfigurationError, DependencyMissingError, OutputError
from cert.core.stages import Stages

__all__ = ["Stages", "profile_to"]

_SUFFIXES = (".html", ".json", ".txt")


@contextlib.contextmanager
def profile_to(path: str | Path, *, interval: float = 0.001) -> Iterator[None]:
    """Sample the calling thread while the block runs, and write where its time went.

    The file is written when the block raises too. It holds names of functions and files, and no values.

    Args:
        path: ``.html`` for a page of pyinstrument, ``.json`` (``.speedscope.json``) for speedscope, ``.txt``
            for a tree to read in a terminal. Replaced if it exists.
        interval: seconds between samples.

    Raises:
        ConfigurationError: an unknown suffix, or a profile is being taken already.
        OutputError: the file cannot be written; told before the block runs.
        DependencyMissingError: pyinstrument is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(
            f"{target.name!r} does not say which kind of profile", hint=f"end it with {', '.join(_SUFFIXES)}"
        )
    profiler, renderer = _profiler(target, interval)
    with _writable(target) as part:
        try:
            profiler.start()
        except RuntimeError as error:
            raise ConfigurationError(f"no profile can be taken now: {error}") from error
        try:
            yield
        finally:
            session = profiler.stop()
            try:
                part.write_text(renderer.render(session), encoding="utf-8")
                part.replace(target)
            except OSError as error:
                raise _refused(target, error) from error


def _profiler(target: Path, interval: float) -> tuple[Any, Any]:
    try:
        from pyinstrument import Profiler, renderers
    except ImportError as error:
        raise DependencyMissingError(
            "profiles need the package 'pyinstrument'", hint="pip install 'cert-framework[profiling]'"
        ) from error
    kinds = {
        ".html": renderers.HTMLRenderer,
        ".json": renderers.SpeedscopeRenderer,
        ".txt": renderers.ConsoleRenderer,
    }
    return Profiler(interval=interval), kinds[target.suffix.lower()]()


@contextlib.contextmanager
def _writable(target: Path) -> Iterator[Path]:
    # Beside the target, so that the last step is a rename: what was there stays until there is a new one.
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        with part.open("x"):
            pass
    except OSError as error:
        raise _refused(target, error) from error
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _refused(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the profile cannot be written to {str(target)!r}: {error.strerror or error}",
        hint="name a file in a directory that exists and that this user may write",
    )
