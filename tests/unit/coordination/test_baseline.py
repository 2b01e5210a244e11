"""The baseline of one agent: samples that are independent, counted right, and paid for once."""

import asyncio
import dataclasses
from datetime import timedelta
from decimal import Decimal

import pytest

from cert.coordination.baseline import BaselineMeasurer
from cert.coordination.chat import Usage
from cert.coordination.evaluators.quality import QualityEvaluator
from cert.coordination.scripted import ScriptedChat
from cert.coordination.store import CachedChatClient, open_store
from cert.coordination.types import Evaluation, Task
from cert.core.errors import BudgetExceededError, InputError, UpstreamTimeoutError


class Paid:
    """An evaluator that costs 40 micro-dollars and gives each answer its length in characters as per cent."""

    def __init__(self, **missing: str) -> None:
        self.asked: list[tuple[str, str]] = []
        self.identity = "length"
        self.missing = missing

    async def evaluate(self, task: Task, answer: str, *, draw: str = "") -> Evaluation:
        self.asked.append((answer, draw))
        missing = self.missing.get(answer)
        return Evaluation(
            score=None if missing else len(answer) / 100,
            missing=missing,
            evaluator=self.identity,
            scores=(None if missing else len(answer) / 100,),
            reasons=(missing,),
            usage=Usage(10, 6),
            cost_micro_dollars=40,
        )


class Free(Paid):
    """The same by a rule, for nothing."""

    async def evaluate(self, task: Task, answer: str, *, draw: str = "") -> Evaluation:
        return dataclasses.replace(
            await super().evaluate(task, answer, draw=draw), usage=Usage(), cost_micro_dollars=0
        )


def test_samples_are_independent_and_their_mean_is_right():
    """Three draws of one question are three answers, each with a score of its own."""

    async def run():
        chat = ScriptedChat("a" * 10, "a" * 20, "a" * 60)
        return chat, await BaselineMeasurer(chat, Paid()).measure("Why?", 3)

    chat, measured = asyncio.run(run())
    assert len({request.draw for request in chat.requests}) == 3
    assert all(f"baseline-{n}" in request.draw for n, request in enumerate(chat.requests))
    assert {request.prompt_sha256 for request in chat.requests} == {chat.requests[0].prompt_sha256}
    assert measured.scores == (0.1, 0.2, 0.6)
    assert measured.quality == pytest.approx(0.3)
    assert measured.standard_deviation == pytest.approx(0.2645751311064590)
    assert [sample.replicate for sample in measured.samples] == [0, 1, 2]
    assert measured.missing == 0
    assert measured.usage == sum((sample.response.usage for sample in measured.samples), Usage())


def test_equal_answers_of_several_draws_are_judged_each():
    """One judgement for all of them would leave the judge's own spread out of the variance."""
    evaluator = Paid()
    asyncio.run(BaselineMeasurer(ScriptedChat(otherwise="same"), evaluator).measure("Why?", 3))
    assert sorted(evaluator.asked) == [("same", f"baseline-{n}") for n in range(3)]


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_repeated_measurement_costs_nothing(where, tmp_path):
    """Five runs save at least 80 % of what five would cost, the judge's part included."""
    target = None if where == "memory" else tmp_path / "answers.db"
    chat, evaluator = ScriptedChat("one", "two words", "three more words"), Paid()

    async def run():
        measurer = BaselineMeasurer(chat, evaluator, store=target)
        measured = [await measurer.measure("Why?", 3) for _ in range(5)]
        stats = await measurer.cache_stats()
        await measurer.aclose()
        return measured, stats

    measured, stats = asyncio.run(run())
    assert len(chat.requests) == len(evaluator.asked) == 3
    assert len({one.scores for one in measured}) == 1
    first, *others = measured
    whole = first.cost_micro_dollars + first.judge_cost_micro_dollars
    assert first.paid_micro_dollars == whole
    assert first.judge_cost_micro_dollars == 120
    assert first.saved == 0
    for one in others:
        assert (one.paid, one.cost) == (Decimal(0), first.cost)
        assert one.saved == Decimal(whole).scaleb(-6)
    assert stats.saved_share == pytest.approx(0.8)
    assert (stats.misses, stats.hits) == (6, 24)


def test_more_samples_later_cost_only_the_new_ones():
    """A budget-matched comparison asks for more of them when it knows how many."""

    async def run():
        chat = ScriptedChat(*"abcde")
        measurer = BaselineMeasurer(chat, Paid())
        await measurer.measure("Why?", 2)
        more = await measurer.samples("Why?", 3, start=1)
        return chat, more

    chat, more = asyncio.run(run())
    assert [sample.replicate for sample in more] == [1, 2, 3]
    assert [sample.response.from_cache for sample in more] == [True, False, False]
    assert len(chat.requests) == 4


def test_samples_need_not_be_scored():
    """Of those that a vote chooses from, only the winner is."""

    async def run():
        evaluator = Paid()
        samples = await BaselineMeasurer(ScriptedChat("a"), evaluator).samples("Why?", 1, evaluate=False)
        return evaluator, samples

    evaluator, (sample,) = asyncio.run(run())
    assert (sample.evaluation, sample.quality, sample.missing) == (None, None, "not_evaluated")
    assert evaluator.asked == []


def test_absent_answers_and_missing_scores_are_counted_and_never_numbers():
    """A mean over what happened to work must say how much did not."""

    async def run():
        chat = ScriptedChat("aaaa", UpstreamTimeoutError("t"), "   ", "bb")
        measurer = BaselineMeasurer(chat, Paid(bb="unreadable"))
        return await measurer.measure("Why?", 4), await measurer.store.lost()

    measured, lost = asyncio.run(run())
    assert measured.scores == (0.04, None, None, None)
    assert (measured.quality, measured.missing, measured.standard_deviation) == (0.04, 3, None)
    assert [sample.missing for sample in measured.samples] == [
        None,
        "upstream_timeout",
        "empty",
        "unreadable",
    ]
    assert len(lost.calls) == 1


def test_where_nothing_worked_there_is_no_quality():
    """Not measured is not zero."""
    chat = ScriptedChat(otherwise=UpstreamTimeoutError("t"))
    measured = asyncio.run(BaselineMeasurer(chat, Paid()).measure("Why?", 2))
    assert (measured.quality, measured.missing) == (None, 2)


def test_what_failed_is_asked_again_and_what_worked_is_not():
    """A run that is resumed fills its gaps, and pays for nothing else."""

    async def run():
        chat = ScriptedChat("a", UpstreamTimeoutError("t"), "b", otherwise="later")
        evaluator = Paid(a="unreadable")
        measurer = BaselineMeasurer(chat, evaluator)
        await measurer.measure("Why?", 3)
        evaluator.missing = {}
        return chat, evaluator, await measurer.measure("Why?", 3)

    chat, evaluator, again = asyncio.run(run())
    assert again.missing == 0
    assert len(chat.requests) == 4
    # Asked three times in all: both draws that had no score, one of them with its answer from the store.
    assert sorted(answer for answer, _ in evaluator.asked) == ["a", "a", "b", "later"]


def test_a_budget_that_ends_in_the_middle_keeps_what_was_paid():
    """What was measured before is there when there is money again."""

    async def run():
        chat = ScriptedChat("a", "b", BudgetExceededError("over"), otherwise="c")
        measurer = BaselineMeasurer(chat, Paid())
        with pytest.raises(BudgetExceededError):
            await measurer.measure("Why?", 3)
        assert (await measurer.store.lost()).calls == ()
        await measurer.measure("Why?", 3)
        return chat

    assert len(asyncio.run(run()).requests) == 4


def test_a_rule_is_asked_each_time():
    """Its code may have changed since, and it costs nothing."""
    evaluator = Free()

    async def run():
        measurer = BaselineMeasurer(ScriptedChat(otherwise="a"), evaluator)
        for _ in range(2):
            await measurer.measure("Why?", 1)
        return await measurer.store.entries(kind="evaluation"), (await measurer.cache_stats()).hit_rate

    # The rate is that of what can be saved: of two answers one.
    assert asyncio.run(run()) == (0, 0.5)
    assert len(evaluator.asked) == 2


def test_metadata_that_is_no_json_is_evaluated_each_time():
    """It has no name to be kept under; the user's own evaluator still gets it."""
    evaluator = Paid()

    async def run():
        measurer = BaselineMeasurer(ScriptedChat(otherwise="a"), evaluator)
        for _ in range(2):
            await measurer.measure(Task("Why?", metadata={"check": object()}), 1)

    asyncio.run(run())
    assert len(evaluator.asked) == 2


def test_a_client_with_a_store_brings_its_store():
    """One store and not two: what a team has asked under the same draw is the baseline's too."""

    async def run():
        async with open_store() as store:
            client = CachedChatClient(ScriptedChat(otherwise="a"), store)
            measurer = BaselineMeasurer(client, Paid())
            assert measurer.client is client
            assert measurer.store is store
            await measurer.measure("Why?", 1)
            await measurer.aclose()
            return await store.entries("", "completion"), await store.entries("", "evaluation")

    assert asyncio.run(run()) == (1, 1)


def test_the_programs_own_order_of_arguments_works_with_a_judge():
    """The program of version 4 gives a plain client to both: the judge's cost is saved too."""

    def judgement(request):
        keys = request.tool.schema["properties"]["scores"]["properties"]
        return {"rationale": "good enough", "scores": dict.fromkeys(keys, 7)}

    async def run():
        judge = ScriptedChat(otherwise=judgement)
        measurer = BaselineMeasurer(ScriptedChat(otherwise="an answer"), QualityEvaluator(judge))
        return judge, [await measurer.measure("Why?", 2) for _ in range(2)]

    judge, (first, second) = asyncio.run(run())
    assert first.missing == 0
    assert len(judge.requests) == 2
    assert second.scores == first.scores
    assert second.paid == 0


def test_clear_and_prune_are_the_scopes_own(tmp_path):
    """Who measures anew clears his own measurements."""

    async def run():
        async with open_store(tmp_path / "answers.db") as store:
            one = BaselineMeasurer(ScriptedChat(otherwise="a"), Paid(), store=store, scope="one")
            other = BaselineMeasurer(ScriptedChat(otherwise="a"), Paid(), store=store, scope="two")
            await one.measure("Why?", 2)
            await other.measure("Why?", 2)
            assert await one.prune(timedelta(days=30)) == 0
            assert await one.clear() == 4
            return await store.entries()

    assert asyncio.run(run()) == 4


@pytest.mark.parametrize(("count", "start"), [(0, 0), (-1, 0), (1, -1)])
def test_no_samples_are_a_mistake(count, start):
    """A baseline of nothing has no mean."""
    with pytest.raises(InputError):
        asyncio.run(BaselineMeasurer(ScriptedChat("a"), Paid()).samples("Why?", count, start))


def test_an_empty_task_is_a_mistake():
    """Nothing is asked for it."""
    with pytest.raises(InputError):
        asyncio.run(BaselineMeasurer(ScriptedChat("a"), Paid()).measure("  "))


def test_each_sample_gets_a_seed_of_its_own_and_always_the_same():
    """A model with a seed is deterministic: one seed for all samples would make them one."""

    async def seeds():
        chat = ScriptedChat(otherwise="a")
        await BaselineMeasurer(chat, Paid(), seed=7).measure("Why?", 3)
        return sorted(request.seed for request in chat.requests)

    first, second = asyncio.run(seeds()), asyncio.run(seeds())
    assert first == second
    assert len(set(first)) == 3
