"""The detector of drops: its promise, its state, and what it refuses."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.statistics import DropDetector, DropState
from cert.core.errors import InputError


def scores(rng, shape, mean=0.7):
    return np.clip(rng.normal(mean, 0.15, shape), 0, 1)


@pytest.fixture(scope="module")
def detector():
    return DropDetector.calibrate(scores(np.random.default_rng(1), 200))


def test_promise_of_the_design_is_kept():
    """At most 5 % with any alarm in 1,000 scores, a drop of 8 points found within 150 in 90 %.

    Over 12 reference samples of 200 scores each, since one of them may be lucky.
    """
    rng = np.random.default_rng(2)
    alarms, found = [], []
    for seed in range(12):
        each = DropDetector.calibrate(scores(rng, 200), seed=seed)
        fresh = scores(rng, 20_000)
        alarms.append(each.power_curve(fresh, [0.0], within=1000, runs=100, seed=seed)[0.0])
        found.append(each.power_curve(fresh, [0.08], within=150, runs=100, seed=seed)[0.08])
    assert np.mean(alarms) <= 0.05 + 2.5 * np.std(alarms) / math.sqrt(12)
    assert np.mean(found) >= 0.90


def test_larger_drops_are_found_more_often(detector):
    """A power curve that falls would be a sign error."""
    curve = detector.power_curve(scores(np.random.default_rng(3), 2000), [0.0, 0.04, 0.08, 0.16])
    assert list(curve.values()) == sorted(curve.values())


def test_rises_are_no_alarm(detector):
    """One-sided: better answers are no incident."""
    state = DropState()
    for _ in range(500):
        state = detector.update(state, 1.0)
    assert (state.statistic, state.alarm_at) == (0.0, None)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1) | st.none(), max_size=60), st.integers(0, 60))
def test_a_restart_in_the_middle_changes_nothing(values, cut):
    """State that does not survive a restart would forget half of a drop."""
    detector = DropDetector(0.7, 0.08, 2.0, 200, 1000, 0.05)
    state = DropState()
    for value in values:
        state = detector.update(state, value)
    other = DropState()
    for value in values[:cut]:
        other = detector.update(other, value)
    other = DropState.of(json.loads(json.dumps(other.as_dict())))
    for value in values[cut:]:
        other = detector.update(other, value)
    assert other == state
    assert state.seen + state.missing == len(values)


def test_statistic_is_the_one_of_the_recursion():
    """`power_curve` computes all paths at once; this is the recursion that runs in production."""
    detector = DropDetector(0.7, 0.08, 0.5, 200, 1000, 0.05)
    state, expected, first = DropState(), 0.0, None
    for i, score in enumerate(scores(np.random.default_rng(4), 300, 0.6), start=1):
        state = detector.update(state, float(score))
        expected = max(0.0, expected + 0.7 - score - 0.04)
        first = first or (i if expected > 0.5 else None)
        assert state.statistic == pytest.approx(expected)
    assert state.alarm_at == first is not None
    assert state.alarm_at is not None
    assert state.quiet_at < state.alarm_at


def test_missing_scores_are_counted_and_change_nothing(detector):
    """A judge that is down is not a drop in quality."""
    state = detector.update(detector.update(DropState(), 0.2), math.nan)
    assert (state.seen, state.missing) == (1, 1)
    assert state.statistic == detector.update(DropState(), 0.2).statistic


def test_calibration_is_deterministic():
    """Two replicas that calibrate on one reference must agree on every alarm."""
    reference = scores(np.random.default_rng(5), 60)
    assert DropDetector.calibrate(reference) == DropDetector.calibrate(reference)


def test_a_small_reference_costs_a_higher_threshold():
    """A mean of forty scores is not known as well as one of four hundred: pretending so alarms at nothing."""
    few = scores(np.random.default_rng(7), 40)
    many = np.tile(few, 10)
    assert DropDetector.calibrate(few).threshold > 1.5 * DropDetector.calibrate(many).threshold


def test_fewer_false_alarms_cost_a_higher_threshold():
    """The stated rate is what the threshold is made of."""
    reference = scores(np.random.default_rng(6), 100)
    few = DropDetector.calibrate(reference, false_alarms=0.01)
    many = DropDetector.calibrate(reference, false_alarms=0.2)
    assert few.threshold > many.threshold


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ([0.5] * 10, "30 scores"),
        ([0.5] * 200, "all equal"),
        ([1.0] * 39 + [0.0], "hardly vary"),
        ([1.5] * 200, "in \\[0, 1\\]"),
        ([math.nan] * 200, "30 scores"),
    ],
)
def test_references_that_say_nothing_are_refused(reference, match):
    """A threshold from a sample without variance would alarm at the first wrong answer, or never."""
    with pytest.raises(InputError, match=match):
        DropDetector.calibrate(reference)


@pytest.mark.parametrize(
    "data",
    [
        {"statistic": math.nan},
        {"statistic": -1.0},
        {"statistic": "much"},
        {"seen": -1},
        {"seen": 1.5},
        {"seen": 2, "alarm_at": 3},
        {"unknown": 1},
    ],
)
def test_damaged_states_are_refused(data):
    """A state file is a file: a NaN in it would silence the detector for ever."""
    with pytest.raises(InputError):
        DropState.of(data)


def test_scores_outside_the_unit_interval_are_refused(detector):
    """A score of 11/10 would hide a drop."""
    with pytest.raises(InputError):
        detector.update(DropState(), 1.1)
