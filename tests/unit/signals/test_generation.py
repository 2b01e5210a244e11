"""The signals of whole generations: streaming equals offline bit for bit, and golden values."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.signals import (
    GenerationSignals,
    SignalOptions,
    SignalStream,
    TokenSteps,
    analyze_steps,
    energy,
    reduce_logits,
)


def random_steps(seed: int, length: int, top_k: int = 5, width: int = 30) -> TokenSteps:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=rng.uniform(0.5, 6.0, size=(length, 1)), size=(length, width))
    if length and seed % 3 == 0:
        logits[:, width - 3 :] = -np.inf
    return reduce_logits(logits, rng.integers(0, width - 3, size=length), top_k)


def same_bits(a: object, b: object) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 70),
    st.lists(st.integers(0, 70), max_size=8),
    st.sampled_from([(1, 1), (4, 7), (16, 16), (100, 100)]),
    st.booleans(),
)
def test_streaming_gives_the_bits_of_offline_for_every_way_to_cut(seed, length, cuts, windows, truncated):
    """A live verdict and the one recomputed from its record by an auditor must be the same."""
    steps = random_steps(seed, length)
    if truncated:
        steps = dataclasses.replace(
            steps, entropy=np.full(length, np.nan), self_certainty=np.full(length, np.nan)
        )
    options = SignalOptions(group_window=windows[0], tail_window=windows[1])
    step, running, signals = analyze_steps(steps, options)
    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    stream = SignalStream(options)
    parts = [stream.update(steps[a:b]) for a, b in itertools.pairwise(edges)]
    for whole, pieces in ((step, [p[0] for p in parts]), (running, [p[1] for p in parts])):
        for name in whole.__dataclass_fields__:
            joined = np.concatenate([getattr(piece, name) for piece in pieces])
            assert same_bits(getattr(whole, name), joined), name
    for name in signals.__dataclass_fields__:
        assert same_bits(getattr(signals, name), getattr(stream.summary(), name)), name


def test_token_by_token_gives_the_bits_of_offline():
    """The most common way to stream, over a generation of full length."""
    steps = random_steps(1, 400, top_k=20, width=500)
    stream = SignalStream()
    for t in range(len(steps)):
        stream.update(steps[t : t + 1])
    assert stream.summary() == analyze_steps(steps)[2]


def test_generation_signals_of_a_hand_made_generation():
    """Each signal worked out by hand from probabilities that one can check."""
    p = np.array([0.5, 0.05, 0.25])
    top = np.log(np.array([[0.5, 0.25], [0.6, 0.3], [0.25, 0.25]]))
    steps = TokenSteps.build(
        token_ids=[1, 2, 3],
        logprob=np.log(p),
        top_ids=[[1, 5], [6, 7], [3, 8]],
        top_logprobs=top,
        entropy=[1.0, 0.9, 1.3],
        self_certainty=[0.2, 0.4, 0.6],
        vocab_size=10,
    )
    confidence = -top.mean(axis=1)
    options = SignalOptions(group_window=2, tail_window=2, bottom_share=0.5, cusum_drift=1.0)
    _, running, s = analyze_steps(steps, options)
    surprisal = -np.log(p)
    groups = [(confidence[0] + confidence[1]) / 2, (confidence[1] + confidence[2]) / 2]
    cusum = [0.0, math.log(20) - 1, math.log(20) - 1 + math.log(4) - 1]
    expected = GenerationSignals(
        n_tokens=3,
        sequence_logprob=float(np.log(0.5 * 0.05 * 0.25)),
        perplexity=float((0.5 * 0.05 * 0.25) ** (-1 / 3)),
        mean_surprisal=float(surprisal.mean()),
        max_surprisal=math.log(20),
        mean_token_perplexity=(2 + 20 + 4) / 3,
        max_token_perplexity=20.0,
        mean_entropy_lower=3.2 / 3,
        mean_entropy_upper=3.2 / 3,
        max_entropy_lower=1.3,
        max_entropy_upper=1.3,
        mean_top_k_entropy=float(-(np.exp(top) * top).sum(axis=1).mean()),
        max_top_k_entropy=float((-(np.exp(top) * top).sum(axis=1)).max()),
        mean_margin=(0.25 + 0.3 + 0.0) / 3,
        min_margin=0.0,
        first_top_probability=0.5,
        mean_self_certainty=0.4,
        mean_confidence=float(confidence.mean()),
        lowest_group_confidence=min(groups),
        bottom_group_confidence=min(groups),
        tail_confidence=float(confidence[1:].mean()),
        final_surprise=math.log(20),
        surprise_per_token=math.log(20) / 3,
        max_cusum=cusum[2],
    )
    for name in expected.__dataclass_fields__:
        assert getattr(s, name) == pytest.approx(getattr(expected, name), rel=1e-12, abs=1e-12), name
    np.testing.assert_allclose(running.cumulative_surprise, [0, math.log(20), math.log(20)])
    np.testing.assert_allclose(running.cusum, cusum, atol=1e-12)
    np.testing.assert_allclose(running.group_confidence, [np.nan, *groups])


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.floats(0, 5))
def test_cusum_is_the_recursion_of_its_definition(surprisal, drift):
    """The closed form must not drift from S_t = max(0, S_{t−1} + g_t − κ)."""
    logprob = -np.array(surprisal)
    none = np.empty((len(logprob), 0))
    steps = TokenSteps.build(
        token_ids=np.zeros(len(logprob)), logprob=logprob, top_ids=none, top_logprobs=none
    )
    _, running, _ = analyze_steps(steps, SignalOptions(cusum_drift=drift))
    state, expected = 0.0, []
    for g in surprisal:
        state = max(0.0, state + g - drift)
        expected.append(state)
    np.testing.assert_allclose(running.cusum, expected, atol=1e-9)


def test_a_generation_of_no_tokens_is_not_measured():
    """No division by zero, and no 0 that would pass a gate."""
    signals = analyze_steps(TokenSteps.empty(20, 100))[2]
    values = dataclasses.asdict(signals)
    assert values.pop("n_tokens") == 0
    assert all(math.isnan(value) for value in values.values())


def test_one_step_that_was_not_measured_leaves_the_whole_not_measured():
    """A mean over the steps that happen to be there would be a number about another text."""
    steps = random_steps(2, 5)
    broken = dataclasses.replace(steps, logprob=np.where(np.arange(5) == 3, np.nan, steps.logprob))
    signals = analyze_steps(broken)[2]
    assert math.isnan(signals.sequence_logprob)
    assert math.isnan(signals.max_surprisal)
    assert math.isnan(signals.final_surprise)
    assert not math.isnan(signals.mean_margin)


def test_an_infinite_confidence_does_not_spoil_later_windows():
    """One step with a candidate of probability 0 must not make the rest of a long answer not measured."""
    confidence = np.array([1.0, 2.0, np.inf, 3.0, 4.0, 5.0])
    none = np.zeros((6, 1))
    steps = TokenSteps.build(
        token_ids=np.zeros(6), logprob=-np.ones(6), top_ids=none, top_logprobs=-confidence[:, None]
    )
    _, running, signals = analyze_steps(steps, SignalOptions(group_window=2))
    np.testing.assert_array_equal(running.group_confidence, [np.nan, 1.5, np.inf, np.inf, 3.5, 4.5])
    assert signals.lowest_group_confidence == 1.5


def test_a_generation_shorter_than_the_window_is_one_group():
    """Short answers would otherwise have no group confidence at all."""
    signals = analyze_steps(random_steps(1, 3), SignalOptions(group_window=16))[2]
    assert signals.lowest_group_confidence == pytest.approx(signals.mean_confidence)


def test_energy_is_two_at_both_thresholds():
    """The plot's threshold line would be at the wrong height."""
    value = energy(np.array([math.log(50)]), np.array([2.5]), perplexity_threshold=50, entropy_threshold=2.5)
    assert value[0] == pytest.approx(2.0)


@pytest.mark.parametrize("thresholds", [(1.0, 2.5), (50.0, 0.0)])
def test_energy_refuses_thresholds_that_divide_by_zero(thresholds):
    """Infinite energies would be drawn for every token."""
    with pytest.raises(ValueError, match="energy needs"):
        energy(np.ones(1), np.ones(1), perplexity_threshold=thresholds[0], entropy_threshold=thresholds[1])


@pytest.mark.parametrize(
    "options",
    [
        {"surprise_probability": 0.0},
        {"group_window": 0},
        {"tail_window": 0},
        {"bottom_share": 1.5},
        {"cusum_drift": math.nan},
    ],
)
def test_options_out_of_range_are_refused(options):
    """A window of 0 or a probability of 0 would give signals that mean nothing."""
    with pytest.raises(ValueError, match=next(iter(options))):
        SignalOptions(**options)


def test_a_token_exactly_at_the_surprise_threshold_is_no_surprise():
    """The definition counts tokens *below* the threshold."""
    none = np.empty((2, 0))
    steps = TokenSteps.build(
        token_ids=[1, 2], logprob=[math.log(0.25), math.log(0.25) - 1e-9], top_ids=none, top_logprobs=none
    )
    _, running, _ = analyze_steps(steps, SignalOptions(surprise_probability=0.25))
    assert running.cumulative_surprise[0] == 0.0
    assert running.cumulative_surprise[1] > 1.38


def test_the_default_drift_of_the_cusum_is_half_a_nat():
    """Documented, and part of what a threshold on it means."""
    none = np.empty((3, 0))
    steps = TokenSteps.build(token_ids=[1, 2, 3], logprob=[-0.4, -2.5, -0.1], top_ids=none, top_logprobs=none)
    np.testing.assert_allclose(analyze_steps(steps)[1].cusum, [0.0, 2.0, 1.6])


def test_the_smallest_margin_and_the_lowest_tenth_are_what_they_are_called():
    """A wrong sign or a rounded-down count would pick other tokens."""
    top = np.log(np.array([[0.6, 0.3], [0.5, 0.4], [0.9, 0.05]]))
    steps = TokenSteps.build(
        token_ids=[0, 0, 0], logprob=top[:, 0], top_ids=np.tile([0, 1], (3, 1)), top_logprobs=top
    )
    signals = analyze_steps(steps, SignalOptions(group_window=1, bottom_share=0.5))[2]
    confidence = np.sort(-top.mean(axis=1))
    assert signals.min_margin == pytest.approx(0.1)
    assert signals.bottom_group_confidence == pytest.approx(confidence[:2].mean())  # half of 3, rounded up


def test_a_missing_step_spoils_its_own_windows_and_no_more():
    """The rest of a long answer is still measured, and the summary says that it is not whole."""
    confidence = np.arange(1.0, 11.0)
    confidence[4] = np.nan
    steps = TokenSteps.build(
        token_ids=np.zeros(10),
        logprob=-np.ones(10),
        top_ids=np.zeros((10, 1)),
        top_logprobs=-confidence[:, None],
    )
    _, running, signals = analyze_steps(steps, SignalOptions(group_window=2))
    assert np.isnan(running.group_confidence).tolist() == [True] + [False] * 3 + [True] * 2 + [False] * 4
    assert math.isnan(signals.bottom_group_confidence)
    assert math.isnan(signals.lowest_group_confidence)


def test_a_huge_value_does_not_swallow_the_windows_after_it():
    """Masked logits of −3.4e38 give such confidences; the sums after them must keep their digits."""
    confidence = np.array([1.0, 3.4e38, 2.0, 3.0])
    steps = TokenSteps.build(
        token_ids=np.zeros(4),
        logprob=-np.ones(4),
        top_ids=np.zeros((4, 1)),
        top_logprobs=-confidence[:, None],
    )
    _, running, _ = analyze_steps(steps, SignalOptions(group_window=2))
    np.testing.assert_array_equal(running.group_confidence, [np.nan, np.inf, np.inf, 2.5])
