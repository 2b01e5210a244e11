"""What each score makes of a series, and who is named: pure values, no disk."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.drift.anchors import Anchor, AnchorSet, Shift, judge_shift
from cert.coordination.drift.attribution import Moments, score_change, told_apart
from cert.coordination.drift.codec import decode_series, encode_series
from cert.coordination.drift.series import Plan, Series
from cert.coordination.types import Interval, Task
from cert.core.errors import ConfigurationError, InputError

PLAN = Plan(reference=100, horizon=200, checks=5, drop=0.1)


def noisy(rng, mean, n, deviation=0.12):
    return np.clip(rng.normal(mean, deviation, n), 0, 1)


def fed(series, scores, at=0.0):
    for score in scores:
        series = series.fed(score, at)
    return series


def anchors(n=60, seed=0, score=None):
    rng = np.random.default_rng(seed)
    first = noisy(rng, 0.6, n, 0.15) if score is None else [score] * n
    return AnchorSet(
        tuple(Anchor(Task(f"Question {i}?"), f"Answer {i}", float(s)) for i, s in enumerate(first)),
        "judge",
        1.0,
    )


@pytest.fixture(scope="module")
def watching():
    """A series after its reference phase."""
    return fed(Series(plan=PLAN), noisy(np.random.default_rng(1), 0.7, 100))


@pytest.fixture(scope="module")
def fallen(watching):
    """The same, with an alarm and fifty scores after it."""
    series = fed(watching, noisy(np.random.default_rng(2), 0.45, 60))
    assert series.alarm is not None
    assert series.alarm.kind == "unclear"
    assert series.after.n == 60 - series.alarm.fell_at > 40
    return series


def test_a_series_begins_with_a_reference_phase_of_the_stated_size(watching):
    """Before it is over nothing can be found, and nothing may be claimed."""
    short = fed(Series(plan=PLAN), noisy(np.random.default_rng(1), 0.7, 99))
    assert (short.phase, short.alarm) == ("reference", None)
    assert watching.phase == "watching"
    assert watching.detector.reference == 100


def test_missing_scores_are_counted_and_never_fed(watching):
    """A judge that is down is no fall in quality, and no score of a reference."""
    start = fed(Series(plan=PLAN), [0.5, None, math.nan])
    assert (start.reference, start.reference_missing) == ((0.5,), 2)
    later = fed(watching, [None, math.nan])
    assert (later.state.seen, later.state.missing) == (0, 2)
    assert later.state.statistic == watching.state.statistic


@pytest.mark.parametrize("score", [1.01, -0.5, math.inf])
def test_scores_outside_the_unit_interval_are_refused(watching, score):
    """In the reference phase they would spoil the calibration, later they would hide a fall."""
    for series in (Series(plan=PLAN), watching):
        with pytest.raises(InputError):
            series.fed(score, 0.0)


def test_a_reference_that_does_not_vary_says_so_and_grows():
    """A threshold made of equal scores would alarm at the first other one."""
    plan = Plan(reference=30, horizon=20)
    series = fed(Series(plan=plan), [1.0] * 30)
    assert series.phase == "reference"
    assert "equal" in series.waiting
    varied = fed(series, [0.4, 0.6, 0.8, 0.5, 0.3] * 3)
    assert len(varied.reference) == 45
    assert (varied.phase, varied.waiting) == ("watching", None)


def test_an_alarm_stays(fallen):
    """One that went away when the scores recovered would never be seen."""
    well = fed(fallen, [0.9] * 100)
    assert well.alarm == fallen.alarm
    calm = well.calmed("somebody", 1.0)
    assert (calm.alarm, calm.state.seen, calm.acknowledged) == (None, 0, 1)
    assert calm.detector == fallen.detector
    assert calm.calmed("somebody", 1.0) == calm


def test_what_is_not_acknowledged_as_normal_alarms_again(fallen):
    """Whoever only takes the alarm off has not mended anything."""
    assert fed(fallen.calmed("somebody", 1.0), noisy(np.random.default_rng(3), 0.45, 60)).alarm is not None


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(0, 1) | st.none(), max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(0, 60),
)
def test_restarts_in_the_middle_give_the_same_alarms(watching, values, cuts, checked_at):
    """State that does not survive a restart forgets half of a fall, or an alarm."""
    frozen = anchors(12)
    scores = tuple(anchor.score for anchor in frozen.anchors)

    def run(restarts):
        series = watching
        for i, value in enumerate(values):
            if i in restarts:
                series = decode_series(encode_series(series))
            if i == checked_at:
                series = series.checked(frozen, scores, 5.0)
            series = series.fed(value, float(i))
        return series

    assert run(set(cuts)) == run(set())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("state", "statistic"), math.nan),
        (("state", "seen"), -1),
        (("reference",), [0.5, 1.5]),
        (("reference",), ["0.5"]),
        (("detector", "threshold"), math.inf),
        (("alarm", "kind"), "weather"),
        (("alarm", "raised_at"), math.nan),
        (("after", "n"), -3),
        (("plan", "drop"), 2.0),
        (("plan",), None),
        (("unknown",), 1),
        (("waiting",), 3),
    ],
)
def test_damaged_states_are_refused(fallen, path, value):
    """A NaN in a statistic would silence the detector for ever."""
    told = json.loads(encode_series(fallen))
    inner = told
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises((KeyError, TypeError, ValueError)):
        decode_series(json.dumps(told))


@pytest.mark.parametrize(
    "wrong",
    [
        {"reference": 29},
        {"reference": 200.0},
        {"horizon": 0},
        {"checks": True},
        {"drop": 0.0},
        {"false_alarms": 1.0},
        {"judge_alarms": math.nan},
    ],
)
def test_plans_that_cannot_work_are_refused(wrong):
    """They are found when the monitor is made, not after the reference phase."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Plan(**wrong)


# --- who changed ---


def shift(low, high):
    return Shift(value=(low + high) / 2, interval=Interval(low, high, 0.99, "t"), anchors=60, missing=0)


REFERENCE = tuple(noisy(np.random.default_rng(5), 0.7, 200))


def after(mean, n=100):
    moments = Moments()
    for score in noisy(np.random.default_rng(6), mean, n):
        moments = moments + float(score)
    return moments


@pytest.mark.parametrize(
    ("of_judge", "mean", "n", "kind"),
    [
        (shift(-0.02, 0.02), 0.55, 0, "system"),  # a judge that stood still: at once
        (shift(0.02, 0.06), 0.55, 0, "both"),  # milder, and yet the scores fell
        (shift(-0.03, -0.01), 0.55, 0, "both"),  # stricter, by less than the slack
        (shift(-0.18, -0.12), 0.55, 100, "judge"),  # explains the fall of 15 points
        (shift(-0.18, -0.12), 0.55, 29, "unclear"),  # too early to say
        (shift(-0.18, -0.12), 0.30, 100, "both"),  # explains less than half of it
        (shift(-0.20, 0.10), 0.55, 100, "unclear"),  # anchors that say nothing
        (shift(-0.06, 0.05), 0.40, 100, "system"),  # wide, but the fall is more than all of it
        (shift(-0.07, 0.05), 0.65, 0, "unclear"),  # a judge that may have taken more than the slack
        (shift(-0.18, -0.02), 0.55, 40, "unclear"),  # a fall of the system may hide behind it
        (None, 0.55, 100, "unclear"),
    ],
)
def test_the_rule(of_judge, mean, n, kind):
    """Whoever mends the system where the judge had changed, or the other way round, loses days."""
    found = told_apart(0.1, REFERENCE, after(mean, n) if n else Moments(), of_judge, fell=True)
    assert found.kind == kind
    assert (found.reason is None) == (kind != "unclear")


def test_a_judge_that_moved_is_an_alarm_without_a_fall():
    """A judge that got milder hides a fall of the system."""
    assert told_apart(0.1, REFERENCE, Moments(), shift(0.02, 0.06), fell=False).kind == "judge"
    assert told_apart(0.1, REFERENCE, Moments(), shift(-0.01, 0.06), fell=False).kind is None
    unmeasured = told_apart(0.1, REFERENCE, Moments(), None, fell=False)
    assert unmeasured.kind is None
    assert unmeasured.reason == "too few anchors could be scored"


def test_scores_are_compared_as_welch_does():
    """The interval decides who is named; scipy's own is worked out independently."""
    from scipy import stats

    rng = np.random.default_rng(7)
    one, other = noisy(rng, 0.7, 80), noisy(rng, 0.6, 33, 0.2)
    moments = Moments()
    for score in other:
        moments = moments + float(score)
    value, interval = score_change(list(one), moments, 0.99)
    expected = stats.ttest_ind(other, one, equal_var=False).confidence_interval(0.99)
    assert value == pytest.approx(other.mean() - one.mean())
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_a_name_once_given_stays(fallen):
    """A second change must not wash out the first; unclear never takes back what was clear."""
    frozen = anchors()
    first = np.array([anchor.score for anchor in frozen.anchors])
    rng = np.random.default_rng(8)
    still = tuple(np.clip(first + rng.normal(0, 0.02, 60), 0, 1))
    stricter = tuple(np.clip(first - 0.25 + rng.normal(0, 0.02, 60), 0, 1))
    named = fallen.checked(frozen, still, 1.0)
    assert (named.alarm.kind, named.check.kind) == ("system", "system")
    later = named.checked(frozen, stricter, 2.0)
    assert later.check.kind in ("judge", "both")
    assert later.alarm.kind == "both"
    assert later.checked(frozen, (None,) * 60, 3.0).alarm == later.alarm
    assert later.alarm.raised_at == fallen.alarm.raised_at


def test_checks_are_due_at_intervals_and_after_an_alarm(watching, fallen):
    """An alarm whose anchors are never scored again stays unclear for ever."""
    frozen = anchors()
    first = tuple(anchor.score for anchor in frozen.anchors)
    assert not watching.check_due
    assert not fed(watching, [0.7] * 39).check_due
    assert fed(watching, [0.7] * 40).check_due  # 200 scores, 5 checks
    assert not fed(watching, [0.7] * 40).checked(frozen, first, 0.0).check_due
    assert fallen.checked(frozen, (None,) * 60, 0.0).checks == 1
    early = fed(watching, noisy(np.random.default_rng(2), 0.3, 10))
    assert early.alarm is not None
    assert early.check_due
    unsure = early.checked(frozen, (None,) * 60, 0.0)
    assert not unsure.check_due
    assert fed(unsure, [0.3] * 30).check_due


def simulated(watching_at, judge, system, rng, frozen):
    """A change of judge and system; checked whenever it is due. Returns who is named at the end."""
    series = watching_at
    first = np.array([anchor.score for anchor in frozen.anchors])
    for _ in range(200):
        score = float(np.clip(rng.normal(0.7 + judge + system, 0.12), 0, 1))
        series = series.fed(score, 0.0)
        if series.check_due:
            again = np.clip(first + judge + rng.normal(0, 0.06, len(first)), 0, 1)
            series = series.checked(frozen, tuple(again), 0.0)
        if series.alarm is not None and series.alarm.kind != "unclear":
            break
    return series.alarm.kind if series.alarm is not None else None


@pytest.mark.parametrize(
    ("judge", "system", "named", "never"),
    [
        (0.0, -0.15, "system", {"judge"}),
        (-0.15, 0.0, "judge", {"system"}),
        (-0.15, -0.2, "both", {"system"}),
        (0.15, -0.15, "judge", {"system"}),  # what hides a fall is found all the same
    ],
)
def test_judge_and_system_are_told_apart(watching, judge, system, named, never):
    """The rule by simulation: nearly always the right name, and the wrong one at most by its rate."""
    rng = np.random.default_rng(9)
    kinds = [simulated(watching, judge, system, rng, anchors(seed=run)) for run in range(40)]
    assert kinds.count(named) >= 34, kinds
    assert sum(kind in never for kind in kinds) <= 4, kinds


def test_nothing_is_named_where_nothing_changed(watching):
    """At most one in twenty series, by the detector and by the judge each."""
    rng = np.random.default_rng(10)
    reference = np.array(watching.reference)
    named = 0
    for run in range(40):
        frozen = anchors(seed=run)
        first = np.array([anchor.score for anchor in frozen.anchors])
        series = watching
        for score in rng.choice(reference, 200):
            series = series.fed(float(score), 0.0)
            if series.check_due and series.alarm is None:
                # The first scores had the same noise.
                again = np.clip(first + rng.normal(0, 0.08, 60), 0, 1)
                series = series.checked(frozen, tuple(again), 0.0)
        named += series.alarm is not None
    assert named <= 8  # 10 % of 40 is 4; 8 and more happen in 4 % of such series


# --- anchors ---


def moved_by(frozen, scores, level):
    """The shift of a judge."""
    return judge_shift(frozen, scores, level)


def test_anchors_survive_their_json_and_have_its_hash():
    """A hash that changes with a restart refuses the set; one that doesn't see a change is none."""
    one = anchors()
    again = AnchorSet.of_json(one.to_json())
    assert again == one
    assert again.sha256 == one.sha256
    other = dataclasses.replace(one.anchors[0], score=one.anchors[0].score / 2)
    changed = dataclasses.replace(one, anchors=(other, *one.anchors[1:]))
    assert changed.sha256 != one.sha256


def test_tasks_of_anchors_are_kept_whole():
    """The judge must be asked just what it was asked first: references and all."""
    task = Task("Q?", references=("a", "b"), family="f", source="s", metadata={"k": [1]})
    kept = AnchorSet(tuple(Anchor(task, str(i), 0.5) for i in range(10)), "judge", 0.0)
    assert AnchorSet.of_json(kept.to_json()).anchors[0].task == task
    with pytest.raises(InputError, match="metadata"):
        dataclasses.replace(
            kept, anchors=(*kept.anchors, Anchor(Task("Q?", metadata={"k": {1}}), "x", 0.5))
        ).to_json()


def test_too_few_anchors_are_refused():
    """Nine answers cannot tell a judge from its noise."""
    with pytest.raises(InputError, match="10 scored answers"):
        anchors(9)
    with pytest.raises(InputError):
        anchors(0)


def test_a_judge_that_leaves_out_anchors_is_not_measured():
    """Those it refuses are no random ones: the rest would look as if nothing had changed."""
    frozen = anchors(50)
    scores = [anchor.score for anchor in frozen.anchors]
    assert moved_by(frozen, scores[:40] + [None] * 10, 0.95).missing == 10
    assert moved_by(frozen, scores[:39] + [None] * 11, 0.95) is None
    assert moved_by(anchors(10), [0.5] * 9 + [None], 0.95) is None


def test_a_shift_of_all_anchors_alike_is_found():
    """A judge without noise that moved is the clearest case, and has no variance."""
    frozen = anchors(40, score=0.8)
    found = moved_by(frozen, [0.7] * 40, 0.9975)
    assert found.value == pytest.approx(-0.1)
    assert found.moved
    assert not moved_by(frozen, [0.8] * 40, 0.9975).moved


def test_anchors_of_one_source_are_one():
    """Fifty answers about one document rise and fall together."""
    frozen = AnchorSet(
        tuple(Anchor(Task(f"Q{i}?", source="document"), "a", 0.8) for i in range(50)), "judge", 0.0
    )
    assert not moved_by(frozen, [0.7] * 50, 0.95).moved
