"""The bound on errors among passed answers: tests in a fixed order, on answers that no tuning has seen."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cert.core.errors import InfeasibleError
from cert.trajectory.calibration.goals import find_threshold, minimum_units, realised_rate
from cert.trajectory.calibration.goals.answers import Answers
from cert.trajectory.calibration.goals.binomial import at_most, fixed_sequence, p_values, wrong_and_passed
from cert.trajectory.calibration.goals.tuning import sequence, units_wanted


def law(n, seed, error=0.2, apart=2.5):
    """Return scores and labels of n answers, right ones around 0 and wrong ones around `apart`."""
    random = np.random.default_rng(seed)
    correct = random.random(n) >= error
    return random.normal(np.where(correct, 0.0, apart)), correct


def selective(scores, correct, units=None, alpha=0.05, delta=0.1, seed=0):
    units = np.arange(len(scores)) if units is None else units
    return find_threshold("selective-risk", scores, correct, units, alpha=alpha, delta=delta, seed=seed)


@given(st.integers(1, 400), st.data(), st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_p_values_are_exact_binomial_probabilities(passed, data, alpha):
    """A p-value that is too small is a promise that is broken more often than it says."""
    wrong = data.draw(st.integers(0, passed))
    value = p_values(np.array([wrong]), np.array([passed]), alpha)[0]
    assert value == pytest.approx(stats.binom.cdf(wrong, passed, alpha), rel=1e-9, abs=1e-300)
    if wrong == 0:
        assert value == pytest.approx(float((1 - Fraction(str(alpha))) ** passed), rel=1e-9)


def test_where_nothing_passes_nothing_is_proved():
    """No errors among no answers is no evidence."""
    assert p_values(np.array([0]), np.array([0]), 0.05)[0] == 1.0
    assert at_most(np.array([3]), np.array([3]), 0.5)[0] == 1.0


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), min_size=1, max_size=30), st.floats(0.01, 0.5))
def test_the_sequence_ends_at_the_first_that_is_not_rejected(values, delta):
    """To look further for one that is rejected would be many tests at the price of one."""
    rejected = fixed_sequence(np.array(values), delta)
    assert all(value <= delta for value in values[:rejected])
    assert rejected == len(values) or not values[rejected] <= delta


def test_what_passes_a_threshold_is_counted_with_ties_and_without_missing_scores():
    """An answer without a score never passes, whatever the threshold."""
    scores = np.array([0.0, 1.0, 1.0, 2.0, math.nan, math.inf])
    correct = np.array([True, False, True, False, False, False])
    wrong, passed = wrong_and_passed(scores, correct, np.array([-1.0, 0.0, 1.0, 2.0, math.inf]))
    assert (wrong.tolist(), passed.tolist()) == ([0, 0, 1, 2, 3], [0, 1, 3, 4, 5])


def test_a_few_hundred_answers_give_a_threshold_that_keeps_the_rate():
    """The ordinary case: a score that tells right from wrong, and a bound that then holds on new answers."""
    scores, correct = law(100_000, 99)
    thresholds = [selective(*law(600, seed)) for seed in range(40)]
    rates = [
        realised_rate("selective-risk", t.value, scores, correct, np.arange(100_000)) for t in thresholds
    ]
    assert sum(rate > 0.05 for rate in rates) <= stats.binom.ppf(0.999, 40, 0.1)
    assert np.mean([t.details["pass_rate"] for t in thresholds]) > 0.5
    assert {t.details["tested_units"] for t in thresholds} == {480}
    assert all(t.details["p_value"] <= 0.1 for t in thresholds)


def test_where_no_threshold_is_right_one_is_given_for_delta_of_the_calibrations_at_most():
    """The hardest law for the promise: every threshold has 5.5 % of errors, and 5 % are promised."""
    given_out, draws = 0, 400
    for seed in range(draws):
        random = np.random.default_rng(seed)
        try:
            selective(random.normal(size=400), random.random(400) >= 0.055)
            given_out += 1
        except InfeasibleError:
            pass
    assert 0 < given_out <= stats.binom.ppf(0.999, draws, 0.1)


def test_the_seed_decides_the_split_and_the_same_seed_gives_the_same_threshold():
    """A certificate can be computed again from its data."""
    scores, correct = law(900, 1)
    assert selective(scores, correct, seed=3) == selective(scores, correct, seed=3)
    assert len({selective(scores, correct, seed=seed).value for seed in range(5)}) > 1


def test_the_order_of_the_answers_does_not_matter():
    """The same labels in another order are the same data."""
    scores, correct = law(400, 2)
    order = np.random.default_rng(0).permutation(400)
    assert selective(scores, correct) == selective(scores[order], correct[order], order)


def test_of_each_unit_one_answer_is_tested():
    """Eight answers about one person that are right together are one piece of evidence, not eight."""
    scores, correct = law(300, 3)
    threshold = selective(np.repeat(scores, 8), np.repeat(correct, 8), np.repeat(np.arange(300), 8))
    assert threshold.details["tested_units"] == 240
    assert (threshold.n, threshold.n_units) == (2400, 300)
    assert threshold.details["passed"] <= 240


def test_too_few_units_are_refused_with_the_number_that_would_do():
    """Whoever labels as many as the error says gets a threshold, four times of five."""
    with pytest.raises(InfeasibleError, match="the tests need 45 units") as error:
        selective(*law(50, 4))
    assert error.value.needed is not None
    enough, found = 50 + error.value.needed, 0
    for seed in range(40):
        try:
            selective(*law(enough, 1000 + seed))
            found += 1
        except InfeasibleError:
            pass
    assert found >= 20  # the number is itself an estimate from 50 answers


def test_answers_that_are_all_right_need_the_smallest_number():
    """45 clean passes prove 5 % at δ = 0.1, and a fifth of the units is for tuning."""
    assert minimum_units("selective-risk", 0.05, 0.1) == 45
    assert selective(np.zeros(60), np.ones(60, dtype=bool)).value == math.inf
    with pytest.raises(InfeasibleError):
        selective(np.zeros(50), np.ones(50, dtype=bool))


def test_where_even_the_best_answers_are_wrong_too_often_no_number_helps():
    """To label more would be a waste of somebody's weeks."""
    random = np.random.default_rng(5)
    with pytest.raises(InfeasibleError, match="nowhere are fewer") as error:
        selective(random.normal(size=1000), random.random(1000) > 0.3)
    assert error.value.needed is None


@pytest.mark.parametrize("scores", [np.full(200, math.nan), np.full(200, -math.inf), np.full(200, 7.0)])
def test_scores_that_tell_nothing(scores):
    """Constant scores pass everything or nothing; without scores nothing passes, and it says so."""
    if np.isnan(scores).all():
        with pytest.raises(InfeasibleError) as error:
            selective(scores, np.ones(200, dtype=bool))
        assert error.value.needed is None
    else:
        assert selective(scores, np.ones(200, dtype=bool)).value == math.inf
        with pytest.raises(InfeasibleError):
            selective(scores, np.arange(200) % 5 > 0)


def test_the_sequence_goes_from_strict_to_loose_and_to_everything():
    """The order is fixed before a test is done, and ends with a gate that passes whatever was measured."""
    scores, correct = law(200, 6)
    grid = sequence(Answers.of(scores, correct, np.arange(200)), 0.05, 0.1, 800)
    assert grid is not None
    assert (np.diff(grid) > 0).all()
    assert grid[-1] == math.inf
    assert np.mean(scores <= grid[0]) * 800 >= 45
    assert len(grid) <= 51


def test_more_is_asked_for_where_errors_are_more_frequent():
    """The number of labels to come grows with the error rate of what passes."""
    wanted: list[int] = []
    for error in (0.0, 0.01, 0.03):
        correct = np.arange(1000) % 1000 >= 1000 * error
        wanted.append(units_wanted(Answers.of(np.zeros(1000), correct, np.arange(1000)), 0.05, 0.1) or 0)
    assert wanted == sorted(wanted)
    assert wanted[0] < 100


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_next_to_no_answers_are_too_few_and_nothing_else(n):
    """With α = δ = 0.6 one clean pass is a proof, but there must be something to tune on as well."""
    if n < 3:
        with pytest.raises(InfeasibleError):
            selective(np.zeros(n), np.ones(n, dtype=bool), alpha=0.6, delta=0.6)
    else:
        assert selective(np.zeros(n), np.ones(n, dtype=bool), alpha=0.6, delta=0.6).value == math.inf
