"""The entropy interval of truncated distributions contains the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.signals import TokenSteps, entropy_bounds, reduce_logits, step_signals


@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=60),
    st.integers(1, 20),
    st.integers(0, 59),
)
def test_the_interval_contains_the_entropy_of_the_full_distribution(logits, top_k, chosen):
    """A verdict on a server's top K would otherwise be a guess."""
    width = len(logits)
    steps = reduce_logits([logits], [chosen % width], min(top_k, width))
    lower, upper = entropy_bounds(steps.logprob, steps.top_logprobs, width)
    assert lower[0] <= steps.entropy[0] + 1e-9
    assert upper[0] >= steps.entropy[0] - 1e-9
    assert 0.0 <= lower[0] <= upper[0]


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=40), st.integers(1, 38))
def test_more_candidates_never_widen_the_interval(logits, top_k):
    """Asking a server for more candidates must help."""
    width = len(logits)
    top_k = min(top_k, width - 1)
    narrow = reduce_logits([logits], [int(np.argmax(logits))], top_k + 1)
    wide = reduce_logits([logits], [int(np.argmax(logits))], top_k)
    lower, upper = entropy_bounds(wide.logprob, wide.top_logprobs, width)
    lower_more, upper_more = entropy_bounds(narrow.logprob, narrow.top_logprobs, width)
    assert lower_more[0] >= lower[0] - 1e-9
    assert upper_more[0] <= upper[0] + 1e-9


def test_both_bounds_are_reached():
    """Bounds that nothing reaches would leave verdicts undecided without need."""
    spread = np.log(np.r_[0.5, np.full(10, 0.05)])  # the rest spread evenly reaches the upper bound
    lower, upper = entropy_bounds(spread[:1], spread[None, :1], 11)
    assert upper[0] == pytest.approx(-0.5 * math.log(0.5) - 10 * 0.05 * math.log(0.05))
    tied = np.log(np.full(4, 0.25))  # tokens as likely as the last candidate reach the lower one
    lower, upper = entropy_bounds(tied[:1], tied[None, :2], 4)
    assert lower[0] == pytest.approx(math.log(4))
    assert upper[0] == pytest.approx(math.log(4))


def test_a_chosen_token_outside_the_candidates_counts_with_its_own_term():
    """Servers send such a token as an extra entry: its exact share must tighten the interval."""
    log_p = np.log(np.array([0.6, 0.3, 0.06, 0.04]))
    inside = entropy_bounds(log_p[:1], log_p[None, :2], 4)
    outside = entropy_bounds(log_p[2:3], log_p[None, :2], 4)
    truth = -(np.exp(log_p) * log_p).sum()
    assert inside[0][0] < outside[0][0] <= truth <= outside[1][0] <= inside[1][0] + 1e-12


def test_without_the_size_of_the_vocabulary_there_is_no_upper_bound():
    """An invented vocabulary would be an invented bound."""
    lower, upper = entropy_bounds(np.log([0.5]), np.log([[0.5, 0.2]]), None)
    assert lower[0] > 0
    assert np.isnan(upper[0])


def test_candidates_that_sum_to_more_than_one_leave_no_rest():
    """Rounded log-probabilities can sum to more than 1; a negative rest would give NaN."""
    lower, upper = entropy_bounds(np.array([-0.1]), np.array([[-0.1, -2.0]]), 100)
    assert lower[0] == upper[0] > 0


def test_full_measurements_take_precedence_over_bounds():
    """Where the whole vocabulary was seen both ends are that value, bit for bit."""
    steps = reduce_logits([[1.0, 2.0, 3.0]], [2], top_k=1)
    s = step_signals(steps)
    assert s.entropy_lower[0] == s.entropy_upper[0] == steps.entropy[0]


def test_missing_candidates_are_not_measured_rather_than_zero():
    """No candidates: no bound, instead of an entropy of 0 that every gate passes."""
    steps = TokenSteps.build(
        token_ids=[1], logprob=[-0.5], top_ids=np.empty((1, 0)), top_logprobs=np.empty((1, 0)), vocab_size=9
    )
    assert np.isnan(entropy_bounds(steps.logprob, steps.top_logprobs, 9)).all()


def test_a_chosen_token_recorded_with_another_rounding_is_not_counted_twice():
    """Counted twice, half the mass would vanish and a wide-open distribution would pass."""
    steps = TokenSteps.build(
        token_ids=[7],
        logprob=[np.log(0.5) - 1e-7],
        top_ids=[[7]],
        top_logprobs=[[np.log(0.5)]],
        vocab_size=200,
    )
    s = step_signals(steps)
    assert s.entropy_upper[0] > 3.3
    _, upper = entropy_bounds(steps.logprob, steps.top_logprobs, 200)
    assert upper[0] > 3.3


def test_candidates_of_probability_zero_leave_no_rest():
    """Behind them there is nothing: rounding must not become an entropy of 1e300."""
    top = np.array([[np.log(0.7), np.log(0.3 - 1e-9), -np.inf]])
    lower, upper = entropy_bounds(top[:, 0], top, 1000)
    assert lower[0] == upper[0] == pytest.approx(0.6109, abs=1e-3)


def test_one_candidate_has_no_margin():
    """The gap to a second candidate that was not seen is not the first one's probability."""
    steps = TokenSteps.build(token_ids=[1], logprob=[-0.1], top_ids=[[1]], top_logprobs=[[-0.1]])
    assert np.isnan(step_signals(steps).margin[0])
    assert np.isnan(step_signals(steps).logprob_margin[0])
