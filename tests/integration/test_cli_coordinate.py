"""``cert coordinate suite`` as a process: killed or interrupted, it goes on and pays for nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("openai")
pytest.importorskip("scipy")
pytest.importorskip("sqlalchemy")

from cert.coordination.store import open_store
from cert.testing import FaultServer, RecordedRequest, Reply, ok

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

CERT = [sys.executable, "-c", "from cert.cli.main import main; main()"]


def answer(request: RecordedRequest) -> Reply:
    return ok(("It is 42", "It is 41")[request.number % 5 == 0], delay=0.05)


def start(folder: Path, server: FaultServer) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(*CERT, "coordinate", "suite", "tasks.jsonl", "--model", f"openai:scripted@{server.url}/v1"),
            *("--price", "3,15", "--evaluator", "numeric", "--systems", "vote,debate(rounds=1)", "--json"),
            *("--requests-per-minute", "100000", "--concurrency", "1"),
        ],
        cwd=folder,
        env=os.environ | {"COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(server: FaultServer, count: int, process: subprocess.Popen[str]) -> None:
    """Wait for requests; the test's own time-out ends it if they never come."""
    while len(server.requests) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.timeout(300)
def test_a_suite_outlives_a_kill_and_a_ctrl_c_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    """Money that was spent stays spent well: the same command goes on with every answer that had arrived."""
    lines = [{"task": f"What is six times seven, variant {i}?", "answer": 42} for i in range(6)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with FaultServer(answer) as server:
        killed = start(tmp_path, server)
        wait_for(server, 100, killed)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        after_kill = len(server.requests)

        interrupted = start(tmp_path, server)
        wait_for(server, after_kill + 60, interrupted)
        interrupted.send_signal(signal.SIGINT)
        told, errors = interrupted.communicate()
        assert interrupted.returncode == 130
        assert told == ""
        assert "the same command, run again, goes on" in errors
        assert "Traceback" not in errors

        before, kept = len(server.requests), answers_kept(tmp_path)
        whole = start(tmp_path, server)
        told, errors = whole.communicate()
        assert whole.returncode == 0, errors
        report = json.loads(told)
        asked = len(server.requests)

        free = start(tmp_path, server)
        assert json.loads(free.communicate()[0])["spent"] == "0.000000"
        assert len(server.requests) == asked
    # Lost is only what was on its way at the two ends; whatever had arrived is not asked for again.
    assert kept >= 20
    assert asked - before == answers_kept(tmp_path) - kept
    assert float(report["saved"]) > 0


def answers_kept(folder: Path) -> int:
    """How many completions the store has."""

    async def counted() -> int:
        async with open_store(folder / ".cert" / "coordination.sqlite3") as store:
            return await store.entries(kind="completion")

    return asyncio.run(counted())
