"""Consistency over repeats: agreement, entropy and spread, of one task and over many."""

import asyncio
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.baseline import BaselineMeasurement, BaselineSample
from cert.coordination.consistency import Repeat, consistency, over_tasks, repeats
from cert.coordination.measurement import Arm, TaskMeasurement
from cert.coordination.systems import Answer
from cert.coordination.types import AgentResponse, Evaluation, Task, Transcript
from cert.core.errors import InputError


def measured(*texts, scores=(), task="What is six times seven?", **about):
    """The consistency of answers, with scores for the first of them."""
    padded = [*scores, *[None] * (len(texts) - len(scores))]
    said = [Repeat(text, score) for text, score in zip(texts, padded, strict=True)]
    return asyncio.run(consistency(Task(task, **about), said))


def means(tasks):
    """The consistency of a system over tasks."""
    return over_tasks(tasks)


ANSWERS = st.lists(st.sampled_from(["1", "2", "3", "four", "five", None]), max_size=9)


def test_numbers_of_a_known_case():
    """Three of four repeats say 42: by hand 3/4, 3 of 6 pairs, and the entropy of (3/4, 1/4)."""
    found = measured("42", "42.0", "42", "57", None, scores=[1.0, 1.0, 0.5, 0.0])
    assert (found.answers, found.absent, found.scored, found.missing) == (4, 1, 4, None)
    assert found.largest == 0.75
    assert found.pairwise == 0.5
    assert found.entropy == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert found.score_deviation == pytest.approx(np.std([1, 1, 0.5, 0], ddof=1))


def test_what_only_a_reader_can_tell_is_no_number():
    """Free text that is not alike may say the same: a number would be made up, an interval is not."""
    found = measured("Because of the tides.", "The moon pulls the water.", "Because of the tides.")
    assert (found.largest, found.pairwise, found.entropy) == (None, None, None)
    assert found.missing == "undecided"
    assert (found.largest_interval.low, found.largest_interval.high) == (2 / 3, 1.0)
    assert found.entropy_interval.low == 0.0 < found.entropy_interval.high


@pytest.mark.parametrize("texts", [(), ("42",), ("42", None)])
def test_one_answer_agrees_with_nothing(texts):
    """A single run is not consistent: it is not measured."""
    found = measured(*texts)
    assert found.missing == "too_few"
    assert found.largest is found.pairwise is found.entropy is found.largest_interval is None


@settings(deadline=None, max_examples=60)
@given(ANSWERS, st.randoms())
def test_order_plays_no_part_and_bounds_hold(texts, chance):
    """Repeats have no order; every measure stays in its range, whatever is undecided."""
    shuffled = list(texts)
    chance.shuffle(shuffled)
    one, other = measured(*texts), measured(*shuffled)
    for name in ("largest_interval", "pairwise_interval", "entropy_interval", "missing"):
        assert getattr(one, name) == getattr(other, name)
    if one.largest_interval is None:
        return
    n = one.answers
    assert 1 / n <= one.largest_interval.low <= one.largest_interval.high <= 1
    assert 0 <= one.pairwise_interval.low <= one.pairwise_interval.high <= 1
    assert 0 <= one.entropy_interval.low <= one.entropy_interval.high <= math.log(n) + 1e-12
    assert (one.largest is None) == (one.missing is not None)


@settings(deadline=None, max_examples=40)
@given(st.lists(ANSWERS, min_size=1, max_size=6), st.randoms())
def test_order_of_tasks_plays_no_part(rows, chance):
    """A report must not depend on which task came first."""
    tasks = [measured(*texts, task=f"Task {i}", source=f"s{i % 3}") for i, texts in enumerate(rows)]
    shuffled = list(tasks)
    chance.shuffle(shuffled)
    one, other = means(tasks), means(shuffled)
    for mine, yours in ((one.largest, other.largest), (one.pairwise, other.pairwise)):
        assert mine.missing == yours.missing
        if mine.interval is not None:
            assert mine.interval.low == pytest.approx(yours.interval.low)
            assert mine.interval.high == pytest.approx(yours.interval.high)
            assert 0 <= mine.interval.low <= mine.bounds.low + 1e-9
            assert mine.bounds.high - 1e-9 <= mine.interval.high <= 1


def test_over_tasks_with_sources():
    """Ten tasks of one document are one unit: they bound nothing."""
    tasks = [measured("1", "1", "2", task=f"Task {i}", source="document") for i in range(10)]
    together = means(tasks)
    assert together.pairwise.value == pytest.approx(1 / 3)
    assert (together.pairwise.sources, together.pairwise.tasks) == (1, 10)
    assert (together.pairwise.interval.low, together.pairwise.interval.high) == (0.0, 1.0)
    apart = means([measured("1", "1", "2", task=f"Task {i}") for i in range(40)])
    assert apart.pairwise.interval.high - apart.pairwise.interval.low < 0.5


def test_undecided_tasks_widen_the_interval():
    """Leaving them out would flatter: free text is undecided just where it is not repeated word by word."""
    sure = [measured("1", "1", task=f"Task {i}") for i in range(12)]
    open_ = [measured("so it is", "thus it is", task=f"Open {i}") for i in range(4)]
    found = means([*sure, *open_])
    assert found.undecided == 4
    assert found.pairwise.value is None
    assert found.pairwise.missing == "undecided"
    assert (found.pairwise.bounds.low, found.pairwise.bounds.high) == (0.75, 1.0)
    assert found.pairwise.interval.low < 0.75


def test_entropies_of_different_numbers_of_repeats_are_not_averaged():
    """Two answers cannot show more than ln 2: a mean with tasks of ten would compare ceilings."""
    found = means([measured("1", "2"), measured("1", "2", "3", task="Another?")])
    assert found.entropy.value is None
    assert "different numbers" in found.entropy.missing
    assert found.pairwise.value == 0.0


def test_coverage_over_tasks():
    """The 95 % interval of the mean agreement holds the truth; a small version of what is promised."""
    rng = np.random.default_rng(0)
    held, truth = 0, 0.7**2 + 0.3**2

    async def drawn(run):
        draws = rng.random((15, 4)) < 0.7
        return [
            await consistency(f"{run} {i}", [Repeat("1" if one else "2") for one in row])
            for i, row in enumerate(draws)
        ]

    for run in range(40):
        interval = means(asyncio.run(drawn(run))).pairwise.interval
        held += interval.low <= truth <= interval.high
    assert held / 40 >= 0.93


def test_spread_of_scores_over_tasks():
    """It is pooled as variances; tasks that were scored once tell nothing of it."""
    tasks = [
        measured("1", "1", scores=[0.2, 0.4], task="a"),
        measured("1", "1", scores=[0.5, 0.5], task="b"),
        measured("1", "1", scores=[0.9], task="c"),
    ]
    found = means(tasks).score_deviation
    assert found.tasks == 2
    assert found.value == pytest.approx(math.sqrt(np.var([0.2, 0.4], ddof=1) / 2))
    assert found.interval.low <= found.value <= found.interval.high <= math.sqrt(0.5)
    assert means(tasks[2:]).score_deviation.missing == "no task has two scores"


def test_tasks_with_too_few_answers_are_counted():
    """A system that fails half of the time must not look consistent by what is left."""
    found = means([measured("1", None), measured("1", "1", task="b")])
    assert (found.tasks, found.too_few, found.absent) == (2, 1, 1)
    with pytest.raises(InputError):
        means([])


def response(text):
    return AgentResponse(
        agent="a", round=0, role="answer", text=text, absent=None if text else "empty",
        prompt_sha256="", template="", model="m",
    )  # fmt: skip


def test_repeats_of_each_kind_of_measurement():
    """Whoever measured something already must not pay for it again."""
    scored = Evaluation(score=0.5, evaluator="e")
    samples = tuple(
        BaselineSample(replicate=i, response=response(text), evaluation=scored if text else None)
        for i, text in enumerate(["1", None])
    )
    baseline = BaselineMeasurement(task=Task("t"), samples=samples, evaluator="e", seconds=0.0)
    expected = (Repeat("1", 0.5), Repeat(None))
    assert repeats(baseline) == repeats(samples) == expected
    said = [
        Transcript(
            strategy="vote", task_id="t", responses=(), final=final, prompts="", quorum=1, seconds=0.0,
            missing=None if final else "tie",
        )
        for final in ("1", None)
    ]  # fmt: skip
    assert repeats(said) == (Repeat("1"), Repeat(None))
    none = Evaluation(score=None, missing="tie", evaluator="e")
    arms = (
        Arm(answer=Answer(text="1", seconds=0.0), evaluation=scored),
        Arm(answer=Answer(text=None, missing="tie", seconds=0.0), evaluation=none),
    )
    task = TaskMeasurement(
        task=Task("t"), system="s", coordinated=arms, independents=(), budget=(), samples=None,
        budget_ratio=None, budget_missing="x", consensus=None, parts=None,
    )  # fmt: skip
    assert repeats(task) == expected


@pytest.mark.parametrize("score", [1.1, -0.1, math.nan, Decimal("1.5")])
def test_a_score_is_in_the_unit_interval(score):
    """A score of 11/10 would hide a spread."""
    with pytest.raises(InputError):
        Repeat("1", score)
