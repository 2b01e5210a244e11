"""From labelled answers to a certificate: parts that share no unit, refusals, and figures that are right."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy")
pytest.importorskip("rfc8785")

from scipy import stats

from cert.core.errors import ConfigurationError, InfeasibleError, InputError
from cert.signals import GenerationSignals
from cert.trajectory.calibration.achieved import clustered_rate
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.goals import GOALS, Goal, realised_rate
from cert.trajectory.calibration.labelled import Conditions, LabelledData
from cert.trajectory.calibration.scores import SCORES

CONDITIONS = Conditions(model="m", sampling={"temperature": 0.0}, top_k=20)


def labelled(n, seed=0, *, per_unit=1, groups=None, wrong=0.25, **changes):
    """Answers of which some are wrong and mostly look so, by msp; the other signals are noise."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) >= wrong
    surprisal = np.where(correct, rng.gamma(1.0, 1.0, n), rng.gamma(6.0, 1.0, n))
    columns = {f.name: rng.normal(size=n) for f in fields(GenerationSignals)}
    columns |= {"n_tokens": np.full(n, 4), "sequence_logprob": -surprisal}
    named = None if groups is None else np.array(groups, dtype=object)[np.arange(n) % len(groups)]
    usual = {
        "ids": tuple(map(str, range(n))),
        "correct": correct,
        "columns": columns,
        "units": np.arange(n, dtype=np.int64) // per_unit,
        "groups": named,
        "conditions": CONDITIONS,
        "sha256": "cd" * 32,
    }
    return LabelledData(**usual | changes)


def delta_of(goal):
    return 0.1 if goal == "selective-risk" else None


@pytest.mark.parametrize("goal", GOALS)
def test_every_goal_gives_a_certificate_of_what_was_done(goal):
    """Whoever reads it must find the promise, the data and what was achieved, all of one run."""
    data = labelled(1500)
    c = calibrate(data, goal=goal, alpha=0.1, delta=delta_of(goal), seed=3)
    assert (c.goal, c.alpha, c.delta, c.score, c.seed) == (goal, 0.1, delta_of(goal), "msp", 3)
    assert c.conditions == CONDITIONS
    assert (c.data_n, c.data_units, c.data_sha256) == (1500, 1500, data.sha256)
    assert c.split.keys() == {"calibration", "held_out"}
    assert (c.n, c.n_units, c.n_wrong) == tuple(
        getattr(c.split["calibration"], name) for name in ("n", "n_units", "n_wrong")
    )
    assert c.achieved is not None
    assert c.achieved.n == c.split["held_out"].n == 300
    assert c.achieved.promised.lower <= 0.1  # the promise is not refuted on other answers
    assert c.versions["cert-framework"]
    assert len(c.score_quantiles.all.values) >= 201
    assert Certificate.of_dict(c.to_dict()) == c


def test_the_same_data_seed_and_settings_give_the_same_certificate():
    """A certificate that cannot be made again cannot be checked by anybody."""
    first, again = (calibrate(labelled(400), goal="false-flags", alpha=0.1) for _ in range(2))
    assert first.id == again.id
    dated = calibrate(labelled(400), goal="false-flags", alpha=0.1, created_at="2020-01-01T00:00:00Z")
    assert dated.id == first.id
    assert dated.created_at == "2020-01-01T00:00:00Z"
    assert dated.checksum != first.checksum
    assert calibrate(labelled(400), goal="false-flags", alpha=0.1, seed=1).id != first.id


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(GOALS), st.sampled_from([1, 3]))
def test_what_was_achieved_is_what_other_units_say(seed, goal, per_unit):
    """A rate measured on answers that chose the threshold flatters it."""
    data = labelled(900, seed, per_unit=per_unit)
    try:
        c = calibrate(data, goal=goal, alpha=0.2, delta=delta_of(goal), seed=seed)
    except InfeasibleError:
        return
    assert c.threshold is not None
    assert c.achieved is not None
    assert c.split["calibration"].n_units + c.split["held_out"].n_units == data.n_units
    from cert.trajectory.calibration.parts import parts_of

    parts = parts_of(data, goal, 0.2, delta_of(goal), seed, None, tuning_share=0.0, held_out_share=None)
    held = parts.held_out
    assert not set(data.units[held]) & set(data.units[parts.calibration])
    scores = SCORES["msp"].column_of(data.columns)
    expected = realised_rate(goal, c.threshold.value, scores[held], data.correct[held], data.units[held])
    assert c.achieved.promised.value == pytest.approx(expected, nan_ok=True)


# --- the intervals ---


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 300))
def test_with_one_answer_a_unit_the_interval_is_the_exact_one(n, hits):
    """Clopper and Pearson's interval is what readers will compare it with."""
    hits = min(hits, n)
    flags = np.arange(n) < hits
    rate = clustered_rate(flags, np.ones(n, dtype=bool), np.arange(n))
    exact = stats.binomtest(hits, n).proportion_ci(0.95, "exact")
    assert (rate.value, rate.n, rate.n_units) == (hits / n, n, n)
    assert (rate.lower, rate.upper) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_answers_that_repeat_one_another_are_worth_one():
    """Ten copies of each answer say no more than one: an interval that narrows is a false certainty."""
    rng = np.random.default_rng(0)
    hits = rng.random(60) < 0.2
    one = clustered_rate(hits, np.ones(60, dtype=bool), np.arange(60))
    ten = clustered_rate(np.repeat(hits, 10), np.ones(600, dtype=bool), np.repeat(np.arange(60), 10))
    assert ten.value == pytest.approx(one.value)
    assert ten.n == 600
    assert ten.n_units == 60
    assert ten.upper - ten.lower >= one.upper - one.lower
    none = clustered_rate(np.zeros(600, dtype=bool), np.ones(600, dtype=bool), np.repeat(np.arange(60), 10))
    assert none.upper == pytest.approx(1 - 0.025 ** (1 / 60))


def test_intervals_of_clusters_cover_the_truth_as_often_as_they_say():
    """A 95 % interval that covers 70 % is believed all the same."""
    rng = np.random.default_rng(1)
    covered, trials = 0, 400
    for _ in range(trials):
        units = np.repeat(np.arange(40), rng.integers(1, 8, 40))
        risk = rng.beta(1.0, 4.0, 40)  # of each unit; a fifth on average
        rate = clustered_rate(rng.random(len(units)) < risk[units], np.ones(len(units), dtype=bool), units)
        covered += rate.lower <= 0.2 <= rate.upper
    assert covered / trials >= 0.93


def test_units_of_unequal_size_count_alike():
    """The promise is of an answer drawn from a unit drawn at random: so is the rate that is reported."""
    units = np.array([0, 0, 0, 0, 1])
    hits = np.array([True, True, True, True, False])
    assert clustered_rate(hits, np.ones(5, dtype=bool), units).value == 0.5
    nothing = clustered_rate(hits, np.zeros(5, dtype=bool), units)
    assert math.isnan(nothing.value)
    assert (nothing.n, nothing.n_units) == (0, 0)


# --- parts ---


def test_little_data_go_to_the_threshold_and_nothing_is_said_to_be_measured():
    """With 40 answers a held-out part would cost the threshold and tell nothing."""
    c = calibrate(labelled(40), goal="false-flags", alpha=0.1)
    assert c.achieved is None
    assert c.split.keys() == {"calibration"}
    assert any("not measured" in note for note in c.notes)
    asked = calibrate(labelled(40), goal="false-flags", alpha=0.1, held_out_share=0.25)
    assert asked.achieved is not None
    assert asked.achieved.n == 10
    none = calibrate(labelled(2000), goal="false-flags", alpha=0.1, held_out_share=0.0)
    assert none.achieved is None
    assert none.n == 2000


@pytest.mark.parametrize("shares", [{"held_out_share": 1.0}, {"held_out_share": -0.1}, {"held_out_share": 2}])
def test_shares_that_leave_nothing_are_refused(shares):
    """The threshold needs answers of its own."""
    with pytest.raises(ConfigurationError, match="share"):
        calibrate(labelled(200), goal="false-flags", alpha=0.1, **shares)
    with pytest.raises(ConfigurationError, match="share"):
        calibrate(
            labelled(200), goal="false-flags", alpha=0.1, score="best", tuning_share=0.6, held_out_share=0.4
        )


# --- refusals ---


def test_too_few_labels_are_refused_with_how_many_more_would_do():
    """A threshold without grounds would carry a promise that nobody can keep."""
    with pytest.raises(InfeasibleError) as raised:
        calibrate(labelled(15), goal="false-flags", alpha=0.05)
    assert raised.value.needed
    impossible: tuple[tuple[Goal, bool], ...] = (
        ("false-flags", False),
        ("streaming", False),
        ("misses", True),
    )
    for goal, kind in impossible:
        data = labelled(200, correct=np.full(200, kind))
        with pytest.raises(InfeasibleError):
            calibrate(data, goal=goal, alpha=0.1)


def test_labels_of_one_kind_are_said_where_they_are_no_hindrance():
    """That every answer is right is possible, and more often a field that was read wrongly."""
    c = calibrate(labelled(200, correct=np.ones(200, dtype=bool)), goal="false-flags", alpha=0.1)
    assert any("every answer is right" in note for note in c.notes)


def test_a_score_that_was_never_measured_is_refused():
    """Servers show no full vocabulary: a gate on it would measure nothing for ever."""
    data = labelled(200)
    columns = dict(data.columns) | {"mean_self_certainty": np.full(200, np.nan)}
    with pytest.raises(InputError, match=r"measured on none.*full vocabulary"):
        calibrate(replace(data, columns=columns), goal="false-flags", alpha=0.1, score="mean_self_certainty")
    del columns["mean_self_certainty"]
    with pytest.raises(InputError, match="no column 'mean_self_certainty'"):
        calibrate(replace(data, columns=columns), goal="false-flags", alpha=0.1, score="mean_self_certainty")
    with pytest.raises(ConfigurationError, match="no score 'msq'"):
        calibrate(data, goal="false-flags", alpha=0.1, score="msq")
    with pytest.raises(ConfigurationError, match="no goal"):
        calibrate(data, goal="none", alpha=0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no labelled answers"):
        calibrate(data.take(np.zeros(200, dtype=bool)), goal="false-flags", alpha=0.1)
    with pytest.raises(ConfigurationError, match="seed"):
        calibrate(data, goal="false-flags", alpha=0.1, seed=-1)


def test_answers_without_a_score_are_counted_and_never_pass():
    """Left out in silence they would make the gate look better than it is."""
    data = labelled(600)
    values = np.array(data.columns["sequence_logprob"])
    values[::10] = np.nan
    c = calibrate(
        replace(data, columns=dict(data.columns) | {"sequence_logprob": values}), goal="misses", alpha=0.1
    )
    assert c.not_measured == pytest.approx(c.n / 10, rel=0.3)
    assert any("have no 'msp'" in note for note in c.notes)
    assert c.achieved is not None
    assert c.achieved.not_measured > 0
    assert c.achieved.rates["passed"].value <= 1 - c.achieved.not_measured / c.achieved.n + 1e-12


# --- groups ---


def test_each_group_has_a_threshold_and_a_rate_of_its_own():
    """A promise on the mean can be broken for everybody who asks about one subject."""
    c = calibrate(labelled(1200, groups=["law", "art"]), goal="false-flags", alpha=0.1, by_group=True)
    assert c.threshold is None
    assert c.groups is not None
    assert c.groups.keys() == {"law", "art"}
    assert c.achieved is not None
    assert c.achieved.by_group.keys() == {"law", "art"}
    assert Certificate.of_dict(c.to_dict()) == c


def test_groups_that_cannot_be_promised_by_are_refused():
    """A group that is too small must not get the threshold of another."""
    with pytest.raises(ConfigurationError, match="no groups"):
        calibrate(labelled(200), goal="false-flags", alpha=0.1, by_group=True)
    groups = np.array(["big"] * 195 + ["small"] * 5, dtype=object)
    with pytest.raises(InfeasibleError, match="small"):
        calibrate(replace(labelled(200), groups=groups), goal="false-flags", alpha=0.1, by_group=True)
    for wrong in ([1, "1"], ["", "a"]):
        with pytest.raises(InputError, match="group"):
            calibrate(labelled(200, groups=wrong), goal="false-flags", alpha=0.1, by_group=True)


# --- choices ---


def test_the_best_score_is_chosen_on_answers_of_its_own_and_that_is_recorded():
    """A score chosen on the answers that calibrate it looks better than it is: the promise would not hold."""
    data = labelled(1200, per_unit=2)
    c = calibrate(data, goal="false-flags", alpha=0.1, score="best")
    assert c.score == "msp"
    assert c.split.keys() == {"tuning", "calibration", "held_out"}
    assert sum(part.n_units for part in c.split.values()) == data.n_units
    assert any("chosen among" in note for note in c.notes)
    assert c.score_quantiles.all.n == c.split["calibration"].n_units + c.split["held_out"].n_units
    with pytest.raises(InputError, match="no score can be chosen"):
        calibrate(replace(data, correct=np.ones(1200, dtype=bool)), goal="misses", alpha=0.1, score="best")


def test_a_combiner_is_fitted_on_the_tuning_part_and_comes_back_from_the_file():
    """What decides later is what was calibrated, number by number."""
    pytest.importorskip("sklearn")
    data = labelled(3000)
    rng = np.random.default_rng(5)
    columns = dict(data.columns)
    for name in ("sequence_logprob", "mean_margin", "first_top_probability"):
        columns[name] = np.where(data.correct, rng.normal(1.0, 1.0, 3000), rng.normal(0.0, 1.0, 3000))
    c = calibrate(replace(data, columns=columns), goal="false-flags", alpha=0.1, score="combiner")
    assert c.combiner is not None
    assert any("combiner was fitted" in note for note in c.notes)
    from cert.trajectory.calibration.gate import CalibratedGate

    again = CalibratedGate(Certificate.of_dict(c.to_dict()))
    given = calibrate(replace(data, columns=columns), goal="false-flags", alpha=0.1, score=again.score)
    assert given.combiner == c.combiner
    assert any("was given" in note for note in given.notes)


def test_a_combiner_that_is_not_surely_better_is_refused():
    """A model of noise would be calibrated, and be worse than the score that it hides."""
    pytest.importorskip("sklearn")
    with pytest.raises(InfeasibleError, match="no combination is surely better"):
        calibrate(labelled(400), goal="false-flags", alpha=0.1, score="combiner")


def test_a_score_that_no_file_can_hold_is_refused():
    """Nobody who has the certificate could compute it."""

    class Own:
        name = "own"

        def of(self, signals):
            return signals.mean_margin

        def column_of(self, columns):
            return np.asarray(columns["mean_margin"], dtype=np.float64)

    with pytest.raises(ConfigurationError, match="cannot be kept"):
        calibrate(labelled(200), goal="false-flags", alpha=0.1, score=Own())


def test_a_hundred_thousand_answers_take_seconds():
    """Whoever waits for minutes calibrates once and never again."""
    import time

    data = labelled(100_000, per_unit=4, groups=["a", "b"])
    begun = time.perf_counter()
    calibrate(data, goal="selective-risk", alpha=0.1, delta=0.1, by_group=True)
    assert time.perf_counter() - begun < 10.0
