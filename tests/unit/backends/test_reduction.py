"""The fused reduction on the device agrees with the reference in numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from cert.backends.reduction import StepReducer  # noqa: E402  # after the check that torch is there
from cert.signals import reduce_logits  # noqa: E402


def compare(logits: np.ndarray, chosen: np.ndarray, top_k: int) -> None:
    found = StepReducer(top_k)(torch.tensor(logits, dtype=torch.float32), torch.tensor(chosen))
    expected = reduce_logits(logits.astype(np.float32), chosen, min(top_k, logits.shape[1]))
    floats = found.floats.numpy().astype(np.float64)
    np.testing.assert_allclose(floats[:, 0], expected.logprob, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(floats[:, 1], expected.entropy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(floats[:, 2], expected.self_certainty, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(floats[:, 3:], expected.top_logprobs, rtol=1e-5, atol=1e-5)
    # Ids may differ among equals only: the values at them must not.
    at_ids = np.take_along_axis(logits, found.ids[:, 1:].numpy(), axis=1)
    np.testing.assert_array_equal(at_ids, np.take_along_axis(logits, expected.top_ids, axis=1))
    np.testing.assert_array_equal(found.ids[:, 0].numpy(), chosen)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.sampled_from([2, 127, 128, 129, 1000, 5_000, 12_345]),
    st.integers(1, 30),
    st.sampled_from([0.01, 1.0, 8.0, 60.0]),
    st.sampled_from([0.0, 300.0, -300.0]),
)
def test_the_torch_kernel_agrees_with_numpy(seed, rows, width, top_k, scale, shift):
    """Live numbers and recomputed ones would otherwise tell different stories."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(rows, width)) * scale + shift).astype(np.float32)
    compare(logits, rng.integers(0, width, size=rows), top_k)


def test_a_vocabulary_of_real_size_is_reduced_right():
    """Errors of float32 grow with the length of a sum; 151,936 is Qwen's vocabulary."""
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(3, 151_936)) * np.array([[0.3], [3.0], [12.0]])).astype(np.float32)
    compare(logits, logits.argmax(axis=1), 20)


def test_tokens_ruled_out_by_the_model_do_not_spoil_the_numbers():
    """Some models give −inf to padding ids of their vocabulary."""
    logits = np.random.default_rng(1).normal(size=(2, 3_000)).astype(np.float32)
    logits[:, 2_500:] = -np.inf
    found = StepReducer(5)(torch.tensor(logits), torch.tensor([1, 2]))
    expected = reduce_logits(logits, [1, 2], 5)
    np.testing.assert_allclose(found.floats[:, 1].numpy(), expected.entropy, rtol=1e-5)
    assert torch.isposinf(found.floats[:, 2]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("width", [50, 9_000])
def test_logits_without_a_distribution_show_as_nan_in_their_row_alone(bad, width):
    """A broken row must be found, and must not be mistaken for its neighbours."""
    logits = torch.randn(3, width)
    logits[1, width // 2] = bad
    floats = StepReducer(4)(logits, torch.zeros(3, dtype=torch.long)).floats
    assert torch.isnan(floats[:, 1]).tolist() == [False, True, False]


def test_the_logits_are_left_as_they_were():
    """The sampler reads the same tensor after the reduction."""
    logits = torch.randn(2, 4_000)
    before = logits.clone()
    StepReducer(20)(logits, torch.zeros(2, dtype=torch.long))
    assert torch.equal(logits, before)


def test_no_more_candidates_than_the_vocabulary_has():
    """A vocabulary smaller than K gives all of it instead of an error."""
    step = StepReducer(50)(torch.randn(1, 7), torch.tensor([3]))
    assert step.floats.shape == (1, 3 + 7)
    assert sorted(step.ids[0, 1:].tolist()) == list(range(7))


@pytest.mark.parametrize("peak", [9.0, 12.0, 15.0])
def test_a_peak_over_a_flat_rest_keeps_its_digits(peak):
    """The hardest case for sums in float32: a sequential sum is off by 1e-3 here."""
    logits = np.zeros((1, 151_936), dtype=np.float32)
    logits[0, 77] = peak
    compare(logits, np.array([77]), 5)
    compare(logits, np.array([5]), 5)


def test_a_certain_distribution_has_an_entropy_of_zero_and_not_below():
    """Rounding below 0 would leave the range of the signal."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(200, 3_000)).astype(np.float32)
    logits[np.arange(200), rng.integers(0, 3_000, 200)] = rng.uniform(15, 60, 200)
    floats = StepReducer(3)(torch.tensor(logits), torch.tensor(logits.argmax(axis=1))).floats
    assert (floats[:, 1] >= 0).all()


def test_very_unlikely_tokens_keep_their_share_of_the_entropy():
    """What is small is small, not cut off: 4,000 tokens at e^-21 each still count."""
    logits = np.zeros((1, 4_001), dtype=np.float32)
    logits[0, 0] = 21.0
    expected = reduce_logits(logits, [0], 1).entropy[0]
    found = StepReducer(1)(torch.tensor(logits), torch.tensor([0])).floats[0, 1]
    assert float(found) == pytest.approx(expected, rel=1e-2)
