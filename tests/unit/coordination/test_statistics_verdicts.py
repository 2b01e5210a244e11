"""Verdicts: when a claim is made, when it is not, and what is said instead."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cert.coordination.statistics import (
    Discordant,
    Qualities,
    Rules,
    decide,
    decide_all,
    decide_sequentially,
    difference,
    discordance_spread,
    holm,
    minimum_detectable_effect,
    noise_floor,
    pair,
    tasks_for,
    tasks_needed,
    variance_components,
)
from cert.core.errors import InputError


def known(value):
    """What is measured here; a test of a missing number would pass for the wrong reason."""
    assert value is not None
    return value


def drawn(system, tasks, seed=0):
    found = system.draw(tasks, np.random.default_rng((11, seed)))
    return found.coordinated, found.baseline, found.sources.tolist()


def verdict_of(system, tasks, seed, rules):
    coordinated, baseline, sources = drawn(system, tasks, seed)
    return decide(coordinated, baseline, sources, rules).verdict


def test_a_clear_gain_is_worth_it():
    """The answer that the monitor exists for."""
    found = decide(*drawn(Qualities(0.15, replicates=2), 100))
    assert found.verdict == "worth_it"
    assert found.difference.interval.low > 0.025
    assert known(found.ratio.interval).low > 1
    assert found.more_tasks is None


def test_nothing_gained_on_many_tasks_is_not_worth_it():
    """Saying "not enough data" for ever would leave a platform owner paying for nothing."""
    found = decide(*drawn(Qualities(0.0, varied=0.05, spread=0.2), 400))
    assert found.verdict == "not_worth_it"
    assert found.difference.interval.high < 0.025


def test_doubt_is_said_with_the_number_of_tasks_that_would_end_it():
    """Doubt without a number leaves the reader nothing to do."""
    found = decide(*drawn(Discordant(0.10, 0.05), 60, seed=1))
    assert found.verdict == "not_enough_data"
    assert found.tasks_needed == known(found.more_tasks) + 60
    assert 800 < known(found.tasks_needed) < 5000  # 1,858 with the true variance
    assert f"about {found.more_tasks} more tasks" in " ".join(found.reasons)
    assert known(found.minimum_detectable_effect) > 0.1


def test_one_task_is_never_enough():
    """Under no effect P(γ > 1) is one half: one run says nothing, whatever its scores."""
    found = decide([[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]])
    assert found.verdict == "not_enough_data"
    assert found.p_value is None
    assert found.more_tasks is None
    assert found.difference.value == 1.0


def test_one_source_is_never_enough():
    """A hundred tasks of one document are one observation."""
    assert decide(np.full(100, 0.9), np.linspace(0, 0.5, 100), ["a"] * 100).verdict == "not_enough_data"


@pytest.mark.parametrize("gain", [0.0, 0.3])
def test_zero_variance_gives_no_verdict(gain):
    """Equal differences are a cache or a constant judge, not certainty."""
    found = decide(np.full(500, 0.5 + gain), np.full(500, 0.5))
    assert found.verdict == "not_enough_data"
    assert found.tasks_needed is None
    assert found.minimum_detectable_effect is not None


def test_all_missing_is_not_measured():
    """A dead judge must not look like a result."""
    found = decide([math.nan] * 5, [0.5] * 5)
    assert found.verdict == "not_enough_data"
    assert found.difference.value is None
    assert found.ratio.value is None
    assert "missing" in " ".join(found.reasons)


def test_a_baseline_that_differs_from_itself_permits_no_claim():
    """A judge that was exchanged half-way would be taken for an effect of coordination."""
    coordinated, baseline, _ = drawn(Qualities(0.15, replicates=2), 200)
    baseline[:, 1] = np.clip(baseline[:, 1] - 0.2, 0, 1)
    found = decide(coordinated, baseline)
    assert found.verdict == "not_enough_data"
    assert not found.noise_floor.stable
    assert "differs from itself" in found.reasons[0]


def test_no_claim_inside_the_noise_floor():
    """An arm of little noise makes a narrow interval, but a noisy baseline alone reaches as far."""
    rng = np.random.default_rng(4)
    baseline = rng.beta(1, 1, (60, 2))
    means = baseline.mean(axis=1)
    coordinated = np.clip(means + 0.04 + rng.normal(0, 0.02, 60), 0, 1)
    assert difference(pair(coordinated, baseline)).interval.low > 0.0
    found = decide(coordinated, baseline, rules=Rules(margin=0.0))
    assert known(found.noise_floor.value) > known(found.difference.value)
    assert found.verdict == "not_enough_data"
    assert "within the noise floor" in found.reasons[0]


def test_an_unmeasured_noise_floor_is_said():
    """One replicate has no A/A comparison: the reader has to know that nothing was checked."""
    found = decide(*drawn(Qualities(0.15), 100))
    assert found.noise_floor.value is None
    assert any("noise floor is not measured" in reason for reason in found.reasons)


def test_noise_floor_is_the_quantile_of_a_comparison_with_itself():
    """Half of all A/A comparisons beyond a 95 % floor would make it a decoration."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(300):
        quality = rng.uniform(0.3, 0.7, 40)[:, None]
        runs = rng.beta(quality * 5, (1 - quality) * 5, (40, 5))
        floor = noise_floor(runs[:, :3], (1, 1))
        inside += abs(float((runs[:, 3] - runs[:, 4]).mean())) <= known(floor.value)
    assert 0.92 <= inside / 300 <= 0.98


def test_variance_components_find_their_parts():
    """More replicates or more tasks: the advice depends on which part is large."""
    rng = np.random.default_rng(6)
    values = rng.normal(0, 0.3, (4000, 1)) + rng.normal(0, 0.2, (4000, 3))
    values[::5, 2] = math.nan
    found = variance_components(values)
    assert found.within == pytest.approx(0.04, rel=0.06)
    assert found.between == pytest.approx(0.09, rel=0.06)
    assert math.isnan(variance_components([[0.1], [0.2]]).within)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40),
    st.floats(0, 0.3),
    st.floats(0, 0.3),
)
@settings(deadline=None, max_examples=40)
def test_a_larger_margin_never_turns_a_refusal_into_a_claim(rows, one, other):
    """Asking for more can only lose the claim that it is worth it."""
    low, high = sorted([one, other])
    table = np.array(rows)
    at_low = decide(table[:, 0], table[:, 1], rules=Rules(margin=low, minimum_effect=0.9))
    at_high = decide(table[:, 0], table[:, 1], rules=Rules(margin=high, minimum_effect=0.9))
    assert not (at_high.verdict == "worth_it" and at_low.verdict != "worth_it")
    assert not (at_low.verdict == "not_worth_it" and at_high.verdict != "not_worth_it")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40), st.floats(0.001, 0.2))
@settings(deadline=None, max_examples=40)
def test_a_claim_is_its_interval_s(rows, margin):
    """The verdict and the drawn interval are one statement."""
    table = np.array(rows)
    found = decide(table[:, 0], table[:, 1], rules=Rules(margin=margin))
    low, high = found.difference.interval.low, found.difference.interval.high
    if found.verdict == "worth_it":
        assert low > margin
    if found.verdict == "not_worth_it":
        assert high < margin


@pytest.mark.parametrize(
    ("margin", "verdict"),
    [(0.0, "worth_it"), (0.02, "worth_it"), (0.05, "not_enough_data"), (0.08, "not_worth_it")],
)
def test_the_margin_is_what_the_interval_is_held_against(margin, verdict):
    """A gain that is there but too small to be of use is not worth it."""
    second = np.full(100, 0.5)
    first = second + 0.05 + np.tile([0.03, -0.03], 50)
    found = decide(first, second, rules=Rules(margin=margin))
    assert 0.04 < found.difference.interval.low < found.difference.interval.high < 0.06
    assert found.verdict == verdict


def test_stated_tasks_find_the_stated_effect():
    """A number of tasks that finds it in half of the cases would send users out twice."""
    system = Discordant(0.50, 0.10)
    needed = tasks_for(0.4, discordance_spread(0.50, 0.10), 0.2, null_spread=discordance_spread(0.40, 0.20))
    rules = Rules(margin=0.2)
    found = sum(verdict_of(system, needed, seed, rules) == "worth_it" for seed in range(200))
    assert found / 200 >= 0.80 - 2.5 * math.sqrt(0.8 * 0.2 / 200)


def test_a_null_system_is_rarely_called_worth_it():
    """At most one in twenty, here with the least demanding margin."""
    rules = Rules(margin=0.0)
    for system in (Discordant(0.1, 0.1), Qualities(0.0, replicates=2), Discordant(0.02, 0.02)):
        found = sum(verdict_of(system, 50, seed, rules) == "worth_it" for seed in range(100))
        assert found / 100 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 100)


@given(st.floats(0.03, 0.5), st.floats(0.01, 0.6), st.floats(1.01, 3))
def test_smaller_effects_take_more_tasks(effect, spread, times):
    """Monotone in effect and spread, and quadratic in both."""
    assume(effect * times <= 1)
    assert tasks_for(effect, spread) >= tasks_for(effect * times, spread)
    assert tasks_for(effect, spread * times) >= tasks_for(effect, spread)
    assert tasks_for(effect, spread) >= (2.80 * spread / effect) ** 2


def test_an_effect_at_the_margin_is_found_by_no_number_of_tasks():
    """A division by the gap of nothing would promise a number."""
    with pytest.raises(InputError, match="no number finds it"):
        tasks_for(0.02, 0.3, 0.02)
    with pytest.raises(InputError, match="minimum effect"):
        Rules(margin=0.1, minimum_effect=0.1)
    with pytest.raises(InputError, match="minimum effect"):
        Rules(margin=1e-300)


def test_minimum_detectable_effect_is_margin_and_two_point_eight_errors():
    """The textbook's (z_.975 + z_.8) standard errors beyond the margin, where t is normal."""
    rng = np.random.default_rng(8)
    found = difference(pair(rng.uniform(0.4, 0.6, 2000), rng.uniform(0.4, 0.6, 2000)))
    expected = 0.01 + 2.8016 * known(found.standard_error)
    assert minimum_detectable_effect(found, 0.01) == pytest.approx(expected, rel=2e-3)
    assert minimum_detectable_effect(difference(pair([0.4], [0.5]))) is None
    assert tasks_needed(difference(pair([0.4], [0.5])), 0.05) is None


def test_holm_s_own_example():
    """Adjusted p-values worked out by hand: sorted times what is left, never falling."""
    steps = holm([0.01, 0.04, 0.03, 0.005])
    assert [step.adjusted for step in steps] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [step.rejected for step in steps] == [True, False, False, True]
    assert [step.level for step in steps] == pytest.approx([1 - 0.05 / 3, 0.975, 0.975, 0.9875])
    assert holm([]) == ()
    with pytest.raises(InputError):
        holm([math.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_refuses_exactly_what_its_levels_say(p_values):
    """Interval and adjusted p are shown side by side."""
    for step in holm(p_values):
        assume(abs(step.p - (1 - step.level)) > 1e-9)
        assert step.rejected == (step.p < 1 - step.level)
        assert step.rejected == (step.adjusted < 0.05)
        assert step.adjusted >= step.p


def test_several_strategies_are_decided_together():
    """Four tries at 5 % each are not 5 %."""
    rng = np.random.default_rng(9)
    quality = rng.uniform(0.3, 0.7, 80)
    baseline, clear, nothing = (rng.beta(quality * 20, (1 - quality) * 20) for _ in range(3))
    arms = {"clear": np.clip(clear + 0.15, 0, 1), "nothing": nothing, "dead": np.full(80, math.nan)}
    found = decide_all(arms, baseline)
    assert found["clear"].verdict == "worth_it"
    assert found["nothing"].verdict != "worth_it"
    assert found["dead"].verdict == "not_enough_data"
    assert found["clear"].difference.interval.level == pytest.approx(0.975)  # of two, not of three
    assert found["clear"].adjusted_p_value == pytest.approx(2 * known(found["clear"].p_value))
    with pytest.raises(InputError, match="debate"):
        decide_all({"debate": baseline}, {"vote": baseline})


def test_looking_after_every_task_keeps_the_error():
    """A t interval looked at a hundred times is wrong a third of the time."""
    wrong = 0
    for seed in range(200):
        first, second, _ = drawn(Discordant(0.1, 0.1), 150, seed)
        wrong += decide_sequentially(first, second).verdict != "not_enough_data"
    assert wrong / 200 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 200)


def test_an_early_stop_is_not_taken_back():
    """What was claimed at a look stays claimed; the number of the look is kept."""
    first, second, _ = drawn(Discordant(0.4, 0.05), 200)
    found = decide_sequentially(first, second)
    assert found.verdict == "worth_it"
    stop = known(found.stopped_at)
    assert stop < 100
    assert found.evidence > 40
    earlier = decide_sequentially(first[:stop], second[:stop])
    assert (earlier.verdict, earlier.stopped_at) == ("worth_it", found.stopped_at)
    assert earlier.interval.low > 0
    before = decide_sequentially(first[: stop - 1], second[: stop - 1])
    assert before.verdict == "not_enough_data"
    swapped = decide_sequentially(second, first)
    assert (swapped.verdict, swapped.stopped_at) == ("not_worth_it", found.stopped_at)


def test_sequential_of_nothing_says_nothing():
    """Before the first complete pair there is neither evidence nor interval."""
    found = decide_sequentially([math.nan], [0.5])
    assert (found.verdict, found.units, found.evidence) == ("not_enough_data", 0, 1.0)
    assert (found.interval.low, found.interval.high) == (-1.0, 1.0)
