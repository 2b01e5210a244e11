"""Verdicts and their reasons."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.signals import TokenSteps, analyze_steps, reduce_logits
from cert.trajectory.gate import Thresholds, decide

OFF = Thresholds(perplexity=None, entropy=None, top_k_entropy=None, surprise=None)


def judged(steps, **thresholds):
    step, _, signals = analyze_steps(steps)
    tokens = [f"t{i}" for i in range(len(steps))]
    return decide(step, signals, dataclasses.replace(OFF, **thresholds), tokens=tokens, profile="test")


def two_steps(entropy=(1.0, 2.61), probability=(0.5, 0.5)):
    return TokenSteps.build(
        token_ids=[1, 2],
        logprob=np.log(probability),
        top_ids=[[1], [2]],
        top_logprobs=np.log(np.array(probability))[:, None],
        entropy=entropy,
        self_certainty=[0.0, 0.0],
        vocab_size=100,
    )


def test_the_reason_names_value_threshold_and_token():
    """A person must see at once what failed, by how much and where."""
    decision = judged(two_steps(), entropy=2.5)
    assert decision.verdict == "fail"
    assert decision.reasons == ("entropy 2.61 above 2.5 at token 1 ‘t1’",)


def test_a_value_at_its_threshold_passes():
    """The rule is 'at most', everywhere: calibrated thresholds rest on it."""
    assert judged(two_steps(), entropy=2.61).verdict == "pass"
    assert judged(two_steps(), entropy=math.nextafter(2.61, 0)).verdict == "fail"


@pytest.mark.parametrize(
    ("thresholds", "probability", "verdict"),
    [
        ({"perplexity": 4.0}, (0.5, 0.1), "fail"),  # mean of 2 and 10
        ({"perplexity": 6.0}, (0.5, 0.1), "pass"),
        ({"surprise": 2.0}, (0.5, 0.05), "fail"),  # −log 0.05 = 3.0
        ({"surprise": 3.0}, (0.5, 0.05), "pass"),
        ({"surprise": 0.5}, (0.5, 0.11), "pass"),  # not below 0.1: no surprise
        ({"top_k_entropy": 0.3}, (0.5, 0.5), "fail"),  # −0.5 log 0.5 = 0.35
    ],
)
def test_each_rule_reads_its_own_statistic(thresholds, probability, verdict):
    """A rule on the wrong statistic passes what it should stop."""
    assert judged(two_steps(probability=probability), **thresholds).verdict == verdict


def test_an_interval_decides_only_where_it_can():
    """On a server's top K the threshold can lie between the bounds; that is not a pass."""
    logits = np.log(np.array([[0.4, 0.3, 0.1, 0.1, 0.1]]))
    full = reduce_logits(logits, [0], 2)
    truncated = dataclasses.replace(full, entropy=np.array([np.nan]))
    low, high = analyze_steps(truncated)[0].entropy_lower[0], analyze_steps(truncated)[0].entropy_upper[0]
    assert low < high
    assert judged(truncated, entropy=low * 0.99).verdict == "fail"
    assert judged(truncated, entropy=(low + high) / 2).verdict == "undecided"
    assert judged(truncated, entropy=high * 1.01).verdict == "pass"
    unknown = dataclasses.replace(truncated, vocab_size=None)
    assert judged(unknown, entropy=high * 1.01).verdict == "undecided"


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3.3), st.integers(1, 10))
def test_a_decided_verdict_on_an_interval_is_the_verdict_on_the_truth(seed, threshold, top_k):
    """Truncation may leave a verdict open, never turn it round."""
    rng = np.random.default_rng(seed)
    full = reduce_logits(rng.normal(scale=3, size=(4, 30)), rng.integers(0, 30, 4), top_k)
    truncated = dataclasses.replace(full, entropy=np.full(4, np.nan))
    verdict = judged(truncated, entropy=threshold).verdict
    if verdict != "undecided":
        assert verdict == judged(full, entropy=threshold).verdict


def test_what_is_not_measured_never_passes():
    """Other rules that pass say nothing about the one that could not be measured."""
    steps = TokenSteps.build(
        token_ids=[1], logprob=[-0.1], top_ids=np.empty((1, 0)), top_logprobs=np.empty((1, 0))
    )
    decision = judged(steps, perplexity=50.0, entropy=2.5)
    assert decision.verdict == "not_measured"
    assert decision.reasons == ("entropy not measured",)


def test_a_failure_counts_whatever_else_is_unknown():
    """A known failure must not hide behind a missing measurement."""
    steps = TokenSteps.build(
        token_ids=[1], logprob=[-9.0], top_ids=np.empty((1, 0)), top_logprobs=np.empty((1, 0))
    )
    assert judged(steps, surprise=5.0, entropy=2.5).verdict == "fail"


def test_no_rule_and_no_token_are_not_measured():
    """An empty gate or an empty answer must not count as a pass."""
    assert judged(two_steps()).verdict == "not_measured"
    assert judged(two_steps()).reasons == ("no rule is set",)
    assert (
        judged(TokenSteps.empty(5, 100), perplexity=50.0, entropy=2.5, surprise=10.0).verdict
        == "not_measured"
    )


def test_an_infinite_perplexity_fails():
    """The least likely token of all must not be left out of the mean."""
    assert judged(two_steps(probability=(0.5, 1e-320)), perplexity=50.0).verdict == "fail"


def test_a_rule_not_measured_outweighs_one_undecided():
    """An open question may be settled with more candidates; a missing measurement may not."""
    steps = TokenSteps.build(
        token_ids=[1], logprob=[np.nan], top_ids=[[1]], top_logprobs=[[-0.7]], vocab_size=50
    )
    assert judged(steps, entropy=1.0).verdict == "undecided"
    assert judged(steps, entropy=1.0, perplexity=50.0).verdict == "not_measured"


def test_the_token_named_is_the_one_that_could_exceed_the_threshold():
    """Of two tokens with open intervals, a person must look at the one whose upper bound is too high."""
    first = np.log(np.array([[0.2, 0.2, 0.2, 0.2, 0.2]]))
    second = np.log(np.array([[0.7, 0.1, 0.1, 0.05, 0.05]]))
    steps = TokenSteps.build(
        token_ids=[0, 0],
        logprob=np.concatenate((first[:, 0], second[:, 0])),
        top_ids=[[0, 1, 2, 3, 4], [0, 1, 2, 3, 9]],
        top_logprobs=np.concatenate((first, second - [0, 0, 0, 3.0, 3.0])),
        vocab_size=1000,
    )
    s = analyze_steps(steps)[0]
    assert s.entropy_lower[0] > s.entropy_lower[1]
    assert s.entropy_upper[0] < s.entropy_upper[1]
    middle = (s.entropy_upper[0] + s.entropy_upper[1]) / 2
    (check,) = judged(steps, entropy=middle).checks
    assert (check.outcome, check.token) == ("undecided", 1)


def test_a_token_of_any_length_is_quoted_briefly():
    """A hostile vocabulary could make one reason fill the log."""
    step, _, signals = analyze_steps(two_steps())
    thresholds = dataclasses.replace(OFF, entropy=2.5)
    decision = decide(step, signals, thresholds, tokens=["a", "b" * 300_000], profile="test")
    assert len(decision.reasons[0]) < 200


def test_a_check_that_is_not_measured_is_null_in_json():
    """A 0 in its place would read as a perfect score."""
    steps = TokenSteps.build(
        token_ids=[1], logprob=[-0.1], top_ids=np.empty((1, 0)), top_logprobs=np.empty((1, 0))
    )
    (check,) = judged(steps, entropy=2.5).checks
    assert (check.to_dict()["lower"], check.to_dict()["upper"]) == (None, None)
