"""Processes that share the state of drift, and such as are killed: each score counts once."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cert.coordination.drift import DriftMonitor, Plan

WORKER = Path(__file__).parent / "drift_worker.py"
PLAN = Plan(reference=30, horizon=50)
SCORES = [
    *np.clip(np.random.default_rng(0).normal(0.7, 0.12, 30), 0, 1).tolist(),
    *np.clip(np.random.default_rng(1).normal(0.5, 0.12, 90), 0, 1).tolist(),
]


def start(database, first, last, death="lives"):
    return subprocess.Popen(
        [sys.executable, str(WORKER), database, str(first), str(last), death, *map(str, SCORES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(worker, status=0):
    _, failure = worker.communicate(timeout=60)
    assert worker.returncode == status, failure


def do(database, work):
    async def main():
        async with DriftMonitor(database, plan=PLAN, now=lambda: 1000.0) as monitor:
            return await work(monitor)

    return asyncio.run(main())


def test_two_processes_lose_no_score_of_each_other(database):
    """Two that read, add and write would each undo what the other added."""
    workers = [start(database, 0, 60), start(database, 60, 120)]
    for worker in workers:
        ended(worker)
    found = do(database, lambda monitor: monitor.status("team", "sums"))
    assert found.reference == 30
    assert found.seen == 90


@pytest.mark.parametrize("death", ["before", "after"])
def test_a_kill_loses_one_score_at_most_and_a_repetition_counts_once(database, tmp_path, death):
    """Killed before the save: that score is lost. After it: kept. Repeated with its key: never twice."""
    ended(start(database, 0, 60, f"{death}:33"), status=-9)
    killed = do(database, lambda monitor: monitor.status("team", "sums"))
    assert killed.reference + killed.seen == (33 if death == "before" else 34)
    keys = [str(i) for i in range(60)]

    def tell(monitor):
        return monitor.observe_all("team", "sums", SCORES[:60], keys=keys)

    resumed, whole = do(database, tell), do(str(tmp_path / "whole.db"), tell)
    assert resumed == whole
    assert whole.alarm is not None
