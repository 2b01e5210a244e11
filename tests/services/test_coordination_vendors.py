"""Measurements of models behind the vendors' APIs: what they find, what they pay, and what failures do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from fastapi import FastAPI
from tests.services.test_coordination_app import calling, measured

from cert.core.config import load_settings
from cert.services.coordination.app import create_app
from cert.testing import FaultServer, RecordedRequest, Reply, error, ok

pytest.importorskip("anthropic")
pytest.importorskip("openai")

pytestmark = pytest.mark.anyio
KEY = "vendor-key-of-a-test"
FAST = {"CERT_REQUESTS_PER_MINUTE": "100000", "CERT_TOKENS_PER_MINUTE": "60000000"}


@dataclass
class Vendor:
    """A scripted server of a vendor's API, and the service in front of it."""

    name: str
    server: FaultServer

    def app(self, **environment: str) -> FastAPI:
        source = (
            f"anthropic:scripted@{self.server.url}"
            if self.name == "anthropic"
            else f"openai:scripted@{self.server.url}/v1"
        )
        key = {"anthropic": "CERT_ANTHROPIC_API_KEY", "openai": "CERT_OPENAI_API_KEY"}[self.name]
        told = {"CERT_MODELS": source, "CERT_PRICES": "scripted=3/15", key: KEY, **FAST, **environment}
        return create_app(load_settings(told))

    @property
    def paid(self) -> Decimal:
        """Dollars that the vendor charges."""
        return Decimal(self.server.account.micro_dollars).scaleb(-6)


@pytest.fixture(params=["anthropic", "openai"])
def vendor(request: pytest.FixtureRequest) -> Iterator[Vendor]:
    with FaultServer(otherwise=ok("The answer is 42"), api_key=KEY) as server:
        yield Vendor(request.param, server)


def now_and_then(reply: Reply, every: int) -> Callable[[RecordedRequest], Reply]:
    """Fail at each so many-th request."""
    return lambda request: reply if request.number % every == every - 1 else ok("The answer is 42")


async def test_a_measurement_finds_pays_and_books_what_the_vendor_says(vendor):
    """Whoever pays by these numbers would pay another bill."""
    async with calling(vendor.app()) as client:
        assert (await client.get("/v1/models")).json()["items"] == [
            {"name": "scripted", "default": True, "usable": True}
        ]
        job = await measured(client, evaluator="numeric")
        assert job["state"] == "succeeded"
        assert Decimal(job["spent"]) == vendor.paid > 0
        [finding] = job["summary"]["findings"]
        assert (finding["system"], finding["quality"]) == ("vote", 0.5)
        costs = (await client.get("/v1/costs")).json()
        assert {(item["model"], item["calls"]) for item in costs["items"]} == {
            ("scripted", len(vendor.server.requests))
        }
        assert Decimal(costs["spent"]) == vendor.paid
        result = (await client.get(f"/v1/measurements/{job['id']}/result")).json()
        assert {row["coordinated"] for row in result["rows"]} == {0.0, 1.0}
        asked = len(vendor.server.requests)
        again = await measured(client, evaluator="numeric")
        assert (again["spent"], len(vendor.server.requests)) == ("0.000000", asked)
        assert KEY not in str([(await client.get(f"/v1/{path}")).text for path in ("measurements", "costs")])


@pytest.mark.parametrize("failure", [error(429, retry_after=0.05), error(500)], ids=["429", "500"])
async def test_what_passes_by_itself_changes_no_result(vendor, failure):
    """One bad minute of a vendor would cost a night's measurement."""
    vendor.server.then(now_and_then(failure, 5))
    async with calling(vendor.app()) as client:
        job = await measured(client, evaluator="numeric")
        assert job["state"] == "succeeded"
        [finding] = job["summary"]["findings"]
        assert (finding["quality"], finding["single_missing"]) == (0.5, 0)
        assert Decimal(job["spent"]) == vendor.paid


async def test_a_vendor_that_refuses_the_key_ends_the_measurement_and_is_told(vendor):
    """Hundreds of calls that cannot succeed would be made, and nobody told why nothing was measured."""
    vendor.server.then(lambda _: error(401, message=f"wrong key {KEY}"))
    async with calling(vendor.app()) as client:
        job = await measured(client)
        text = str(job)
        assert job["state"] == "failed" or job["summary"]["findings"][0]["verdict"] == "not_enough_data", job
        assert KEY not in text
        assert job["spent"] == "0.000000"


async def test_no_more_is_paid_than_the_budget(vendor):
    """The limit is on what the vendor charges, and not on what the service believes."""
    vendor.server.then(lambda _: ok("word " * 60))
    async with calling(vendor.app(CERT_MAX_COST_TOTAL="0.02")) as client:
        tasks = [{"text": f"What is {n} + {n}?", "references": ["1"]} for n in range(12)]
        job = await measured(client, tasks=tasks, max_tokens=100)
        budget = (await client.get("/v1/budget")).json()
        stopped = (job["summary"] or {}).get("stopped")
        assert stopped == "budget" or job["error"]["code"] == "budget_exceeded", job
        assert Decimal(budget["spent_in_total"]) == vendor.paid
        assert 0 < vendor.paid <= Decimal(budget["total"])


async def test_a_judge_of_the_vendors_scores_and_its_cost_is_the_measurements(vendor):
    """A judge asks in another way, by a tool: its calls and its bill must not be missing."""

    def says(request: RecordedRequest) -> Reply:
        if not request.body.get("tools"):
            return ok("Qubits are both until one looks.")
        scores = {"correctness": 9, "completeness": 9, "clarity": 9}
        return replace(ok(""), arguments={"rationale": "clear", "scores": scores})

    vendor.server.then(says)
    tasks: list[dict[str, Any]] = [{"text": "Explain qubits."}]
    async with calling(vendor.app()) as client:
        job = await measured(client, tasks=tasks, judge="scripted")
        assert job["state"] == "succeeded", job
        assert job["summary"]["findings"][0]["quality"] == 0.9
        costs = (await client.get("/v1/costs")).json()
        assert Decimal(costs["spent"]) == vendor.paid
