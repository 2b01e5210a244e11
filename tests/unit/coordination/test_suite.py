"""Many tasks measured: what is found, what it costs, and what a stopped run keeps."""

from __future__ import annotations

import asyncio
import json
import random
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("scipy")

from cert.coordination import (
    BaselineMeasurer,
    CoordinationOrchestrator,
    FunctionSystem,
    QualityEvaluator,
    Task,
    Usage,
)
from cert.coordination.evaluators import numeric
from cert.coordination.scripted import ScriptedChat
from cert.coordination.statistics.verdict import Rules
from cert.coordination.strategies.protocol import described
from cert.core.errors import BudgetExceededError
from cert.core.events import EventHub


def guess(request):
    rng = random.Random(repr(request.messages) + request.draw)
    return rng.choice(["42", "42", "41"])


def tasks(count: int, **fields: Any) -> list[Task]:
    return [Task(f"What is 6 × 7? (variant {n})", references=("42",), **fields) for n in range(count)]


class Made:
    """An orchestrator with its parts at hand."""

    def __init__(self, client: Any = None, store: Any = None, evaluator: Any = None, **options: Any) -> None:
        self.client = client or ScriptedChat(otherwise=guess)
        self.evaluator = evaluator or numeric()
        self.baseline = BaselineMeasurer(self.client, self.evaluator, store=store)
        self.orchestrator = CoordinationOrchestrator(
            self.client, self.baseline, self.evaluator, hub=EventHub(), **options
        )

    def suite(self, *arguments: Any, **options: Any) -> Any:
        async def run():
            try:
                return await self.orchestrator.measure_suite(*arguments, **options)
            finally:
                await self.baseline.aclose()

        return asyncio.run(run())

    def asked(self) -> list[tuple[str, str]]:
        return [(request.prompt_sha256, request.draw) for request in self.client.requests]


def system(name: str, quality: float, *, words: int = 1) -> FunctionSystem:
    """Return a system that is right in so many of its tasks."""

    async def answer(task: Task) -> dict[str, Any]:
        right = random.Random(name + task.id).random() < quality
        return {"text": "42" if right else "0", "usage": Usage(6, words), "cost": Decimal("0.000001")}

    return FunctionSystem(name, answer, client=ScriptedChat("unused"))


def test_a_system_that_is_better_is_worth_it_and_one_that_is_worse_is_not():
    """The three-way answer is what a platform owner acts on."""
    found = Made().suite(tasks(80), [system("oracle", 1.0), system("noise", 0.05)])
    assert found.finding("oracle").verdict == "worth_it"
    assert found.finding("oracle").decision.ratio.interval.low > 1.0
    assert found.finding("noise").verdict == "not_worth_it"
    assert "above the margin" in found.finding("oracle").reasons[0]


def test_little_data_is_said_to_be_little():
    """Five tasks do not tell a vote from itself, and the report says how many would."""
    (found,) = Made().suite(tasks(5), ["vote"]).findings
    assert found.verdict == "not_enough_data"
    assert found.decision.minimum_detectable_effect is None or found.decision.minimum_detectable_effect > 0.05


def test_a_run_that_was_cancelled_goes_on_without_paying_twice(tmp_path):
    """Ctrl-C in the middle of the night's run costs nothing but the time."""

    def begin(stop_after: int | None) -> Made:
        made = Made(store=tmp_path / "store.sqlite3")

        async def run():
            told = []

            def progress(step):
                told.append(step)
                if stop_after and len(told) >= stop_after:
                    task.cancel()

            task = asyncio.ensure_future(
                made.orchestrator.measure_suite(
                    tasks(6), ["vote", "debate(rounds=1)"], on_progress=progress, concurrency=2
                )
            )
            try:
                await task
            finally:
                await made.baseline.aclose()

        if stop_after:
            with pytest.raises(asyncio.CancelledError):
                asyncio.run(run())
        else:
            asyncio.run(run())
        return made

    first = begin(3)
    second = begin(None)
    assert first.client.requests
    assert second.client.requests
    assert not set(first.asked()) & set(second.asked())


def test_calls_that_were_out_at_a_kill_are_told_of_every_arm(tmp_path):
    """Money that may be gone is reported, whether the team or its baseline had asked."""
    store = tmp_path / "store.sqlite3"

    def hang(request):
        return asyncio.sleep(60, "42")

    async def give_up() -> None:
        made = Made(ScriptedChat(otherwise=hang), store=store)
        run = asyncio.ensure_future(made.orchestrator.measure_suite(tasks(1), ["vote"]))
        while len(made.client.requests) < 6:  # three agents, and three independent ones
            await asyncio.sleep(0.01)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await made.baseline.aclose()

    asyncio.run(give_up())
    lost = Made(store=store).suite(tasks(1), ["vote"]).lost
    assert len(lost.calls) == 6
    assert lost.most > 0


def test_another_run_shares_the_baseline_alone(tmp_path):
    """Five nightly runs pay for five teams and one baseline; the teams' noise stays real."""
    store = tmp_path / "store.sqlite3"
    spent = []
    for run in ("monday", "tuesday"):
        made = Made(store=store)
        report = made.suite(tasks(4), ["vote", "parallel"], run=run)
        spent.append(report.spent)
        if run == "tuesday":
            assert {draw.split("/")[0] for _, draw in made.asked()} == {"run-0"}
            assert report.saved > 0
    assert 0 < spent[1] < spent[0]


def test_the_same_run_again_costs_nothing(tmp_path):
    """Looking at yesterday's result must not buy it again."""
    made = [Made(store=tmp_path / "store.sqlite3") for _ in range(2)]
    reports = [one.suite(tasks(4), ["vote", "debate(rounds=1)", "parallel", "sequential"]) for one in made]
    assert reports[1].spent == 0
    assert made[1].client.requests == []
    assert reports[0].run == reports[1].run
    assert [found.decision for found in reports[0].findings] == [
        found.decision for found in reports[1].findings
    ]


def test_another_prompt_model_or_task_is_another_run():
    """Going on with a run whose agents have changed would mix two measurements."""
    made = Made()
    plain = made.orchestrator.plan(tasks(2), ["vote"])
    assert plain.named("e") == made.orchestrator.plan(tasks(2), ["vote"]).named("e")
    others = [
        made.orchestrator.plan(tasks(3), ["vote"]),
        made.orchestrator.plan(tasks(2), ["parallel"]),
        made.orchestrator.plan(tasks(2), ["vote"], seed=1),
        made.orchestrator.plan(tasks(2), ["vote"], num_agents=4),
        Made(temperature=0.5).orchestrator.plan(tasks(2), ["vote"]),
        Made(ScriptedChat("x", model="other")).orchestrator.plan(tasks(2), ["vote"]),
    ]
    names = {plan.named("e") for plan in others} | {plain.named("another evaluator")}
    assert len(names) == 7
    assert plain.named("e") not in names


def test_a_budget_that_ends_in_the_middle_keeps_what_was_measured():
    """What was paid for is reported, and that it is not all."""
    left = [60]

    def limited(request):
        left[0] -= 1
        if left[0] < 0:
            raise BudgetExceededError("nothing left")
        return guess(request)

    report = Made(ScriptedChat(otherwise=limited)).suite(tasks(12), ["vote"], concurrency=1)
    assert report.stopped == "budget"
    assert 0 < len(report.rows) < 12
    assert report.tasks == 12
    assert report.findings[0].tasks == len(report.rows)


def test_a_suite_that_is_too_dear_is_not_begun():
    """The estimate is made before the first dollar, not after the last."""
    made = Made()
    with pytest.raises(BudgetExceededError, match="would cost about"):
        made.suite(tasks(10), ["debate"], max_cost=Decimal("0.001"))
    assert made.client.requests == []


def test_a_suite_ends_when_its_money_is_spent():
    """An estimate that was wrong is no licence to spend on."""
    made = Made(ScriptedChat(otherwise="42 " * 200))
    report = made.suite(tasks(12), ["vote"], max_cost=Decimal("0.02"), output_tokens=1, concurrency=1)
    assert report.stopped == "max_cost"
    assert 0 < len(report.rows) < 12


@pytest.mark.parametrize("name", ["vote", "parallel", "debate(rounds=1)", "sequential"])
def test_the_estimate_counts_the_calls_that_are_made(name):
    """A forecast that forgets the aggregator, the second sample or the judge misleads."""
    words = "word " * 25

    def said(request):
        return {"points": 5} if request.tool else words.strip()

    client, judge = ScriptedChat(otherwise=said), ScriptedChat(otherwise="no judgement", model="judge")
    made = Made(client, evaluator=QualityEvaluator(judge), equivalence=None)
    plan = made.orchestrator.plan(tasks(3), [name])
    estimate = asyncio.run(made.orchestrator.estimate(plan, output_tokens=25))
    assert estimate.unknown == ()
    assert client.requests == judge.requests == []
    made.suite(plan)
    assert len(client.requests) + len(judge.requests) <= estimate.calls
    assert estimate.expected <= estimate.at_most


def test_what_is_not_known_beforehand_is_named():
    """A system of the user's own has no estimate, which is not an estimate of nothing."""
    made = Made()
    plan = made.orchestrator.plan(tasks(2), [system("mine", 0.5)])
    assert asyncio.run(made.orchestrator.estimate(plan)).unknown == ("mine",)


def test_a_suite_may_stop_as_soon_as_it_is_clear():
    """A hopeless team is not paid for three hundred times."""
    seen: list[str] = []

    async def answer(task: Task) -> dict[str, Any]:
        seen.append(task.id)
        return {"text": "0", "usage": Usage(6, 1), "cost": Decimal(0)}

    hopeless = FunctionSystem("hopeless", answer, client=ScriptedChat("unused"))
    report = Made().suite(tasks(200), [hopeless], sequential=True, batch=20)
    (found,) = report.findings
    assert found.verdict == "not_worth_it"
    assert found.sequential.stopped_at is not None
    assert len(seen) < 120


def test_tasks_of_one_source_are_never_looked_at_apart():
    """Half of a document's tasks would tell more than they know."""
    made = Made()
    several = [Task(f"Task {n}?", references=("42",), source=f"s{n % 7}") for n in range(50)]
    plan = made.orchestrator.plan(several, ["vote"], sequential=True, batch=8)
    batches = [{task.source for task in batch} for batch in plan.batches]
    assert sum(map(len, batches)) == 7
    assert sum(map(len, plan.batches)) == 50


def test_missing_judgements_are_counted_and_bound_the_answer():
    """A judge that fails on the hard tasks must not make a team look good in silence."""

    def said(request):
        return "42" if "variant 1" not in request.messages[0].content else "no number here"

    (found,) = Made(ScriptedChat(otherwise=said)).suite(tasks(20), ["vote"]).findings
    assert found.missing == 11
    assert found.team.missing == 11
    low, high = found.decision.difference.worst_case
    assert low < 0.0 < high
    assert any("judgements are missing" in reason for reason in found.reasons)


def test_a_system_that_raises_is_missing_and_the_others_go_on():
    """One broken integration does not end the night's run."""

    async def broken(task: Task) -> str:
        raise RuntimeError("a bug of the user's")

    report = Made().suite(tasks(3), ["vote", FunctionSystem("mine", broken)])
    assert {row.missing.get("coordinated") for row in report.rows if row.system == "mine"} == {
        "error: RuntimeError"
    }
    assert report.finding("mine").verdict == "not_enough_data"
    assert report.finding("vote").tasks == 3


def test_a_system_without_prices_has_no_matched_budget_and_says_so():
    """The headline number is about money; without it there is none."""

    async def plain(task: Task) -> str:
        return "42"

    report = Made().suite(tasks(3), [FunctionSystem("mine", plain)])
    assert report.finding("mine").decision.ratio.value is None
    assert any("does not tell" in reason for reason in report.finding("mine").reasons)


def test_the_report_is_json():
    """Holes are null, money is text, and a program can read all of it."""
    report = Made().suite(tasks(3), ["vote", "debate(rounds=1)"])
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["kind"] == "coordination_report"
    assert len(told["rows"]) == 6
    assert isinstance(told["spent"], str)
    assert told["rows"][0]["transcripts"]
    assert "transcripts" not in report.to_dict(transcripts=False)["rows"][0]


def test_a_strategy_of_ones_own_is_measured_like_the_others():
    """The registry and the orchestrator know nothing of particular strategies."""
    from dataclasses import dataclass
    from typing import ClassVar

    from cert.coordination.strategies import Discussion

    @dataclass(frozen=True)
    class Boss:
        name: ClassVar[str] = "boss"

        @property
        def identity(self):
            return described(self)

        async def __call__(self, task, team):
            talk = Discussion(self.identity, task, team)
            said = await talk.answer_alone()
            return talk.close_with(said[-1])

    made = Made()
    plan = made.orchestrator.plan(tasks(3), [Boss()])
    estimate = asyncio.run(made.orchestrator.estimate(plan))
    assert estimate.unknown == ()
    report = made.suite(plan)
    assert report.findings[0].system == "boss"
    assert report.findings[0].samples == 3


def test_rules_reach_the_verdict():
    """A margin of half a score is not reached by a small gain."""
    report = Made().suite(tasks(80), [system("oracle", 1.0)], rules=Rules(margin=0.8, minimum_effect=0.9))
    assert report.findings[0].verdict == "not_worth_it"
