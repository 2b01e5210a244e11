"""The judge over real sockets: what servers do wrong is missing, and what they charge is booked."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

pytest.importorskip("anthropic")
pytest.importorskip("openai")

from cert.coordination.client import AnthropicClientWithResilience, OpenAIChatClient, Price
from cert.coordination.evaluators import PairwiseEvaluator, QualityEvaluator
from cert.coordination.types import Task
from cert.core.errors import BudgetExceededError
from cert.core.resilience import ResiliencePolicy
from cert.core.retry import RetryPolicy
from cert.testing import FaultServer, error, ok

PRICE = Price(input=Decimal(3), output=Decimal(15))
GOOD = {"rationale": "fine", "scores": {"correctness": 10, "completeness": 5, "clarity": 10}}
TASK = Task("Name the capital of France.", references=("Paris",))


def called(arguments):
    """Return a reply that calls the tool of the request."""
    return replace(ok(""), arguments=arguments)


def client_of(dialect, server, **options):
    """Return a client of one of the two dialects."""
    if dialect == "anthropic":
        return AnthropicClientWithResilience(
            "key", model="judge", base_url=server.url, price=PRICE, **options
        )
    return OpenAIChatClient("judge", base_url=f"{server.url}/v1", price=PRICE, **options)


def evaluate(dialect, *replies, evaluator=None, client=None):
    """Return an evaluation by a judge on a server that gives these replies, and the server."""

    async def run():
        async with client_of(dialect, server, **(client or {})) as judge:
            return await QualityEvaluator(judge, **(evaluator or {})).evaluate(TASK, "It is Paris.")

    with FaultServer(replies) as server:
        return asyncio.run(run()), server


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_a_judgement_comes_by_the_tool_and_costs_what_the_server_charges(dialect):
    """A judge whose cost is not booked makes coordination look cheaper than it is."""
    evaluation, server = evaluate(dialect, called(GOOD), called(GOOD), evaluator={"repeats": 2})
    assert evaluation.score == pytest.approx(5 / 6)
    assert evaluation.scores == (evaluation.score,) * 2
    account = server.account
    assert evaluation.cost_micro_dollars == account.micro_dollars
    assert evaluation.usage.input_tokens == account.input_tokens
    assert evaluation.usage.output_tokens == account.output_tokens
    assert all(request.body["tool_choice"] for request in server.requests)


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (ok("I would give it a 10."), "no_tool_call"),
        (
            called({"rationale": "", "scores": {"correctness": 11, "completeness": 1, "clarity": 1}}),
            "out_of_range",
        ),
        (called({"score": 10}), "wrong_keys"),
        (replace(ok("No."), refused=True), "refusal"),
        (ok("word " * 200), "cut_off"),
        (error(400, "no"), "upstream_rejected"),
    ],
)
def test_what_a_server_sends_in_place_of_a_judgement_is_missing(dialect, reply, reason):
    """Every server has a way of its own to say nothing; none of them is a score."""
    evaluation, _ = evaluate(dialect, reply, evaluator={"max_tokens": 100})
    assert (evaluation.score, evaluation.missing) == (None, reason)


def test_a_judge_that_cannot_be_reached_is_missing():
    """A vendor's bad hour must show as missing data, with its reason."""
    once = ResiliencePolicy(retry=RetryPolicy(attempts=1))
    evaluation, _ = evaluate("anthropic", error(529), client={"policy": once})
    assert evaluation.score is None
    assert evaluation.missing in {"upstream_unavailable", "retries_exhausted"}


def test_a_judge_without_money_is_not_missing():
    """An empty purse is for the owner to know at once, not a column of missing judgements."""
    with pytest.raises(BudgetExceededError):
        evaluate("anthropic", called(GOOD), client={"max_cost_per_hour": Decimal("0.000001")})


def test_a_comparison_over_http_asks_in_both_orders():
    """The second order must show the answers the other way round, on the wire."""

    async def run():
        async with client_of("anthropic", server) as judge:
            return await PairwiseEvaluator(judge).compare(TASK, "Paris", "Lyon")

    with FaultServer(otherwise=called({"rationale": "", "verdict": "first"})) as server:
        preference = asyncio.run(run())
    assert (preference.preferred, preference.flips) == ("tie", 1)
    shown = [
        request.body["messages"][0]["content"].partition("begin first answer")[2]
        for request in server.requests
    ]
    assert sorted(text.index("| Paris") < text.index("| Lyon") for text in shown) == [False, True]
