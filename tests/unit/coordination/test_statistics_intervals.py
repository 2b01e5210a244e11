"""Intervals of paired differences and ratios: golden values, properties, and coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from cert.coordination.statistics import (
    Discordant,
    Qualities,
    difference,
    gamma,
    gamma_budget,
    inference,
    pair,
    ratio,
    task_ratios,
)
from cert.coordination.statistics.betting import BettingPairs, log_capital, stakes_for
from cert.coordination.statistics.cluster_t import ClusterT, fieller, freedom_of, mean_covariance
from cert.coordination.statistics.inference import design_effect
from cert.coordination.statistics.paired_score import PairedScore
from cert.coordination.statistics.roots import root
from cert.core.errors import InputError

scores = st.lists(
    st.tuples(st.floats(0, 1, allow_subnormal=False), st.floats(0, 1, allow_subnormal=False)),
    min_size=2,
    max_size=60,
)
answers = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=2, max_size=60
)
either = scores | answers
quick = settings(deadline=None, max_examples=40)


def known(value):
    """What is measured here; a test of a missing number would pass for the wrong reason."""
    assert value is not None
    return value


def arms(rows):
    table = np.array(rows)
    return table[:, 0], table[:, 1]


def likeliest(table, constraint):
    """The log-likelihood's constrained maximum by a general optimiser: (both, gained, lost)."""
    a, b, c = table[:3]
    d = table[3]

    def loss(p):
        cells = np.clip([p[0], p[1], p[2], 1 - sum(p)], 1e-12, 1)
        return -float(np.dot([a, b, c, d], np.log(cells)))

    found = optimize.minimize(
        loss,
        [0.25, 0.25, 0.25],
        bounds=[(0, 1)] * 3,
        constraints=[
            {"type": "eq", "fun": constraint},
            {"type": "ineq", "fun": lambda p: 1 - sum(p)},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return found.x


@pytest.mark.parametrize("null", [-0.2, -0.05, 0.0, 0.1, 0.3])
def test_score_statistic_of_the_difference_has_the_variance_of_its_hypothesis(null):
    """A variance that is not the hypothesis' own would call noise an effect when few pairs differ."""
    both, gained, lost, neither = 14.0, 9.0, 4.0, 13.0
    n = both + gained + lost + neither
    _, b, c = likeliest((both, gained, lost, neither), lambda p: p[1] - p[2] - null)
    expected = (gained - lost - n * null) / math.sqrt(n * (b + c - null**2))
    found = PairedScore(n, both, gained, lost).difference_statistic(null)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("null", [0.5, 0.9, 1.0, 1.3, 2.0])
def test_score_statistic_of_the_ratio_has_the_variance_of_its_hypothesis(null):
    """The closed form of Nam and Blackwelder, against a general optimiser."""
    both, gained, lost, neither = 14.0, 9.0, 4.0, 13.0
    n = both + gained + lost + neither
    a, b, c = likeliest((both, gained, lost, neither), lambda p: p[0] + p[1] - null * (p[0] + p[2]))
    variance = a * (1 - null) ** 2 + b + null**2 * c
    expected = (both + gained - null * (both + lost)) / math.sqrt(n * variance)
    found = PairedScore(n, both, gained, lost).ratio_statistic(null)
    assert found == pytest.approx(expected, rel=1e-4)


def test_without_an_effect_the_score_test_is_mcnemar_s():
    """Both statistics at no effect are (b − c)/√(b + c), whose p-value every textbook gives."""
    table = PairedScore(n=100, both=40, gained=15, lost=5)
    assert table.difference_statistic(0.0) == pytest.approx(10 / math.sqrt(20))
    assert table.ratio_statistic(1.0) == pytest.approx(10 / math.sqrt(20))
    assert table.p_value(0.0) == pytest.approx(stats.chi2.sf(5.0, 1))


def test_no_discordant_pair_leaves_the_doubt_of_the_sample_size():
    """The t interval of ten equal pairs has no width; Tango's is ±z²/(n + z²)."""
    low, high = PairedScore(n=10, both=5, gained=0, lost=0).difference(0.95)
    z2 = stats.norm.ppf(0.975) ** 2
    assert (low, high) == pytest.approx((-z2 / (10 + z2), z2 / (10 + z2)), abs=1e-8)


def test_t_interval_is_scipy_s_where_each_task_is_its_own_source():
    """Without sources to speak of, the cluster-robust interval is the one of the textbook."""
    rng = np.random.default_rng(1)
    first, second = rng.uniform(0, 1, (2, 40))
    found = difference(pair(first, second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.interval.method == "t"
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert known(inference(pair(first, second))).p_value(0.0) == pytest.approx(
        stats.ttest_rel(first, second).pvalue, rel=1e-9
    )


def test_equal_sources_give_the_t_interval_of_their_means():
    """Five tasks of each of forty sources are forty observations, not two hundred."""
    rng = np.random.default_rng(2)
    differences = np.repeat(rng.normal(0.05, 0.1, 40), 5) + rng.normal(0, 0.05, 200)
    second = np.full(200, 0.5)
    sources = np.repeat(np.arange(40), 5).tolist()
    found = difference(pair(second + differences, second, sources)).interval
    means = differences.reshape(40, 5).mean(axis=1)
    expected = stats.ttest_1samp(means, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_freedom_of_unequal_sources_is_that_of_the_matrix():
    """Degrees of freedom that ignore one huge source would promise a precision that is not there."""
    clusters = np.array([0] * 20 + [1] * 5 + [2] * 3 + [3, 4, 5])
    n, sizes = len(clusters), np.bincount(clusters)
    membership = np.eye(len(sizes))[clusters]
    residual = np.eye(n) - np.ones((n, n)) / n
    roots = np.diag(1 / np.sqrt(1 - sizes / n))
    form = roots @ membership.T @ residual @ membership @ roots
    assert freedom_of(clusters) == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))
    assert freedom_of(np.arange(30)) == pytest.approx(29)


def test_cluster_variance_is_unbiased_where_tasks_are_independent():
    """The small-sample factor of each source: without it few unequal sources look too sure."""
    rng = np.random.default_rng(3)
    clusters = np.array([0] * 6 + [1] * 2 + [2] + [3])
    found = [mean_covariance(rng.normal(size=(1, 10)), clusters)[0, 0] for _ in range(8_000)]
    assert np.mean(found) == pytest.approx(0.1, rel=0.05)


def test_fieller_against_its_definition():
    """The ends are where the test of Σ(C − γS) = 0 is on the edge."""
    low, high = known(fieller(0.6, 0.5, (0.001, 0.0004, 0.0009), 2.0))
    for end in (low, high):
        assert (0.6 - end * 0.5) ** 2 == pytest.approx(4.0 * (0.001 - 2 * end * 0.0004 + end**2 * 0.0009))


def test_a_denominator_near_zero_gives_an_open_interval():
    """A ratio to a baseline that may be zero has no upper end; a finite one would be a lie."""
    assert known(fieller(0.5, 0.01, (0.001, 0.0, 0.001), 2.0))[1] == math.inf
    assert fieller(0.01, 0.01, (0.1, 0.0, 0.1), 2.0) is None


def test_zero_baseline_is_not_measured_and_never_one():
    """A baseline that scored 0 throughout makes no ratio: not 1, not infinity."""
    found = gamma_budget([0.5, 0.6, 0.7], [0.0, 0.0, 0.0])
    assert found.value is None
    assert found.missing == "the baseline scored 0 on every measured task"
    assert known(found.interval).high == math.inf
    assert np.isnan(task_ratios([0.5, 0.0], [0.0, 0.0])).all()


def test_gamma_is_a_ratio_of_means():
    """A mean of ratios would be ruled by the task on which the baseline scored next to nothing."""
    found = gamma([0.8, 0.6, 0.9], [[0.5, 0.7], [0.4, math.nan], [0.001, 0.003]])
    assert found.value == pytest.approx(2.3 / (0.6 + 0.4 + 0.002))
    assert task_ratios([0.8, 0.6], [0.4, 0.0]) == pytest.approx([2.0, math.nan], nan_ok=True)


def test_stake_against_an_unfair_price_is_a_martingale():
    """Capital that grows on fair bets would refuse the truth more often than stated."""
    x = np.array([0.0, 0.3, 1.0])
    weights = np.array([0.5, 0.25, 0.25])
    mean = float(x @ weights)
    for theta in stakes_for(15):
        assert float((1 + theta * (x / mean - 1)) @ weights) == pytest.approx(1.0)
    assert log_capital(np.zeros(5), stakes_for(15)) == pytest.approx(0.0)


@quick
@given(either, st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_hold_their_estimates(rows, level):
    """An interval beside its own estimate is a bug that a reader sees at once."""
    pairs = pair(*arms(rows))
    found = difference(pairs, level)
    assert found.interval.low - 1e-8 <= known(found.value) <= found.interval.high + 1e-8
    assert -1 <= found.interval.low <= found.interval.high <= 1
    share = ratio(pairs, level)
    ends = known(share.interval)
    if share.value is not None:
        assert ends.low * (1 - 1e-6) <= share.value <= ends.high * (1 + 1e-6)
    assert ends.low >= 0


@quick
@given(either)
def test_exchanged_arms_give_the_mirrored_interval(rows):
    """A comparison that prefers the arm that is named first is no comparison."""
    first, second = arms(rows)
    there, back = difference(pair(first, second)).interval, difference(pair(second, first)).interval
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-7)


@quick
@given(either, st.randoms(use_true_random=False))
def test_order_of_tasks_changes_nothing(rows, random):
    """Bets are usually made in order; these mix all stakes, so that a shuffled file gives the same answer."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = (difference(pair(*arms(each))).interval for each in (rows, shuffled))
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-7)


@quick
@given(either)
def test_higher_levels_give_wider_intervals(rows):
    """A 99 % interval inside the 95 % one would make the level a label."""
    pairs = pair(*arms(rows))
    narrow, wide = difference(pairs, 0.9).interval, difference(pairs, 0.99).interval
    assert wide.low <= narrow.low + 1e-8
    assert narrow.high <= wide.high + 1e-8


@quick
@given(either, st.floats(-0.9, 0.9))
def test_p_values_agree_with_intervals(rows, null):
    """A verdict by p and an interval that says otherwise, side by side, would discredit both."""
    method = known(inference(pair(*arms(rows))))
    low, high = method.difference(0.95)
    assume(min(abs(null - low), abs(null - high)) > 1e-6)
    assume(high - low > 1e-6)
    assert (method.p_value(null) < 0.05) == (not low < null < high)


@quick
@given(either)
def test_the_ratio_s_interval_leaves_out_one_where_the_difference_s_leaves_out_zero(rows):
    """γ above 1 with doubt in the ratio but none in the difference: the same data cannot say both."""
    method = known(inference(pair(*arms(rows))))
    low, high = method.difference(0.95)
    assume(min(abs(low), abs(high)) > 1e-4)
    below, above = method.ratio(0.95)
    # Fieller's set may have two parts, of which the hull is shown.
    if low > 0 or high < 0:
        assert not below < 1 < above or above == math.inf
    else:
        assert below <= 1 <= above


@quick
@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(0, 2**32))
def test_names_of_sources_do_not_matter(labels, seed):
    """Sources are names: renaming them, or passing them in another order of appearance, changes nothing."""
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0, 1, (2, len(labels)))
    numbered = difference(pair(first, second, labels)).interval
    named = difference(pair(first, second, [f"source {9 - label}" for label in labels])).interval
    assert (numbered.low, numbered.high) == pytest.approx((named.low, named.high), abs=1e-7)


def test_tasks_without_a_source_are_their_own():
    """``None`` as one common source would melt all tasks without one into a single observation."""
    assert pair([0.1, 0.2, 0.3], [0.1, 0.1, 0.1], [None, "a", None]).n_clusters == 3


def test_one_source_bounds_nothing():
    """A hundred questions on one document are one observation."""
    found = difference(pair(np.linspace(0, 1, 100), np.full(100, 0.2), ["a"] * 100))
    assert (found.interval.low, found.interval.high) == (-1, 1)
    assert found.standard_error is None


def test_missing_judgements_drop_the_pair_and_are_bounded():
    """The bounds fill each missing judgement with the worst and the best score."""
    nan = math.nan
    found = difference(pair([0.9, nan, 0.8, 0.7], [0.5, 0.5, nan, 0.6]))
    assert (found.tasks, found.dropped, found.missing_judgements) == (2, 2, 2)
    assert found.value == pytest.approx(0.25)
    assert found.worst_case == pytest.approx(((0.4 - 0.5 - 0.2 + 0.1) / 4, (0.4 + 0.5 + 0.8 + 0.1) / 4))


def test_missing_replicates_are_averaged_over_the_others():
    """Two judgements of three are a measurement, with bounds for the third."""
    found = pair([[0.9, math.nan, 0.7], [0.5, 0.5, 0.5]], [[0.5], [0.5]])
    assert found.coordinated == pytest.approx([0.8, 0.5])
    assert found.dropped == 0
    assert found.worst_low == pytest.approx((1.6 / 3 - 0.5) / 2)
    assert found.worst_high == pytest.approx((2.6 / 3 - 0.5) / 2)


@given(scores, st.floats(0, 1))
def test_worst_case_bounds_hold_whatever_the_missing_judgement_is(rows, truth):
    """Bounds that a possible score escapes would be no bounds."""
    first, second = arms(rows)
    hidden = first.copy()
    hidden[0] = math.nan
    first[0] = truth
    low, high = difference(pair(hidden, second)).worst_case
    assert low - 1e-12 <= float((first - second).mean()) <= high + 1e-12


def test_nothing_measured_is_nothing():
    """All judgements missing, or no tasks at all: no number, and a reason."""
    for first in ([math.nan, math.nan], []):
        found = difference(pair(first, [0.5] * len(first)))
        assert found.value is None
        assert found.missing
        assert gamma_budget(first, [0.5] * len(first)).value is None


@pytest.mark.parametrize(
    ("first", "second", "sources"),
    [([1.2], [0.5], None), ([-0.1], [0.5], None), ([0.5], [0.5, 0.5], None), ([0.5], [0.5], ["a", "b"])],
)
def test_bad_arrays_are_refused(first, second, sources):
    """A score of 11/10 or a lost task would shift every pair after it."""
    with pytest.raises(InputError):
        pair(first, second, sources)


def test_design_effect_of_sources_that_are_alike():
    """Tasks that are copies of each other count once."""
    values = np.repeat(np.tile([1.0, 0.0, 0.0, 1.0], 25), 4)
    pairs = pair(values, np.zeros(400), np.repeat(np.arange(100), 4).tolist())
    assert design_effect(pairs) == pytest.approx(4.0, rel=0.05)
    assert design_effect(pair(np.zeros(20), np.zeros(20), [i // 4 for i in range(20)])) == pytest.approx(4.0)


@pytest.mark.parametrize("graded", [False, True])
def test_copies_of_tasks_are_no_new_tasks(graded):
    """Four wordings of each question would halve the interval, and with it the doubt."""
    drawn = Discordant(0.3, 0.1, graded=graded).draw(60, np.random.default_rng(21))
    first, second = drawn.coordinated[:, 0], drawn.baseline[:, 0]
    once = difference(pair(first, second)).interval
    copies = [np.repeat(values, 4) for values in (first, second, np.arange(60))]
    four = difference(pair(copies[0], copies[1], copies[2].tolist())).interval
    assert four.high - four.low == pytest.approx(once.high - once.low, rel=0.08)


def test_tasks_on_which_the_arms_agree_lend_no_degrees_of_freedom():
    """Ten differences among a hundred tasks are ten: 99 degrees of freedom made the interval too narrow."""
    first = np.full(100, 0.5)
    first[:10] += np.linspace(0.1, 0.4, 10)
    assert ClusterT.of(first, np.full(100, 0.5), np.arange(100)).freedom == 9


def test_root_finds_crossings_and_ends():
    """The ends of every interval go through it."""
    assert root(lambda x: 0.3 - x, 0.0, 1.0) == pytest.approx(0.3, abs=1e-9)
    assert root(lambda x: -1.0 - x, 0.0, 1.0) == 0.0
    assert root(lambda x: 2.0 - x, 0.0, 1.0) == 1.0
    assert root(lambda x: math.inf if x < 0.2 else -math.inf, 0.0, 1.0) == pytest.approx(0.2, abs=1e-9)
    assert root(lambda x: 0.5 - x**9, 0.0, 1.0) == pytest.approx(0.5 ** (1 / 9), abs=1e-9)


SYSTEMS = [
    (Discordant(0.10, 0.05), 10),
    (Discordant(0.10, 0.05), 50),
    (Discordant(0.02, 0.01), 20),
    (Discordant(0.10, 0.01, both=0.01), 10),
    (Discordant(0.10, 0.05, source_size=5, alike=0.5), 50),
    (Discordant(0.10, 0.00, graded=True), 100),
    (Qualities(0.05, spread=0.9), 20),
    (Qualities(0.05, missing=0.1), 50),
    (Qualities(0.05, noise="binary", replicates=3), 50),
    (Qualities(0.05, source_size=5, alike=0.5), 200),
]


@pytest.mark.parametrize(("system", "tasks"), SYSTEMS)
def test_intervals_cover_the_truth(system, tasks):
    """The promise itself, at 100 simulations: 93 % less two and a half standard errors of them."""
    held = held_ratio = 0
    for seed in range(100):
        drawn = system.draw(tasks, np.random.default_rng((7, seed)))
        pairs = pair(drawn.coordinated, drawn.baseline, drawn.sources.tolist())
        method = known(inference(pairs))
        low, high = method.difference(0.95)
        below, above = method.ratio(0.95)
        held += low <= system.effect <= high
        held_ratio += below <= system.gamma <= above
    assert min(held, held_ratio) / 100 >= 0.93 - 2.5 * math.sqrt(0.93 * 0.07 / 100)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.1, 0.6), st.floats(0, 0.2), st.sampled_from([1, 4]))
def test_simulated_marginals_are_exact(gained, lost, size):
    """A simulator whose truth is another one than it says would prove nothing."""
    system = Discordant(gained, lost, source_size=size, alike=0.5)
    drawn = system.draw(8000, np.random.default_rng(0))
    assert drawn.coordinated.mean() - drawn.baseline.mean() == pytest.approx(system.effect, abs=0.06)
    assert drawn.coordinated.mean() / drawn.baseline.mean() == pytest.approx(system.gamma, rel=0.25)


def test_betting_weights_large_sources_by_their_tasks():
    """The estimate that the interval is around is the mean over tasks, not over sources."""
    bets = BettingPairs(np.array([1.0, 0.0]), np.array([0.0, 0.0]), np.array([1.0, 0.25]), stakes_for(2))
    low, high = bets.difference(0.95)
    assert low <= 0.8 <= high


def test_cluster_t_of_equal_arms_has_no_width():
    """Equal arms give p = 1 at 0 and no p at all elsewhere: `decide` makes no verdict of it."""
    method = ClusterT.of(np.full(40, 0.5), np.full(40, 0.5), np.arange(40))
    assert method.p_value(0.0) == 1.0
    assert method.p_value(0.1) == 0.0
