"""A gate's promise, watched: alarms as seldom as stated, shifts found, and nothing lost by a restart."""

import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from scipy import stats

from cert.core.errors import ConfigurationError, InputError
from cert.core.events import EventHub, GateShifted, GateStanding, PromiseVoid
from cert.testing import captured_events
from cert.trajectory.calibration.bins import Bins, uniform
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.certificate_parts import Quantiles
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.risk_bound import by_luck, log_capital, lower_bound
from cert.trajectory.calibration.shift import ShiftTest
from cert.trajectory.calibration.watch import GateWatch

GOALS = ("false-flags", "misses", "selective-risk", "undetected-errors", "streaming")


def at_most(count: int, rate: float) -> int:
    """The most events in ``count`` that a rate gives, but for one case in a thousand."""
    return int(stats.binom.ppf(0.999, count, rate))


def bins_of(scores: Any, **options: Any) -> Bins:
    ranks = Quantiles.of(np.asarray(scores, dtype=np.float64)).ranks
    assert ranks is not None
    bins = Bins.of(ranks, **({"seed": 1} | options))
    assert bins is not None
    return bins


# --- (a) without labels ---


@pytest.mark.parametrize("law", ["continuous", "few values", "half not measured", "one value"])
def test_warnings_while_nothing_changed_are_as_seldom_as_stated(law):
    """Whoever is called at night for nothing switches the watch off; ties and gaps must not do it either."""
    rng = np.random.default_rng(7)
    level, runs, length = 0.2, 150, 250

    def draw(count: int) -> np.ndarray[Any, Any]:
        scores = rng.normal(size=count)
        if law == "few values":
            scores = np.round(scores)
        if law == "half not measured":
            scores[rng.random(count) < 0.5] = np.nan
        return np.zeros(count) if law == "one value" else scores

    alarms = 0
    for run in range(runs):
        bins = bins_of(draw(int(rng.integers(20, 90))), seed=run)
        test = ShiftTest(bins.gaps)
        for place, score in enumerate(draw(length).tolist()):
            test.update(bins.place(score, uniform(run, place)))
        alarms += test.highest >= math.log(1.0 / level)
    assert alarms <= at_most(runs, level)


def test_the_next_bin_is_as_likely_as_the_test_takes_it_to_be():
    """The law under which warnings are rare must be the true one, ties included."""
    rng = np.random.default_rng(3)
    hits = np.zeros(20)
    expected = np.zeros(20)
    for seed in range(1500):
        bins = bins_of(rng.integers(0, 4, 39), seed=seed)
        gaps = np.array(bins.gaps, dtype=float)
        expected += gaps / gaps.sum()
        hits[bins.place(float(rng.integers(0, 4)), rng.random())] += 1
    assert stats.chisquare(hits, expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("after", "shift", "spread", "within"), [(0, 1.0, 1.0, 60), (400, 1.0, 1.0, 120), (0, 0.0, 2.5, 80)]
)
def test_a_shift_is_found_soon_also_when_it_comes_late(after, shift, spread, within):
    """A watch that never barks is none: a standard deviation of the scores is much."""
    rng = np.random.default_rng(11)
    found = []
    for run in range(20):
        bins = bins_of(rng.normal(size=300), seed=run)
        test = ShiftTest(bins.gaps)
        scores = rng.normal(size=after + within)
        scores[after:] = scores[after:] * spread + shift
        for place, score in enumerate(scores.tolist()):
            test.update(bins.place(score, uniform(run, place)))
        found.append(test.highest >= math.log(100.0))
    assert np.mean(found) >= 0.8


@given(st.lists(st.one_of(st.floats(), st.integers(-3, 3).map(float)), min_size=1, max_size=450))
def test_places_among_old_scores_are_exact(scores):
    """A rank that is off by one makes the law of the test another one."""
    quantiles = Quantiles.of(np.array(scores))
    ranks = quantiles.ranks
    assert ranks is not None
    ordered = sorted(math.inf if math.isnan(score) else score for score in scores)
    assert ranks.n == len(scores)
    assert [ordered[rank - 1] for rank in ranks.ranks] == list(ranks.values)
    for value, below, most in zip(ranks.values, ranks.below, ranks.at_most, strict=True):
        assert (below, most) == (sum(s < value for s in ordered), sum(s <= value for s in ordered))
    bins = Bins.of(ranks, seed=0)
    if bins is not None:
        assert (sum(bins.gaps), min(bins.gaps) >= 1) == (ranks.n + 1, True)
        for score in scores:
            value = math.inf if math.isnan(score) else score
            place = bins.place(score, 0.5)
            assert all(cut <= value for cut in bins.cuts[:place])
            assert all(cut >= value for cut in bins.cuts[place:])


# --- (b) with labels ---


def test_a_promise_that_is_kept_at_its_very_edge_is_void_as_seldom_as_stated():
    """The worst case of the level: a rate of exactly α, looked at after every label."""
    rng = np.random.default_rng(5)
    alpha, level, runs, labels = 0.1, 0.1, 400, 1000
    void = 0
    for _ in range(runs):
        events = rng.random(labels) < alpha
        counts = np.cumsum(events)
        void += any(
            log_capital(int(counts[t]), t + 1, alpha) >= -math.log(level)
            for t in np.flatnonzero(events).tolist()
        )
    assert void <= at_most(runs, level)


def test_a_broken_promise_is_found():
    """Twice the promised rate is found within some hundred labels."""
    rng = np.random.default_rng(6)
    found = []
    for _ in range(50):
        events = np.cumsum(rng.random(600) < 0.2)
        found.append(lower_bound(int(events[-1]), 600, 0.05) > 0.1)
    assert np.mean(found) >= 0.9


@given(events=st.integers(0, 60), more=st.integers(0, 2000), level=st.floats(0.001, 0.5))
def test_the_bound_is_the_smallest_rate_that_the_capital_has_not_refused(events, more, level):
    """A bound beyond the share itself, or one that a smaller level raises, would void what stands."""
    labels = events + more
    if not labels:
        return
    bound = lower_bound(events, labels, level)
    assert 0.0 <= bound <= events / labels
    assert lower_bound(events, labels, level / 2) <= bound + 1e-12
    if bound > 1e-9:
        assert log_capital(events, labels, bound * (1 - 1e-6)) >= -math.log(level) - 1e-6
    if 0.0 < bound < 1.0 - 1e-9:
        assert log_capital(events, labels, bound + 1e-6 * (1 - bound)) <= -math.log(level) + 1e-6


def test_void_is_declared_where_mapie_raises_its_alarm_too():
    """An independent program with the same claim agrees on what is clear, and is no sharper elsewhere."""
    mapie = pytest.importorskip("mapie.exchangeability_testing")
    rng = np.random.default_rng(9)
    for rate, clear in ((0.1, False), (0.14, None), (0.3, True)):
        wrong = rng.random(800) < rate
        # Half of MAPIE's level goes to a reference that is not used here; `accuracy` makes errors of zeros.
        theirs = mapie.RiskMonitoring("accuracy", test_level=0.1, threshold=0.1, warn=False)
        theirs.update(np.ones(800, dtype=int), (~wrong).astype(int))
        bounds = theirs.online_risk_lower_bound_sequence_history
        ours = [lower_bound(int(wrong[:n].sum()), n, 0.05) for n in range(100, 801, 100)]
        assert np.all(np.array(ours) >= bounds[99::100] - 0.005)
        if clear is not None:
            assert (theirs.harmful_shift_detected, ours[-1] > 0.1) == (clear, clear)


@given(a=st.integers(1, 60), b=st.integers(1, 400), rate=st.floats(0.0, 1.0))
def test_the_chance_of_an_unlucky_calibration_is_that_of_its_law(a, b, rate):
    """What is told as luck or no luck is the Beta law of conformal thresholds."""
    assert by_luck(a, b, rate) == pytest.approx(stats.beta.sf(rate, a, b), abs=1e-9)


# --- the watch of a gate ---


def calibrated(labelled, goal: Any, seed: int = 0, n: int = 400, **options: Any) -> CalibratedGate:
    """Return a gate over scores by which wrong answers are worse."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.7
    scores = rng.normal(size=n) + 2.5 * ~correct
    delta = 0.1 if goal == "selective-risk" else None
    return CalibratedGate(
        calibrate(
            labelled(scores, correct, **options), goal=goal, alpha=0.1, delta=delta, by_group=bool(options)
        )
    )


@pytest.fixture(scope="module")
def gates(labelled) -> dict[str, CalibratedGate]:
    return {goal: calibrated(labelled, goal) for goal in GOALS}


@pytest.mark.parametrize("goal", GOALS)
def test_each_goal_counts_what_its_promise_is_about(gates, goal):
    """A risk among the passed is another one than a rate among the right; NaN is never passed."""
    watch = GateWatch(gates[goal], hub=EventHub())
    low, high = -1e9, 1e9
    cases = [(low, True), (low, False), (high, True), (high, False), (math.nan, True), (math.nan, False)]
    expected = {
        "false-flags": (3, 2), "streaming": (3, 2), "misses": (3, 1), "selective-risk": (2, 1),
        "undetected-errors": (6, 1),
    }  # fmt: skip
    for score, correct in cases:
        watch.observe_label(score, correct)
    (risk,) = watch.status.risks
    assert (risk.counted, risk.events) == expected[goal]
    assert watch.status.labels == 6


@pytest.mark.parametrize("goal", GOALS)
def test_a_shift_warns_and_wrong_answers_make_the_promise_void(gates, goal):
    """The two alarms, their events, and what a health check says of them."""
    hub = EventHub()
    rng = np.random.default_rng(2)
    with captured_events(hub) as events:
        watch = GateWatch(gates[goal], hub=hub, seed=1)
        assert watch.health().status == "healthy"
        while watch.status.shifted_at is None:
            watch.observe(float(rng.normal() - 1.5 if goal == "streaming" else rng.normal() + 2.0))
        assert (watch.status.state, watch.health().code, watch.void) == ("shifted", "gate_shifted", None)
        worst = 1e9 if goal in ("false-flags", "streaming") else -1e9
        while watch.status.void_at is None:
            watch.observe_label(worst, goal in ("false-flags", "streaming"))
        watch.acknowledge()
    assert (watch.status.state, watch.health().code) == ("void", "promise_void")
    assert watch.health().status == "unhealthy"
    assert "void" in str(watch.void)
    assert [type(event) for event in events.all()] == [
        GateShifted, GateStanding, PromiseVoid, GateStanding, GateStanding,
    ]  # fmt: skip
    assert [(e.shifted, e.void) for e in events.of(GateStanding)] == [
        (True, False),
        (True, True),
        (False, True),
    ]
    (found,) = events.of(PromiseVoid)
    assert found.bound > found.alpha == 0.1


def test_what_a_stopped_run_tells_is_enough(labelled):
    """Runs end at the alarm, and their scores stay small: that must be no shift."""
    alarms = 0
    for seed in range(40):
        gate = calibrated(labelled, "streaming", seed)
        threshold: Any = gate.threshold_of()
        watch = GateWatch(gate, hub=EventHub(), shift_level=0.2, seed=seed)
        assert watch.status.watched
        rng = np.random.default_rng(1000 + seed)
        wrong = rng.random(300) < 0.3
        for score in (rng.normal(size=300) + 2.5 * wrong).tolist():
            watch.observe(min(score, math.nextafter(threshold, math.inf)))
        alarms += watch.status.shifted_at is not None
    assert alarms <= at_most(40, 0.2)


def test_the_promise_of_each_group_is_watched(labelled):
    """A promise by group that one group breaks is void, however well the others do."""
    gate = calibrated(labelled, "undetected-errors", groups=["a", "b"] * 200)
    watch = GateWatch(gate, hub=EventHub())
    for number in range(3000):
        watch.observe_label(1e9, True, "a")
        if number % 20 == 0:
            watch.observe_label(-1e9, number % 40 == 0, "b")
    by_group = {risk.group: risk for risk in watch.status.risks}
    assert by_group["b"].bound > 0.1 > by_group[None].bound
    assert watch.status.state == "void"
    for group in (None, "c"):
        with pytest.raises(InputError):
            watch.observe_label(0.0, True, group)


@pytest.mark.parametrize("goal", GOALS)
def test_a_restart_loses_nothing(gates, goal, tmp_path):
    """A watch that forgets at each deployment never finds anything."""
    rng = np.random.default_rng(8)
    scores, labels = (rng.normal(size=90) + 0.3).round(1).tolist(), rng.random(90) < 0.5
    straight = GateWatch(gates[goal], hub=EventHub(), seed=4)
    broken = GateWatch(gates[goal], hub=EventHub(), seed=4)
    for place, (score, label) in enumerate(zip(scores, labels.tolist(), strict=True)):
        for watch in (straight, broken):
            watch.observe(score)
            watch.observe_label(score, label)
        if place % 30 == 29:
            broken = GateWatch.load(gates[goal], broken.save(tmp_path / "watch.json"), hub=EventHub())
    assert broken.status == straight.status
    assert broken.to_dict() == straight.to_dict()
    assert len(json.dumps(straight.to_dict())) < 20_000


def test_a_state_that_is_not_of_this_gate_is_refused(gates):
    """Another gate's counts, a file that was edited or cut off: none may void or save a promise."""
    gate = gates["misses"]
    watch = GateWatch(gate, hub=EventHub())
    watch.observe(1.0)
    watch.observe_label(1e9, False)
    state = watch.to_dict()
    wrong: list[Any] = [
        b"", b"[]", b"{" * 100_000, json.dumps(state).encode()[:-9], None, 3,
        state | {"certificate": "0" * 64}, state | {"kind": "x"}, state | {"schema_version": 2},
        state | {"seen": 5}, state | {"not_measured": 2}, state | {"labels": 0}, state | {"void_at": 7},
        state | {"shift_level": 0.0}, state | {"seed": -1}, state | {"tests": []}, state | {"more": 1},
        state | {"risks": {"": [1, 2]}}, state | {"risks": {}, "bounds": {}}, state | {"bounds": {"": 2.0}},
        state | {"tests": [state["tests"][0] | {"log_capital": math.inf}]},
        state | {"tests": [state["tests"][0] | {"shares": [[1.0]]}]},
        state | {"tests": [state["tests"][0] | {"counts": [1] * 3}]},
        state | {"tests": [{}]},
    ]  # fmt: skip
    for data in wrong:
        with pytest.raises(InputError):
            GateWatch.of_dict(gate, data)
    assert GateWatch.of_dict(gate, state).to_dict() == state


def test_threads_lose_no_score_and_no_label(gates):
    """A service feeds one watch from all of its threads."""
    watch = GateWatch(gates["undetected-errors"], hub=EventHub())
    start = threading.Barrier(4)

    def feed(_: int) -> None:
        start.wait()
        for _ in range(100):
            watch.observe(0.0)
            watch.observe_label(1e9, True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(feed, range(4)))
    status = watch.status
    assert (status.seen, status.labels, status.risks[0].counted) == (400, 400, 400)
    assert sum(watch.to_dict()["tests"][0]["counts"]) == 400


def test_what_cannot_be_watched_is_said(gates, labelled):
    """Levels that are none, labels that are no truth values, and certificates with nothing to compare."""
    wrong: Any = ({"shift_level": 0.0}, {"risk_level": 1.0}, {"risk_level": math.nan})
    for options in wrong:
        with pytest.raises(ConfigurationError):
            GateWatch(gates["misses"], **options)
    watch = GateWatch(gates["misses"], hub=EventHub())
    labels: Any = (1, None, "yes", np.bool_(True))
    for label in labels:
        with pytest.raises(InputError, match="True or False"):
            watch.observe_label(0.0, label)
    c = gates["misses"].certificate
    bare = type(c.score_quantiles)(
        Quantiles(c.score_quantiles.all.n, c.score_quantiles.all.values), Quantiles(0, ())
    )
    watch = GateWatch(CalibratedGate(replace(c, score_quantiles=bare)), hub=EventHub())
    for _ in range(200):
        watch.observe(1e6)
    assert (watch.status.watched, watch.status.state, watch.status.seen) == (False, "standing", 200)


def test_a_certificate_keeps_what_the_watch_needs(gates, tmp_path):
    """After a trip through a file the law of the test must be the same."""
    c = gates["misses"].certificate
    again = Certificate.load(c.save(tmp_path / "c.json"))
    assert again.score_quantiles.all.ranks == c.score_quantiles.all.ranks
    assert again.score_quantiles.all.ranks is not None
    data = c.to_dict()["score_quantiles"]["all"]
    with pytest.raises(InputError):
        Quantiles(data["n"], tuple(map(float, data["values"])), tuple(data["at_most"]), tuple(data["below"]))


class AnyOrder(RuleBasedStateMachine):
    """Scores, labels, restarts and acknowledgements in any order."""

    gate: CalibratedGate

    def __init__(self) -> None:
        super().__init__()
        self.watch = GateWatch(self.gate, hub=EventHub(), shift_level=0.2, risk_level=0.2, seed=1)
        self.was_void = False
        self.labels = 0

    @rule(score=st.floats(), count=st.integers(1, 30))
    def scores(self, score: float, count: int) -> None:
        for _ in range(count):
            self.watch.observe(score)

    @rule(score=st.floats(), correct=st.booleans(), count=st.integers(1, 30))
    def label(self, score: float, correct: bool, count: int) -> None:
        self.labels += count
        for _ in range(count):
            self.watch.observe_label(score, correct)

    @rule()
    def restart(self) -> None:
        state = json.loads(json.dumps(self.watch.to_dict(), allow_nan=False))
        self.watch = GateWatch.of_dict(self.gate, state, hub=EventHub())

    @rule()
    def acknowledge(self) -> None:
        self.watch.acknowledge()

    @invariant()
    def sound(self) -> None:
        status = self.watch.status
        self.was_void |= status.state == "void"
        assert (self.watch.void is not None) == self.was_void == (status.state == "void")
        assert (status.shifted_at is not None) >= (status.evidence >= 5.0)
        assert status.labels == self.labels
        assert all(0.0 <= risk.bound <= 1.0 and risk.events <= risk.counted for risk in status.risks)


@pytest.mark.parametrize("goal", ["selective-risk", "streaming"])
def test_no_order_of_events_breaks_it(gates, goal):
    """What is void stays void, through restarts and acknowledgements."""
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (AnyOrder,), {"gate": gates[goal]})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=30, stateful_step_count=15, deadline=None)
    )
