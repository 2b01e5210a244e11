"""The program promised for teams of agents, as it stands, against a server of the vendor's API."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("anthropic")

from cert.testing import FaultServer, ok

PROGRAM = """
import asyncio
from cert.coordination import (AnthropicClientWithResilience, BaselineMeasurer, CoordinationOrchestrator, QualityEvaluator)

async def measure_coordination():
    client = AnthropicClientWithResilience(api_key="your_key", requests_per_minute=50, max_cost_per_hour=10.0)
    evaluator = QualityEvaluator(client)
    baseline_measurer = BaselineMeasurer(client, evaluator)
    orchestrator = CoordinationOrchestrator(client=client, baseline_measurer=baseline_measurer, evaluator=evaluator)
    metrics = await orchestrator.measure_coordination(task="Explain quantum computing in simple terms", num_agents=3, strategy="parallel")
    print(metrics.gamma, metrics.omega, metrics.consensus_rate, metrics.is_coordination_effective())
"""  # noqa: E501  # as it was promised

# The vendor's address is replaced, and nothing else: the key goes to the server of the test.
ELSEWHERE = """
from cert.coordination.clients import anthropic
anthropic.VENDOR_URL = "{url}"
"""


def answer(request):
    """Judge where the request asks for a judgement, else explain; the longer prompt is answered better."""
    if "tools" not in request.body:
        return ok("Qubits are both until one looks.")
    shown = str(request.body["messages"])
    points = 9 if "both until one looks" in shown else 2
    return replace(
        ok(""),
        arguments={
            "rationale": "clear",
            "scores": {"correctness": points, "completeness": points, "clarity": points},
        },
    )


def test_the_program_of_the_coordination_monitor(warm_python, tmp_path):
    """Whoever copies it from the documents has γ and ω on the screen."""
    with FaultServer(answer, api_key="your_key") as server:
        program = ELSEWHERE.format(url=server.url) + PROGRAM + "\nasyncio.run(measure_coordination())\n"
        done = warm_python.run(program, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        gamma, omega, consensus, effective = done.stdout.split()
        assert (float(gamma), float(omega), effective) == (1.0, 0.0, "False")
        assert consensus in ("None", "1.0")
        # Three agents and the aggregator, three baselines, and a judgement of each of the four answers.
        assert len(server.requests) <= 4 + 3 + 4
