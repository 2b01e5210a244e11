"""Where jobs, answers and the state of drift lie: one PostgreSQL, or three SQLite files side by side."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cert.core.errors import ConfigurationError

__all__ = ["Places", "places_of"]


@dataclass(frozen=True)
class Places:
    """Paths or URLs of the three.

    Attributes:
        jobs, answers, drift: each as `cert.coordination.store.databases.open_database` takes it.
        shared: other replicas use them, and they outlive this process.
    """

    jobs: str
    answers: str
    drift: str
    shared: bool
    folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder is not None:
            self.folder.cleanup()


def places_of(url: str | None) -> Places:
    """Return the places of a setting; without one, files of this process that go with it.

    Each store of a SQLite file has a file of its own, as the library wants it.

    Raises:
        ConfigurationError: the URL of SQLite names no file.
    """
    folder = None
    if url is None:
        # Sealed with a key that is in this process's memory alone.
        folder = tempfile.TemporaryDirectory(prefix="cert-jobs-", ignore_cleanup_errors=True)
        url = f"sqlite:///{folder.name}/jobs.db"
    elif not url.startswith("sqlite:"):
        return Places(url, url, url, shared=True)
    file = url.removeprefix("sqlite:///")
    if not file or file == ":memory:":
        raise ConfigurationError("CERT_DATABASE_URL names no file", hint="such as sqlite:////data/jobs.db")
    path = Path(file)

    def beside(what: str) -> str:
        return str(path.with_name(f"{path.stem}-{what}{path.suffix or '.db'}"))

    return Places(str(path), beside("answers"), beside("drift"), shared=folder is None, folder=folder)
