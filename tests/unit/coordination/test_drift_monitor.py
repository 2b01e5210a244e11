"""The monitor of drift: what it keeps, what it refuses, what it tells, and what it asks of a judge."""

import asyncio
import math
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from cert.coordination.drift import DriftMonitor, Plan
from cert.coordination.store import CachedEvaluator, open_store
from cert.coordination.types import Evaluation, Task
from cert.core.errors import (
    BudgetExceededError,
    ConfigurationError,
    InputError,
    StoreError,
    StoreUnusableError,
)
from cert.core.events import DriftFound, DriftStanding, EventHub
from cert.testing import captured_events

PLAN = Plan(reference=30, horizon=100, checks=5, drop=0.1)


class Judge:
    """Scores an answer, which is a number, with some noise; its scale can move."""

    def __init__(self, shift=0.0, identity="judge"):
        self.shift, self.identity = shift, identity
        self.draws: list[str] = []
        self.fails_at = -1
        self._rng = np.random.default_rng(0)

    async def evaluate(self, task, answer, *, draw=""):
        self.draws.append(draw)
        if len(self.draws) == self.fails_at:
            raise BudgetExceededError("no money left")
        score = float(np.clip(float(answer) + self.shift + self._rng.normal(0, 0.02), 0, 1))
        return Evaluation(score=score, evaluator=self.identity, cost_micro_dollars=10)


ANSWERS = [(Task(f"Question {i}?"), str(0.4 + i / 200)) for i in range(50)]


def scores(mean, n, seed=0):
    return [float(x) for x in np.clip(np.random.default_rng(seed).normal(mean, 0.12, n), 0, 1)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "drift.db"


def run(path, work, judge=None, plan=PLAN, hub=None, **options):
    """Do some work with a monitor of its own, as a process of its own would."""

    async def main():
        async with DriftMonitor(path, judge, plan=plan, hub=hub, now=lambda: 1000.0, **options) as monitor:
            return await work(monitor)

    return asyncio.run(main())


def test_a_fall_is_found_and_stays_over_restarts(path):
    """The whole way: reference phase, watching, alarm, another process, acknowledgement."""
    reference = run(path, lambda m: m.observe_all("team", "sums", scores(0.7, 30)))
    assert (reference.phase, reference.reference, reference.seen) == ("watching", 30, 0)
    fallen = run(path, lambda m: m.observe_all("team", "sums", scores(0.4, 40)))
    assert fallen.alarm.kind == "unclear"
    assert 0 < fallen.alarm.fell_at < 40
    assert run(path, lambda m: m.status("team", "sums")) == fallen
    calm = run(path, lambda m: m.acknowledge("team", "sums"))
    assert (calm.alarm, calm.acknowledged, calm.phase) == (None, 1, "watching")
    anew = run(path, lambda m: m.restart("team", "sums"))
    assert (anew.phase, anew.reference, anew.acknowledged) == ("reference", 0, 1)


def test_restarts_in_the_middle_give_the_same_alarm(path, tmp_path):
    """One process or forty: the alarm is the same, to the score."""
    told = [*scores(0.7, 30), *scores(0.5, 20), None, math.nan, *scores(0.45, 20, 1)]

    async def one_by_one(monitor):
        for score in told:
            status = await monitor.observe("team", "sums", score)
        return status

    whole = run(tmp_path / "whole.db", one_by_one)
    for first in range(0, len(told), 7):
        piece = told[first : first + 7]
        status = run(path, lambda m, piece=piece: m.observe_all("team", "sums", piece))
    assert status == whole
    assert whole.alarm is not None
    assert whole.missing == 2


def test_series_do_not_know_of_each_other(path):
    """A fall on one family must not be an alarm on another, nor on another system."""

    async def work(monitor):
        for system, family, mean in [("a", "x", 0.4), ("a", "y", 0.7), ("b", "x", 0.7)]:
            await monitor.observe_all(system, family, scores(0.7, 30))
            await monitor.observe_all(system, family, scores(mean, 20))
        return await monitor.statuses()

    found = {(one.system, one.family): one.alarm is not None for one in run(path, work)}
    assert found == {("a", "x"): True, ("a", "y"): False, ("b", "x"): False}


def test_a_key_counts_once(path):
    """A run that was killed goes on and repeats its last scores: they must not count twice."""
    keys = [f"task-{i}" for i in range(10)]
    run(path, lambda m: m.observe_all("team", "sums", scores(0.7, 10), keys=keys))
    again = run(path, lambda m: m.observe_all("team", "sums", scores(0.7, 12), keys=[*keys, "a", "a"]))
    assert again.reference == 11
    other = run(path, lambda m: m.observe("team", "words", 0.5, key="task-1"))
    assert other.reference == 1
    with pytest.raises(InputError, match="2 keys are given for 1"):
        run(path, lambda m: m.observe_all("team", "sums", [0.5], keys=["1", "2"]))


def test_a_refused_score_leaves_everything_as_it_was(path):
    """Half of a batch, kept, would be counted again when the batch is repeated."""
    run(path, lambda m: m.observe("team", "sums", 0.5, key="0"))
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        run(path, lambda m: m.observe_all("team", "sums", [0.5, 1.1], keys=["1", "2"]))
    assert run(path, lambda m: m.status("team", "sums")).reference == 1
    assert run(path, lambda m: m.observe("team", "sums", 0.5, key="1")).reference == 2


@pytest.mark.parametrize("family", [None, "", " ", "a\nb", "x" * 201])
def test_a_family_that_is_not_known_is_refused(path, family):
    """All tasks without a family in one heap would be a system whose tasks change, not one that drifts."""
    with pytest.raises(InputError, match="family"):
        run(path, lambda m: m.observe("team", family, 0.5))


def test_a_series_that_was_never_observed_is_refused(path):
    """A slip in a name must not read as "no alarm"."""
    run(path, lambda m: m.observe("team", "sums", 0.5))
    for ask in ("status", "acknowledge", "restart"):
        with pytest.raises(InputError, match="'team' on 'summs'"):
            run(path, lambda m, ask=ask: getattr(m, ask)("team", "summs"))
    with pytest.raises(InputError, match="'team' on 'summs'"):
        run(path, lambda m: m.check("team", "summs"), Judge())
    assert [one.family for one in run(path, lambda m: m.statuses())] == ["sums"]


def test_another_plan_is_refused(path):
    """A rate of false alarms that changes on the way is none."""
    run(path, lambda m: m.observe("team", "sums", 0.5))
    other = Plan(reference=40)
    with pytest.raises(ConfigurationError, match="another plan"):
        run(path, lambda m: m.observe("team", "sums", 0.5), plan=other)
    assert run(path, lambda m: m.restart("team", "sums"), plan=other).plan == other


def test_scores_of_another_judge_are_refused(path):
    """A new judge has another scale: its first scores would look like a fall."""
    mine = Evaluation(score=0.5, evaluator="judge-1")
    run(path, lambda m: m.observe("team", "sums", mine))
    with pytest.raises(InputError, match="another judge"):
        run(path, lambda m: m.observe("team", "sums", Evaluation(score=0.5, evaluator="judge-2")))
    missing = Evaluation(score=None, missing="refusal", evaluator="judge-1")
    assert run(path, lambda m: m.observe("team", "sums", missing)).missing == 1


# --- anchors ---


def watched(path, judge, mean=0.4):
    """A series with anchors and, with a low mean, an alarm."""

    async def work(monitor):
        await monitor.observe_all("team", "sums", scores(0.7, 30))
        await monitor.freeze("team", "sums", ANSWERS)
        return await monitor.observe_all("team", "sums", scores(mean, 60))

    return run(path, work, judge)


@pytest.mark.parametrize(
    ("mean", "shift", "kind"),
    [(0.4, 0.0, "system"), (0.4, -0.3, "judge"), (0.7, 0.2, "judge"), (0.7, 0, None)],
)
def test_who_changed_is_told(path, mean, shift, kind):
    """End to end: a system that fell, a judge that got stricter, one that got milder, and none."""
    judge = Judge()
    watched(path, judge, mean)
    judge.shift = shift
    check = run(path, lambda m: m.check("team", "sums"), judge)
    assert check.kind == kind
    assert check.cost_micro_dollars == 500
    alarm = run(path, lambda m: m.status("team", "sums")).alarm
    assert (alarm and alarm.kind) == kind


def test_a_cache_cannot_hide_a_judge_that_changed(path, tmp_path):
    """The first scores, found again in a cache, would say for ever that the judge is as it was."""
    judge = Judge()

    async def work():
        async with open_store(tmp_path / "answers.db") as store:
            cached = CachedEvaluator(judge, store)
            async with DriftMonitor(path, cached, plan=PLAN) as monitor:
                await monitor.freeze("team", "sums", ANSWERS)
                judge.shift = -0.3
                return await monitor.check("team", "sums")

    check = asyncio.run(work())
    assert check.kind == "judge"
    assert len(set(judge.draws)) == 2


def test_scores_from_a_cache_are_missing(path):
    """An evaluator that ignores the draw and answers from memory has not measured anything."""

    class Remembering(Judge):
        async def evaluate(self, task, answer, *, draw=""):
            return Evaluation(score=0.5, evaluator="judge", from_cache=len(self.draws) >= 50)

    judge = Remembering()

    async def work(monitor):
        await monitor.freeze("team", "sums", ANSWERS)
        judge.draws = ["x"] * 50
        return await monitor.check("team", "sums")

    check = run(path, work, judge)
    assert set(check.scores) == {None}
    assert (check.shift, check.kind) == (None, None)


def test_anchors_are_refused_where_they_cannot_serve(path):
    """No judge, no anchors, too few, another judge: each is said before money is spent."""
    judge = Judge()
    run(path, lambda m: m.observe("team", "sums", 0.5))
    with pytest.raises(ConfigurationError, match="evaluator"):
        run(path, lambda m: m.freeze("team", "sums", ANSWERS))
    with pytest.raises(InputError, match="no anchors"):
        run(path, lambda m: m.check("team", "sums"), judge)
    for few in ([], ANSWERS[:9]):
        with pytest.raises(InputError, match="10 scored answers"):
            run(path, lambda m, few=few: m.freeze("team", "sums", few), judge)
    run(path, lambda m: m.freeze("team", "sums", ANSWERS), judge)
    other = Judge(identity="another")
    with pytest.raises(ConfigurationError, match="another judge"):
        run(path, lambda m: m.check("team", "sums"), other)
    with pytest.raises(InputError, match="another judge"):
        run(path, lambda m: m.freeze("team", "sums", ANSWERS), other)
    assert other.draws == [other.draws[0]] * 50  # the check asked nothing


def test_a_check_that_ends_in_the_middle_changes_nothing(path):
    """Half of the anchors are no sample: the check is made again, whole."""
    judge = Judge()
    before = watched(path, judge)
    judge.fails_at = len(judge.draws) + 25
    with pytest.raises(BudgetExceededError):
        run(path, lambda m: m.check("team", "sums"), judge)
    assert run(path, lambda m: m.status("team", "sums")) == before
    assert before.check_due
    assert run(path, lambda m: m.due()) == (("team", "sums"),)


def test_anchors_that_are_frozen_anew_during_a_check_void_it(path):
    """Its scores are of answers that are no anchors any more."""
    judge = Judge()
    watched(path, judge)

    class Slow(Judge):
        async def evaluate(self, task, answer, *, draw=""):
            if not self.draws:
                self.draws.append(draw)
                async with DriftMonitor(path, judge, plan=PLAN) as other:
                    await other.freeze("team", "sums", ANSWERS[:20])
            return await super().evaluate(task, answer, draw=draw)

    with pytest.raises(StoreError, match="meanwhile"):
        run(path, lambda m: m.check("team", "sums"), Slow())
    assert run(path, lambda m: m.status("team", "sums")).checks == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cert_drift_series SET anchors = replace(anchors, 'Question 1?', 'Question 0?')",
        "UPDATE cert_drift_series SET anchors_sha256 = 'x'",
        "UPDATE cert_drift_series SET anchors = '{}'",
    ],
)
def test_anchors_that_were_changed_are_refused(path, statement):
    """Anchors that can be changed measure whoever changed them."""
    judge = Judge()
    watched(path, judge)
    asked = len(judge.draws)
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(StoreUnusableError, match="not those that were frozen") as failure:
        run(path, lambda m: m.check("team", "sums"), judge)
    assert str(path) in failure.value.message
    assert len(judge.draws) == asked


# --- files ---


def test_a_file_of_something_else_is_refused_and_left_alone(path):
    """A slip in a path must not cost a file, nor begin a reference phase in it."""
    path.write_bytes(b"no database at all")
    with pytest.raises(StoreUnusableError) as failure:
        run(path, lambda m: m.observe("team", "sums", 0.5), timeout=0.3)
    assert str(path) in failure.value.message
    assert path.read_bytes() == b"no database at all"


def test_a_store_of_answers_is_no_state_of_drift(path):
    """Two programs that make each other's tables old would both be locked out one day."""

    async def answers():
        async with open_store(path) as store:
            return await store.entries()

    asyncio.run(answers())
    with pytest.raises(StoreUnusableError, match="something else"):
        run(path, lambda m: m.observe("team", "sums", 0.5))


def test_a_newer_state_is_refused(path):
    """An older program would write back what it does not understand."""
    run(path, lambda m: m.observe("team", "sums", 0.5))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE cert_drift SET value = '2'")
    connection.close()
    with pytest.raises(StoreUnusableError, match="version 2") as failure:
        run(path, lambda m: m.observe("team", "sums", 0.5))
    assert str(path) in failure.value.message


@pytest.mark.parametrize("state", ["", "{}", "[]", "null", '{"plan": NaN}', "\\"])
def test_a_damaged_state_is_refused_and_left_alone(path, state):
    """A silent new start would forget an alarm."""
    run(path, lambda m: m.observe("team", "sums", 0.5))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE cert_drift_series SET series = ?", [state])
    connection.close()
    for ask in (lambda m: m.observe("team", "sums", 0.5), lambda m: m.status("team", "sums")):
        with pytest.raises(StoreUnusableError, match="'team' on 'sums'") as failure:
            run(path, ask)
        assert str(path) in failure.value.message
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT series FROM cert_drift_series").fetchall() == [(state,)]
    connection.close()
    assert run(path, lambda m: m.observe("team", "words", 0.5)).reference == 1


# --- events ---


def drift_events(events):
    return [
        (event.kind,) if isinstance(event, DriftFound) else (event.kind, event.alarms)
        for event in events.all()
        if isinstance(event, DriftFound | DriftStanding)
    ]


def test_alarms_are_told_once_and_counted_as_they_stand(path):
    """A page for each further score, or a gauge that forgets an alarm at a restart, is ignored."""
    hub, judge = EventHub(), Judge()

    async def whole(monitor):
        await monitor.observe_all("team", "sums", scores(0.7, 30))
        await monitor.freeze("team", "sums", ANSWERS)
        await monitor.observe_all("team", "sums", scores(0.4, 60))
        await monitor.observe("team", "sums", 0.4)
        await monitor.check("team", "sums")

    with captured_events(hub) as events:
        run(path, whole, judge, hub=hub)
    assert drift_events(events) == [
        ("unclear",),
        ("unclear", 1),
        ("system",),
        ("system", 1),
        ("unclear", 0),
    ]
    with captured_events(hub) as events:
        run(path, lambda m: m.acknowledge("team", "sums"), hub=hub)
    assert drift_events(events) == [("system", 1), ("system", 0)]


def test_the_package_is_light():
    """Watching drift must not load a vendor's SDK, nor a database before it is opened."""
    code = (
        "import sys, cert.coordination.drift, cert.coordination.consistency\n"
        "print([name for name in ('torch', 'anthropic', 'openai', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
