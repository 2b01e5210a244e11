"""Thresholds by ranks: the promise on every bag of units, whatever ties, infinities and missing scores."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from cert.core.errors import ConfigurationError, InfeasibleError, InputError
from cert.trajectory.calibration.goals import (
    GOALS,
    Goal,
    find_threshold,
    find_thresholds_by_group,
    minimum_units,
    realised_rate,
)
from cert.trajectory.calibration.goals.answers import exact_rate, just_below

RANKED: tuple[Goal, ...] = ("false-flags", "misses", "undetected-errors", "streaming")
UPPER = ("false-flags", "streaming")
INF = math.inf
SCORES = st.sampled_from([-INF, -1.0, 0.0, -0.0, 5e-324, 1.0, 2.0, 3.0, INF, math.nan])
ANSWER = st.tuples(st.one_of(SCORES, st.floats(-9, 9, allow_subnormal=False)), st.booleans())
BAG = st.lists(st.lists(ANSWER, min_size=1, max_size=4), min_size=2, max_size=12)
RATES = st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7])


def columns(bag):
    """Return scores, labels and units of a list of units, each a list of answers."""
    rows = [(score, right, unit) for unit, answers in enumerate(bag) for score, right in answers]
    scores, correct, units = zip(*rows, strict=True)
    return np.array(scores), np.array(correct), np.array(units)


def found(goal, bag, alpha):
    try:
        return find_threshold(goal, *columns(bag), alpha=alpha)
    except InfeasibleError:
        return None


def loss(goal, value, unit):
    """Return the share of a unit's answers that the goal bounds, and what it is a share of."""
    m = len(unit)
    passed = [score <= value for score, _ in unit]
    if goal in UPPER:
        hit = sum(right and not p for (_, right), p in zip(unit, passed, strict=True))
        return Fraction(hit, m), Fraction(sum(right for _, right in unit), m)
    hit = sum(p and not right for (_, right), p in zip(unit, passed, strict=True))
    wrong = Fraction(sum(not right for _, right in unit), m)
    return Fraction(hit, m), wrong if goal == "misses" else Fraction(1)


@pytest.mark.parametrize("goal", RANKED)
@settings(max_examples=150)
@given(bag=BAG, alpha=RATES)
def test_the_promise_holds_on_every_bag_of_units(goal, bag, alpha):
    """Whichever of n + 1 units is the one to come, in the mean over them the rate is kept, exactly.

    That is what exchangeability gives, so this is the promise itself: for the users of a gate on constant
    scores, on scores with ties, infinities and gaps, and with several answers about one thing.
    """
    lost, of = Fraction(0), Fraction(0)
    for place, unit in enumerate(bag):
        threshold = found(goal, bag[:place] + bag[place + 1 :], alpha)
        hit, share = loss(goal, threshold.value, unit) if threshold else (0, loss(goal, 0.0, unit)[1])
        lost, of = lost + hit, of + share
    assert lost <= exact_rate("alpha", alpha) * of


@pytest.mark.parametrize("goal", RANKED)
@settings(max_examples=150)
@given(bag=BAG, alpha=RATES)
def test_no_threshold_that_is_more_useful_would_do(goal, bag, alpha):
    """A gate that flags more than its promise asks for is labels thrown away."""
    threshold = found(goal, bag, alpha)
    assume(threshold is not None)
    scores, _, units = columns(bag)
    rate = exact_rate("alpha", alpha)

    def kept(value):
        terms = [loss(goal, value, unit) for unit in bag]
        return sum(hit - rate * share for hit, share in terms) + 1 - rate <= 0

    assert kept(threshold.value)
    better = [s for s in scores if (s < threshold.value if goal in UPPER else s > threshold.value)]
    assert not any(kept(value) for value in better)
    assert threshold.n_units == len(set(units.tolist()))


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("n", [19, 20, 39, 50, 99, 100, 299])
def test_with_one_answer_a_unit_it_is_the_textbook_rank(n, alpha):
    """λ is the ⌈(n+1)(1−α)⌉-th smallest of the correct, and just below the ⌊(n+1)α⌋-th of the wrong."""
    scores = np.random.default_rng(n).normal(size=n)
    rate, ranked, units = Fraction(str(alpha)), np.sort(scores), np.arange(n)
    upper = find_threshold("false-flags", scores, np.ones(n, dtype=bool), units, alpha=alpha)
    assert upper.value == ranked[math.ceil((n + 1) * (1 - rate)) - 1]
    lower = find_threshold("misses", scores, np.zeros(n, dtype=bool), units, alpha=alpha)
    assert lower.value == math.nextafter(ranked[math.floor((n + 1) * rate) - 1], -INF)
    assert (upper.n, upper.n_wrong, lower.n_wrong) == (n, 0, n)


def test_a_rank_is_not_off_by_one_for_binary_fractions():
    """(n + 1)(1 − α) in floats is a little above a whole number for some n: one rank too high, for nothing.

    In the other direction it would be one too low, and a promise broken.
    """
    rates = [percent / 1000 for percent in range(1, 500)]
    naive = {
        (n, alpha)
        for n in range(1, 200)
        for alpha in rates
        if math.ceil((n + 1) * (1 - alpha)) != math.ceil((n + 1) * (1 - Fraction(str(alpha))))
        and n >= 1 / alpha
    }
    assert naive  # so there is something to get wrong
    for n, alpha in sorted(naive)[:50]:
        scores = np.arange(n, dtype=float)
        rank = math.ceil((n + 1) * (1 - Fraction(str(alpha))))
        threshold = find_threshold("false-flags", scores, scores >= 0, np.arange(n), alpha=alpha)
        assert threshold.value == rank - 1


@pytest.mark.parametrize("goal", RANKED)
@given(bag=BAG, alpha=RATES, data=st.data())
def test_the_order_of_the_answers_does_not_matter(goal, bag, alpha, data):
    """The same labels in another order are the same data."""
    rows = columns(bag)
    order = np.array(data.draw(st.permutations(range(len(rows[0])))))
    threshold = found(goal, bag, alpha)
    if threshold is None:
        with pytest.raises(InfeasibleError):
            find_threshold(goal, *(column[order] for column in rows), alpha=alpha)
    else:
        assert find_threshold(goal, *(column[order] for column in rows), alpha=alpha) == threshold


@pytest.mark.parametrize("goal", GOALS)
@given(st.integers(0, 10**6))
@settings(max_examples=25)
def test_a_monotone_transform_of_the_scores_gives_the_same_decisions(goal, seed):
    """A score in nats, in bits or as a perplexity is one score; the gate must not care."""
    random = np.random.default_rng(seed)
    n = 150
    scores = random.integers(-40, 40, size=n).astype(float)
    correct = random.random(n) < 1 / (1 + np.exp(scores / 8 - 3))
    units, delta = random.integers(0, 120, size=n), 0.2 if goal == "selective-risk" else None
    new = np.arange(-42.0, 42.0)

    def decisions(transform):
        try:
            value = find_threshold(goal, transform(scores), correct, units, alpha=0.2, delta=delta).value
        except InfeasibleError as error:
            return error.needed
        return (transform(new) <= value).tolist()

    assert decisions(lambda x: x) == decisions(lambda x: x**3 - 7) == decisions(lambda x: np.exp(x / 4))


@pytest.mark.parametrize(("goal", "right"), [("false-flags", True), ("misses", False)])
def test_the_rate_of_one_calibration_follows_the_beta_law(goal, right):
    """Single calibrations spread around the mean as the documentation says: Beta(k, n + 1 − k)."""
    n, alpha, rates = 59, 0.1, []
    for seed in range(500):
        scores = np.random.default_rng(seed).random(n)
        threshold = find_threshold(goal, scores, np.full(n, right), np.arange(n), alpha=alpha)
        rates.append(1 - threshold.value if right else threshold.value)
    law = stats.beta(threshold.details["beta_a"], threshold.details["beta_b"])
    assert law.mean() <= alpha
    assert stats.kstest(rates, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("goal", "right"),
    [("false-flags", True), ("streaming", True), ("misses", False), ("undetected-errors", True)],
)
@pytest.mark.parametrize("alpha", [0.01, 0.03, 0.05, 0.1, 1 / 3])
def test_the_smallest_number_is_where_it_begins_to_work(goal, right, alpha):
    """Whoever labels as many as the error says gets a threshold, and with one fewer there is none."""
    least = minimum_units(goal, alpha)
    assert least == math.ceil((1 - exact_rate("alpha", alpha)) / exact_rate("alpha", alpha))
    for n in (0, 1, least - 1):
        with pytest.raises(InfeasibleError) as error:
            find_threshold(goal, np.zeros(n), np.full(n, right), np.arange(n), alpha=alpha)
        assert error.value.needed == least - n
        assert error.value.context["goal"] == goal
    threshold = find_threshold(goal, np.zeros(least), np.full(least, right), np.arange(least), alpha=alpha)
    assert threshold.n == least


def test_the_smallest_numbers_of_the_documentation():
    """The table of sizes that users plan by."""
    assert [minimum_units(goal, 0.05) for goal in RANKED] == [19] * 4
    assert minimum_units("selective-risk", 0.05, 0.1) == 45
    assert minimum_units("selective-risk", 0.1, 0.81) == 2  # 0.9² is 0.81, though not in floats


def test_an_error_names_the_kind_of_answer_that_is_short():
    """Too few data is no advice: whoever lacks wrong answers must not label right ones."""
    correct = np.array([True] * 100 + [False] * 5)
    with pytest.raises(InfeasibleError, match="needs 19 wrong answers, and there are 5") as error:
        find_threshold("misses", np.zeros(105), correct, np.arange(105), alpha=0.05)
    assert (error.value.needed, error.value.context["kind"]) == (14, "wrong")


def test_several_answers_of_a_unit_count_as_one():
    """100 answers about 10 people are not 100 answers: a threshold for 5 % needs 19 people."""
    units = np.repeat(np.arange(10), 10)
    with pytest.raises(InfeasibleError, match="count 10") as error:
        find_threshold("false-flags", np.arange(100.0), np.ones(100, dtype=bool), units, alpha=0.05)
    assert error.value.needed == 9


def test_answers_without_a_score_are_never_passed():
    """A missing score is no good score; where too many are missing there is no threshold, and it says so."""
    scores = np.concatenate([np.full(10, np.nan), np.arange(90.0)])
    everything = np.ones(100, dtype=bool)
    with pytest.raises(InfeasibleError, match=r"10\.0% of the correct answers have no score") as error:
        find_threshold("false-flags", scores, everything, np.arange(100), alpha=0.05)
    assert error.value.needed is None  # more labels of the same kind would not help
    with pytest.raises(InfeasibleError) as error:
        find_threshold("false-flags", scores[5:], everything[5:], np.arange(95), alpha=0.06)
    assert error.value.needed is not None
    assert error.value.needed > 0
    assert find_threshold("false-flags", scores, everything, np.arange(100), alpha=0.11).value == 89.0
    assert (
        find_threshold("misses", np.full(50, np.nan), ~everything[:50], np.arange(50), alpha=0.1).value == INF
    )


def test_wrong_answers_at_minus_infinity_cannot_be_flagged():
    """No threshold is below it, so there is no promise; a threshold all the same would be a lie."""
    scores = np.array([-INF] * 5 + [1.0] * 45)
    for goal in ("misses", "undetected-errors"):
        with pytest.raises(InfeasibleError) as error:
            find_threshold(goal, scores, np.zeros(50, dtype=bool), np.arange(50), alpha=0.06)
        assert error.value.needed is None


@pytest.mark.parametrize("score", [0.0, -0.0, 5e-324, 2.3e-308, 1.0, -1.0, INF, -1.7976931348623157e308])
def test_just_below_is_below_also_where_tiny_numbers_are_flushed_to_zero(score):
    """On a processor that flushes them a threshold of −5e-324 would pass the score 0 that it has to flag."""
    below = just_below(score)
    assert below < score
    assert below == 0.0 or abs(below) >= np.finfo(float).tiny


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"alpha": 0.0}, ConfigurationError),
        ({"alpha": 1.0}, ConfigurationError),
        ({"alpha": math.nan}, ConfigurationError),
        ({"delta": 0.1}, ConfigurationError),
        ({"goal": "precision"}, ConfigurationError),
        ({"goal": "selective-risk"}, ConfigurationError),
        ({"goal": "selective-risk", "delta": 1.5}, ConfigurationError),
        ({"correct": np.ones(30)}, InputError),
        ({"units": np.arange(29)}, InputError),
        ({"units": np.arange(30.0)}, InputError),
        ({"scores": np.zeros((30, 1))}, InputError),
    ],
)
def test_what_cannot_be_right_is_refused(change, error):
    """A delta that is ignored, or labels that are no labels, would be a promise of something else."""
    given = {
        "goal": "false-flags", "scores": np.zeros(30), "correct": np.ones(30, dtype=bool),
        "units": np.arange(30), "alpha": 0.1, "delta": None,
    } | change  # fmt: skip
    with pytest.raises(error):
        find_threshold(**given)


def test_each_group_has_a_threshold_of_its_own():
    """One threshold for all would flag most right answers of the group with the larger scores."""
    scores = np.concatenate([np.arange(40.0), 100 + np.arange(40.0)])
    groups = np.array(["easy"] * 40 + ["hard"] * 40)
    given = (scores, np.ones(80, dtype=bool), np.arange(80), groups)
    thresholds = find_thresholds_by_group("false-flags", *given, alpha=0.1)
    assert {group: threshold.value for group, threshold in thresholds.items()} == {
        "easy": 36.0,
        "hard": 136.0,
    }
    assert {threshold.n for threshold in thresholds.values()} == {40}


def test_a_group_that_is_too_small_is_named_and_not_merged():
    """Its promise would be that of another group."""
    groups = np.array(["large"] * 40 + ["small"] * 4)
    given = (np.zeros(44), np.ones(44, dtype=bool), np.arange(44), groups)
    with pytest.raises(InfeasibleError, match=r"1 of 2 groups.*small: .*needs 19") as error:
        find_thresholds_by_group("false-flags", *given, alpha=0.05)
    assert error.value.needed == 15
    assert error.value.context["groups"] == {"small": 15}


def test_the_realised_rate_is_that_of_an_answer_of_a_unit():
    """The rate that a certificate reports is the one that its goal bounds."""
    scores = np.array([0.0, 2.0, 0.0, 0.0, 2.0, math.nan])
    correct = np.array([True, True, False, True, False, True])
    units = np.array([0, 0, 1, 2, 3, 4])
    rates = {goal: realised_rate(goal, 1.0, scores, correct, units) for goal in GOALS}
    assert rates == {
        "false-flags": 1.5 / 3,  # half of unit 0, and unit 4 without a score
        "streaming": 1.5 / 3,
        "misses": 1 / 2,
        "selective-risk": 1 / 2.5,
        "undetected-errors": 1 / 5,
    }
    assert math.isnan(realised_rate("misses", 1.0, scores[:2], correct[:2], units[:2]))


def test_many_sizes_of_units_are_counted_exactly():
    """The common denominator of all sizes from 1 to 60 has more than 64 bits."""
    units = np.repeat(np.arange(60), np.arange(1, 61))
    scores = np.random.default_rng(0).normal(size=len(units))
    threshold = find_threshold("undetected-errors", scores, scores < 0, units, alpha=0.1)
    terms = [Fraction(int((scores[units == u] <= threshold.value)[scores[units == u] >= 0].sum()), u + 1)
             for u in range(60)]  # fmt: skip
    assert sum(terms) <= Fraction(61, 10) - 1
    assert threshold.details["over"] == float(sum(terms))
