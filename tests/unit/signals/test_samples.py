"""Signals of several samples: against independent calculations, and what must hold of any of them."""

import dataclasses
import math

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cert.signals.samples import (
    discrete_semantic_entropy,
    predictive_entropy,
    sample_signals,
    weighted_semantic_entropy,
)

CLUSTERED = ("discrete_semantic_entropy", "semantic_entropy", "semantic_entropy_unnormalized")
WEIGHTED = (*CLUSTERED[1:], "predictive_entropy", "normalized_predictive_entropy")


@st.composite
def samples(draw, min_size=1):
    n = draw(st.integers(min_size, 12))
    ids = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    logprobs = draw(st.lists(st.floats(-800, 0), min_size=n, max_size=n))
    lengths = draw(st.lists(st.integers(1, 60), min_size=n, max_size=n))
    return np.array(ids), np.array(logprobs), np.array(lengths)


def exact_entropy(ids, log_weights):
    """The formula in 800 digits, cluster by cluster, with no trick."""
    with mpmath.workdps(800):
        weights = [mpmath.exp(mpmath.mpf(float(w))) for w in log_weights]
        total = mpmath.fsum(weights)
        shares = [
            mpmath.fsum(w for i, w in zip(ids, weights, strict=True) if i == c) / total for c in set(ids)
        ]
        return float(-mpmath.fsum(share * mpmath.log(share) for share in shares if share))


@given(samples())
def test_all_signals_equal_an_independent_calculation(sample):
    """Every number here is one that somebody decides by."""
    ids, logprobs, lengths = sample
    signals = sample_signals(ids, logprobs, lengths)
    n, counts = len(ids), np.unique(ids, return_counts=True)[1]
    assert signals.n_samples == n
    assert signals.n_clusters == len(counts)
    assert signals.semantic_entropy_ceiling == pytest.approx(math.log(n))
    assert signals.discrete_semantic_entropy == pytest.approx(
        scipy.stats.entropy(counts), rel=1e-12, abs=1e-15
    )
    mean = logprobs / lengths
    assert signals.semantic_entropy == pytest.approx(exact_entropy(ids.tolist(), mean), rel=1e-11, abs=1e-300)
    raw = exact_entropy(ids.tolist(), logprobs)
    assert signals.semantic_entropy_unnormalized == pytest.approx(raw, rel=1e-11, abs=1e-300)
    assert signals.predictive_entropy == pytest.approx(-np.mean(logprobs), rel=1e-12, abs=1e-300)
    assert signals.normalized_predictive_entropy == pytest.approx(-np.mean(mean), rel=1e-12, abs=1e-300)
    assert signals.self_consistency == counts.max() / n
    names, counts = np.unique(ids, return_counts=True)
    assert set(signals.largest_clusters) == set(names[counts == counts.max()].tolist())


def test_a_worked_example():
    """Formulas with one wrong term can agree with each other; this one was worked out by hand."""
    # Two answers "Paris" with p = 1/2 · 1/2 and 1/4, one "Rome" with p = 1/4 of one token.
    signals = sample_signals([0, 0, 1], np.log([1 / 4, 1 / 4, 1 / 4]), [2, 1, 1])
    p = (1 / 2 + 1 / 4) / (1 / 2 + 1 / 4 + 1 / 4)
    assert signals.semantic_entropy == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    third = 1 / 3
    discrete = -2 * third * math.log(2 * third) - third * math.log(third)
    assert signals.discrete_semantic_entropy == pytest.approx(discrete)
    assert signals.semantic_entropy_unnormalized == pytest.approx(discrete)
    assert signals.predictive_entropy == pytest.approx(math.log(4))
    assert signals.normalized_predictive_entropy == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    assert signals.self_consistency == pytest.approx(2 / 3)
    assert signals.largest_clusters == (0,)


@given(samples(), st.randoms(use_true_random=False))
def test_neither_order_nor_names_change_a_bit(sample, random):
    """The same samples in another order would pass a threshold that they failed."""
    order = random.sample(range(len(sample[0])), len(sample[0]))
    ids, logprobs, lengths = (column[order] for column in sample)
    names = random.sample(range(100), 6)
    renamed = np.array([names[i] for i in ids])
    expected = dataclasses.asdict(sample_signals(*sample))
    found = dataclasses.asdict(sample_signals(renamed, logprobs, lengths))
    assert set(found.pop("largest_clusters")) == {names[i] for i in expected.pop("largest_clusters")}
    assert found == expected


@given(samples())
def test_bounds_hold_to_the_last_bit(sample):
    """A value above what is possible makes a threshold meaningless."""
    signals = sample_signals(*sample)
    for name in CLUSTERED:
        assert (
            0.0 <= getattr(signals, name) <= math.log(signals.n_clusters) <= signals.semantic_entropy_ceiling
        )
    assert 1 / signals.n_samples <= signals.self_consistency <= 1.0
    assert signals.predictive_entropy >= 0.0
    assert signals.normalized_predictive_entropy >= 0.0


@given(samples(min_size=2), st.data())
def test_splitting_a_cluster_never_lowers_an_entropy(sample, data):
    """Answers that disagree more would look more certain."""
    ids, logprobs, lengths = sample
    moved = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    refined = np.where((ids == ids[0]) & moved, 9, ids)
    coarse, fine = sample_signals(ids, logprobs, lengths), sample_signals(refined, logprobs, lengths)
    for name in CLUSTERED:
        assert getattr(fine, name) >= getattr(coarse, name) * (1 - 1e-12)


@given(samples(), st.integers(2, 5))
def test_the_same_samples_several_times_change_no_share(sample, times):
    """Shares must not depend on how many samples show them."""
    once, repeated = sample_signals(*sample), sample_signals(*(np.tile(column, times) for column in sample))
    for name in (*CLUSTERED, "self_consistency", "predictive_entropy", "normalized_predictive_entropy"):
        assert getattr(repeated, name) == pytest.approx(getattr(once, name), rel=1e-11, abs=1e-200)


@given(samples(), st.floats(-700, 0))
def test_equal_likelihoods_give_the_discrete_entropy(sample, logprob):
    """The two estimators would disagree where they say the same."""
    ids = sample[0]
    weighted = weighted_semantic_entropy(ids, np.full(len(ids), logprob))
    assert weighted == pytest.approx(discrete_semantic_entropy(ids), rel=1e-12, abs=1e-15)


@given(samples(), st.floats(-1e5, 0))
def test_only_differences_of_log_weights_matter(sample, shift):
    """Long answers have log-probabilities below what a float can exponentiate: all would be 0/0."""
    ids, logprobs, _ = sample
    logprobs = np.round(logprobs)  # so that the shift adds no rounding of its own
    expected = weighted_semantic_entropy(ids, logprobs)
    assert weighted_semantic_entropy(ids, logprobs + round(shift)) == pytest.approx(
        expected, rel=1e-9, abs=1e-300
    )


def test_small_entropies_keep_their_digits():
    """One answer a million times likelier than the others: 1 − p would be rounded away."""
    for gap in (10.0, 40.0, 100.0, 600.0):
        expected = exact_entropy([0, 1], [0.0, -gap])
        assert weighted_semantic_entropy([0, 1], [0.0, -gap]) == pytest.approx(expected, rel=1e-12)
        assert expected > 0
    assert 0.0 < weighted_semantic_entropy([0, 0, 1], [0.0, 0.0, -744.0]) < 1e-319  # where floats end


def test_one_cluster_has_no_entropy_and_distinct_ones_reach_the_ceiling():
    """The ends of the scale are what a threshold is read against."""
    assert discrete_semantic_entropy([3, 3, 3]) == 0.0
    for n in range(1, 60):
        assert discrete_semantic_entropy(range(n)) == pytest.approx(math.log(n))
        assert discrete_semantic_entropy(range(n)) <= math.log(n)


@pytest.mark.parametrize("where", ["logprobs", "lengths", "one", "empty answer"])
def test_what_is_missing_leaves_unmeasured_what_needs_it_and_nothing_else(where):
    """An answer without log-probabilities would be left out, or counted as certain."""
    ids, logprobs, lengths = [0, 0, 1], np.array([-1.0, -2.0, -3.0]), np.array([1, 2, 3])
    if where == "logprobs":
        signals = sample_signals(ids, None, lengths)
    elif where == "lengths":
        signals = sample_signals(ids, logprobs)
    elif where == "one":
        signals = sample_signals(ids, [-1.0, float("nan"), -3.0], lengths)
    else:
        signals = sample_signals(ids, [-1.0, 0.0, -3.0], [1, 0, 3])
    missing = {name for name in WEIGHTED if math.isnan(getattr(signals, name))}
    of_lengths = {"semantic_entropy", "normalized_predictive_entropy"}
    assert missing == (of_lengths if where in {"lengths", "empty answer"} else set(WEIGHTED))
    assert signals.discrete_semantic_entropy == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    assert signals.self_consistency == pytest.approx(2 / 3)


def test_no_sample_measures_nothing_and_one_is_certain_of_itself():
    """An empty run would look perfectly consistent."""
    none = sample_signals([], [], [])
    assert (none.n_samples, none.n_clusters, none.largest_clusters) == (0, 0, ())
    values = [v for v in dataclasses.asdict(none).values() if isinstance(v, float)]
    assert len(values) == 7
    assert all(map(math.isnan, values))
    one = sample_signals([4], [-2.0], [2])
    assert (one.semantic_entropy_ceiling, one.self_consistency, one.largest_clusters) == (0.0, 1.0, (4,))
    assert [getattr(one, name) for name in CLUSTERED] == [0.0, 0.0, 0.0]
    assert (one.predictive_entropy, one.normalized_predictive_entropy) == (2.0, 1.0)


def test_ties_are_told():
    """A majority that is none would be reported as the model's answer."""
    assert sample_signals([5, 2, 2, 5, 1]).largest_clusters == (2, 5)


def test_impossible_answers_weigh_nothing():
    """A sample of probability 0 (raw values, sampled after a filter) would make everything NaN."""
    minus = float("-inf")
    assert weighted_semantic_entropy([0, 1, 2], [-1.0, -1.0, minus]) == pytest.approx(math.log(2))
    assert math.isnan(weighted_semantic_entropy([0, 1], [minus, minus]))
    assert predictive_entropy([-1.0, minus]) == math.inf


def test_certain_answers_have_no_negative_zero_or_rounding_above_certainty():
    """A "-0.0" or a refusal of a log-probability of 1e-7 would surprise a reader."""
    assert math.copysign(1.0, predictive_entropy([0.0, 0.0])) == 1.0
    assert predictive_entropy([1e-7]) == 0.0


@pytest.mark.parametrize(
    "arguments",
    [
        ([0, -1],),
        ([0.5, 1.0],),
        ([True, False],),
        (["a", "b"],),
        ([[0, 1]],),
        (0,),
        ([0, 1], [-1.0]),
        ([0, 1], [-1.0, 0.1]),
        ([0, 1], [-1.0, float("inf")]),
        ([0, 1], [-1.0, -1.0], [1]),
        ([0, 1], [-1.0, -1.0], [1, -1]),
        ([0, 1], [-1.0, -1.0], [1.5, 1.0]),
    ],
)
def test_what_cannot_be_is_refused(arguments):
    """A column in the wrong place would give plausible numbers."""
    with pytest.raises(ValueError, match=r"cluster_ids|log-prob|lengths"):
        sample_signals(*arguments)


def test_the_plug_in_estimate_is_low_by_about_what_is_said():
    """Users compare values of unlike n unless the size of the bias is stated rightly."""
    # Exactly, over all 4^6 samples of 6 answers from four equally likely meanings.
    n, m = 6, 4
    counts = np.indices((m,) * n).reshape(n, -1).T
    mean = np.mean([discrete_semantic_entropy(row) for row in counts])
    bias = math.log(m) - mean
    assert bias == pytest.approx((m - 1) / (2 * n), rel=0.25)
    assert bias > 0


def test_it_is_the_weighted_entropy_of_scipy_over_many_samples():
    """An estimate over thousands of samples would drift by summation errors."""
    rng = np.random.default_rng(0)
    ids, weights = rng.integers(0, 50, 5000), rng.normal(-40, 8, 5000)
    shares = [scipy.special.logsumexp(weights[ids == i]) for i in range(50)]
    expected = scipy.stats.entropy(scipy.special.softmax(shares))
    assert weighted_semantic_entropy(ids, np.minimum(weights, 0)) == pytest.approx(expected, rel=1e-11)
