"""One task measured: the classic numbers, the matched budget, and why a number is missing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from cert.coordination import BaselineMeasurer, CoordinationOrchestrator, Task, strategies
from cert.coordination.evaluators import CallableEvaluator, numeric
from cert.coordination.scripted import ScriptedChat
from cert.coordination.strategies.team import Agent
from cert.coordination.suite.plan import SuitePlan
from cert.core.errors import BudgetExceededError, InputError, UpstreamUnavailableError
from cert.core.events import CoordinationMeasured, EventHub, JudgementFinished
from cert.testing import captured_events

TASK = Task("What is 6 × 7?", references=("42",))


def reply(request):
    rng = random.Random(repr(request.messages) + request.draw)
    return rng.choice(["42", "42", "41"])


def orchestrator(client: Any = None, evaluator: Any = None, **options: Any) -> CoordinationOrchestrator:
    client = client or ScriptedChat(otherwise=reply)
    evaluator = evaluator or numeric()
    options.setdefault("hub", EventHub())
    return CoordinationOrchestrator(
        client=client, baseline_measurer=BaselineMeasurer(client, evaluator), evaluator=evaluator, **options
    )


def measure(made: CoordinationOrchestrator, task: Any = TASK, **options: Any) -> Any:
    return asyncio.run(made.measure_coordination(task, **options))


def test_the_classic_numbers_are_those_of_the_scores():
    """γ and ω are what the version 4 documents say; a reader recomputes them from the qualities."""
    metrics = measure(orchestrator(), num_agents=3, strategy="vote", replicates=2)
    assert metrics.gamma == pytest.approx(metrics.coordinated_quality / metrics.independent_quality)
    assert metrics.omega == pytest.approx(metrics.coordinated_quality - metrics.best_independent_quality)
    assert metrics.gamma_budget == pytest.approx(metrics.coordinated_quality / metrics.budget_quality)
    assert metrics.omega_best_agent is not None
    assert metrics.voting_gain + metrics.talking_gain == pytest.approx(
        metrics.coordinated_quality - _first(metrics), abs=1.0
    )
    assert metrics.is_coordination_effective() == (metrics.gamma > 1.0)


def _first(metrics):
    said = metrics.transcripts[0].rounds[0]
    return sum(one.text == "42" for one in said) / len(said)


@pytest.mark.parametrize("strategy", ["sequential", "parallel", "debate", "vote"])
def test_one_task_never_gives_a_finding(strategy):
    """Under no effect γ is above 1 half of the time: a dashboard must not call that a success."""
    assert measure(orchestrator(), strategy=strategy).verdict == "not_enough_data"


def test_the_single_agent_spends_what_the_team_spends():
    """A team that reads and writes ten times as much must not be compared with one short answer."""
    metrics = measure(orchestrator(), num_agents=3, strategy="debate", rounds=1)
    assert metrics.budget_samples > 3
    assert 0.8 < metrics.budget_ratio < 1.25
    same = measure(orchestrator(), num_agents=3, strategy="vote")
    assert same.budget_samples == 3
    assert same.budget_ratio == pytest.approx(1.0)


def test_a_debate_tells_what_its_rounds_did():
    """Conformity shows in the rounds, not in the final answer."""
    metrics = measure(orchestrator(), strategy="debate", rounds=2)
    assert [change.round for change in metrics.changes] == [1, 2]
    assert all(change.right_before + change.wrong_before == 3 for change in metrics.changes)
    pool = [said.text == "42" for said in metrics.transcripts[0].responses]
    assert metrics.oracle_gap == max(pool) - metrics.coordinated_quality
    assert measure(orchestrator(), parts=False).missing["oracle_gap"]


def test_the_reference_model_and_a_seed_give_the_same_again():
    """A figure in a report can be reproduced by whoever doubts it."""
    pytest.importorskip("torch")
    from cert.coordination import InProcessChatClient
    from cert.coordination.evaluators import normalized
    from cert.coordination.prompts import load_prompts
    from cert.reference.world import load_world

    facts = [fact for fact in load_world().facts if fact.exposures == 8][:3]
    questions = [Task(fact.question(), references=(fact.value,)) for fact in facts]

    async def once(seed):
        how: Any = {"temperature": 1.0, "max_tokens": 16, "prompts": load_prompts("reference-v1")}
        async with InProcessChatClient("reference") as client:
            evaluator = normalized()
            made = CoordinationOrchestrator(
                client,
                BaselineMeasurer(client, evaluator, seed=seed, **how),
                evaluator,
                hub=EventHub(),
                **how,
            )
            report = await made.measure_suite(questions, ["vote", "debate(rounds=1)"], seed=seed)
        return [[said.text for said in row.transcripts[0].responses] for row in report.rows]

    first, again, other = (asyncio.run(once(seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_without_a_way_to_choose_there_is_no_matched_budget():
    """Several free texts of one agent are no answer; taking one of them would not spend the budget."""
    text = ScriptedChat(otherwise=lambda request: f"It depends on {request.draw}.")
    metrics = measure(
        orchestrator(text, CallableEvaluator(lambda task, answer: 0.5, name="half")), "Explain tides."
    )
    assert metrics.gamma_budget is None
    assert "choose" in metrics.missing["gamma_budget"]
    assert metrics.gamma == pytest.approx(1.0)
    assert metrics.consensus_rate is None
    assert "same" in metrics.missing["consensus_rate"]


def test_a_selector_makes_the_matched_budget_of_free_texts():
    """With another model to choose, the headline number exists for tasks without a reference, too."""
    text = ScriptedChat(otherwise=lambda request: f"It depends on {request.draw}.")
    selector = Agent("selector", ScriptedChat(otherwise="1", model="other"))
    metrics = measure(
        orchestrator(text, CallableEvaluator(lambda task, answer: 0.5, name="half"), selector=selector),
        "Explain tides.",
    )
    assert metrics.gamma_budget == pytest.approx(1.0)
    assert metrics.budget_samples > 1


def test_what_cannot_be_judged_is_missing_and_says_why():
    """A failed judge never becomes a number."""
    metrics = measure(orchestrator(evaluator=CallableEvaluator(lambda task, answer: None, name="mute")))
    assert (metrics.gamma, metrics.omega, metrics.gamma_budget) == (None, None, None)
    assert not metrics.is_coordination_effective()
    assert set(metrics.missing) >= {"gamma", "omega", "gamma_budget"}


def test_a_baseline_of_nothing_makes_no_ratio():
    """0/0 and 1/0 are no effect of one, and no infinity on a dashboard."""
    metrics = measure(orchestrator(ScriptedChat(otherwise="41")))
    assert metrics.gamma is None
    assert "scored 0" in metrics.missing["gamma"]


def test_all_agents_fail_and_the_rest_is_still_told():
    """An outage is a recorded absence, with its price, and no exception that loses what was measured."""

    def fail(request):
        raise UpstreamUnavailableError("down")

    metrics = measure(orchestrator(ScriptedChat(otherwise=fail)))
    assert metrics.gamma is None
    assert metrics.coordinated_quality is None
    assert [said.absent for said in metrics.transcripts[0].responses] == ["upstream_unavailable"] * 3


def test_no_money_is_an_error_and_not_an_absence():
    """Whoever runs out of budget must not read that the agents are bad."""

    def broke(request):
        raise BudgetExceededError("nothing left")

    with pytest.raises(BudgetExceededError):
        measure(orchestrator(ScriptedChat(otherwise=broke)))


@pytest.mark.parametrize("agents", [0, -1, True, 2.0, "3"])
def test_a_team_has_one_agent_or_more(agents):
    """A wrong number is refused before anything is paid for."""
    client = ScriptedChat(otherwise=reply)
    with pytest.raises(InputError):
        measure(orchestrator(client), num_agents=agents)
    assert client.requests == []


def test_one_agent_is_no_debate():
    """The error says which strategies make sense for one."""
    with pytest.raises(InputError, match="nobody debates alone"):
        measure(orchestrator(), num_agents=1, strategy="debate")


def test_an_unknown_strategy_names_the_known_ones():
    """Somebody who mistypes must not search the documentation."""
    with pytest.raises(InputError) as error:
        measure(orchestrator(), strategy="debaet")
    assert all(name in str(error.value.hint) for name in strategies.names())


def test_an_empty_task_is_refused():
    """Nothing is asked of nothing."""
    with pytest.raises(InputError, match="empty"):
        measure(orchestrator(), "  ")


def test_half_a_character_is_refused_and_not_a_traceback():
    """A text that was cut in the middle of an emoji cannot be sent, and says where."""
    with pytest.raises(InputError, match="surrogate pair at place 3"):
        Task("so \ud83d")
    with pytest.raises(InputError, match="surrogate"):
        Task("so", references=("\udc00",))


def test_money_is_told_by_arm_and_adds_up():
    """A platform owner sees what the team costs, and what measuring it does."""
    client = ScriptedChat(otherwise=reply)
    metrics = measure(orchestrator(client), strategy="parallel")
    told = sum(metrics.cost.values())
    paid = sum(client.cost(_usage(request)) for request in client.requests)
    assert told * 1_000_000 == paid
    assert metrics.cost["judging"] == 0


def _usage(request):
    from cert.coordination.chat import Usage

    words = sum(len(message.content.split()) for message in request.messages)
    return Usage(words, 1)


def test_measurements_and_judgements_are_told():
    """Dashboards and the evidence log live on these events."""
    hub = EventHub()
    with captured_events(hub) as events:
        measure(orchestrator(hub=hub), strategy="vote")
        hub.flush()
    (told,) = events.of(CoordinationMeasured)
    assert (told.system, told.verdict, told.tasks) == ("vote", "not_enough_data", 1)
    assert events.of(JudgementFinished)
    assert {event.outcome for event in events.of(JudgementFinished)} == {"ok"}


def test_metrics_are_json():
    """What is served and stored keeps its money exact and its holes visible."""
    import json

    metrics = measure(orchestrator(), strategy="vote")
    told = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert told["schema_version"] == 1
    assert told["cost"]["judging"] == "0.000000"
    assert told["omega_best_agent"] is None
    assert "omega_best_agent" in told["missing"]


def test_a_plan_refuses_what_cannot_be_right():
    """Before the first dollar."""
    made = orchestrator()
    with pytest.raises(InputError, match="twice"):
        made.plan(["same", "same"], ["vote"])
    with pytest.raises(InputError, match="twice"):
        made.plan(["a", "b"], ["vote", "vote"])
    with pytest.raises(InputError):
        made.plan([], ["vote"])
    for wrong in ({"replicates": 0}, {"concurrency": 0}, {"batch": 1.5}):
        with pytest.raises(InputError):
            made.plan(["a"], ["vote"], **wrong)
    assert isinstance(made.plan(["a"], ["debate(rounds=1)"]), SuitePlan)
    for wrong_name in ("debate(rounds=)", "debate(1)", "debate(rounds=__import__('os'))", "vote)"):
        with pytest.raises(InputError):
            made.plan(["a"], [wrong_name])
