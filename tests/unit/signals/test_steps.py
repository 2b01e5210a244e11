"""The signals of single steps against values worked out independently, and their properties."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cert.signals import TokenSteps, reduce_logits, step_signals, top_k_entropy_ceiling

logits_rows = st.integers(2, 40).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-40, 40), min_size=width, max_size=width), min_size=1, max_size=6
    )
)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 6.0])
def test_entropy_and_self_certainty_are_those_of_scipy(temperature):
    """A wrong logarithm, sign or normalisation would put every threshold of every user at another place."""
    logits = np.random.default_rng(3).normal(size=(50, 300)) / temperature
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    steps = reduce_logits(logits, np.zeros(50, dtype=int), top_k=20)
    uniform = np.full(300, 1 / 300)
    np.testing.assert_allclose(steps.entropy, stats.entropy(p, axis=1), rtol=1e-12)
    np.testing.assert_allclose(steps.self_certainty, [stats.entropy(uniform, row) for row in p], rtol=1e-10)


def test_step_signals_of_one_distribution_match_fifty_digit_arithmetic():
    """Each signal's formula, worked out by another library at high precision."""
    p = [mpmath.mpf(x) for x in ("0.5", "0.25", "0.125", "0.0625", "0.0625")]
    log_p = [mpmath.log(x) for x in p]
    steps = reduce_logits(np.array([[float(x) for x in log_p]]), [2], top_k=3)
    found = step_signals(steps)
    expected = {
        "surprisal": -log_p[2],
        "perplexity": 1 / p[2],
        "entropy_lower": -sum(x * y for x, y in zip(p, log_p, strict=True)),
        "entropy_upper": -sum(x * y for x, y in zip(p, log_p, strict=True)),
        "top_k_entropy": -sum(x * y for x, y in zip(p[:3], log_p[:3], strict=True)),
        "margin": p[0] - p[1],
        "logprob_margin": mpmath.log(2),
        "top_probability": p[0],
        "self_certainty": -sum(log_p) / 5 - mpmath.log(5),
        "confidence": -sum(log_p[:3]) / 3,
    }
    for name, value in expected.items():
        assert getattr(found, name)[0] == pytest.approx(float(value), rel=1e-14), name


@given(logits_rows, st.integers(1, 12))
def test_signals_stay_within_their_bounds(rows, top_k):
    """A signal outside its range (an entropy above log V, a margin above 1) would be a number that lies."""
    logits = np.array(rows)
    width = logits.shape[1]
    steps = reduce_logits(logits, logits.argmin(axis=1), min(top_k, width))
    s = step_signals(steps)
    tolerance = 1e-9
    assert (s.surprisal >= 0).all()
    assert (s.perplexity >= 1 - tolerance).all()
    assert (s.entropy_lower >= -tolerance).all()
    assert (s.entropy_lower <= math.log(width) + tolerance).all()
    assert (s.top_k_entropy <= top_k_entropy_ceiling(steps.top_k) + tolerance).all()
    assert (s.top_k_entropy <= s.entropy_lower + tolerance).all()
    assert (s.self_certainty >= -tolerance).all()
    assert (s.confidence >= 0).all()
    if steps.top_k > 1:
        assert ((s.margin >= 0) & (s.margin <= 1)).all()
        assert (s.logprob_margin >= 0).all()


@given(logits_rows, st.randoms(use_true_random=False))
def test_renaming_the_tokens_changes_no_signal(rows, random):
    """A signal that depends on the order of the vocabulary would differ between equal models."""
    logits = np.array(rows)
    order = list(range(logits.shape[1]))
    random.shuffle(order)
    chosen = logits.argmax(axis=1)
    renamed = np.array([order.index(token) for token in chosen])
    before = step_signals(reduce_logits(logits, chosen, logits.shape[1]))
    after = step_signals(reduce_logits(logits[:, order], renamed, logits.shape[1]))
    for name in before.__dataclass_fields__:
        np.testing.assert_allclose(getattr(before, name), getattr(after, name), rtol=1e-9, atol=1e-12)


@given(logits_rows, st.floats(-1000, 1000))
def test_a_constant_added_to_the_logits_changes_nothing(rows, constant):
    """Models with large logits would otherwise lose digits, or overflow."""
    logits = np.array(rows)
    chosen = logits.argmax(axis=1)
    before, after = (step_signals(reduce_logits(x, chosen, 2)) for x in (logits, logits + constant))
    for name in before.__dataclass_fields__:
        np.testing.assert_allclose(getattr(before, name), getattr(after, name), rtol=1e-8, atol=1e-9)


def test_tokens_that_are_ruled_out_do_not_spoil_the_entropy():
    """A model that masks part of its vocabulary with −inf would otherwise be reported as NaN."""
    steps = reduce_logits([[0.0, 0.0, -np.inf, -np.inf]], [1], top_k=4)
    s = step_signals(steps)
    assert s.entropy_lower[0] == pytest.approx(math.log(2))
    assert s.top_k_entropy[0] == pytest.approx(math.log(2))
    assert np.isposinf(s.confidence[0])
    assert np.isposinf(s.self_certainty[0])


@pytest.mark.parametrize("k", [1, 2, 3, 10, 50])
def test_the_ceiling_of_top_k_entropy_is_its_largest_value(k):
    """A threshold above it could never fail, and must be refused with the right figure."""
    ceiling = top_k_entropy_ceiling(k)
    best = 1 / math.e if k < 3 else 1 / k
    assert -k * best * math.log(best) == pytest.approx(ceiling)
    rng = np.random.default_rng(k)
    for _ in range(300):
        p = np.sort(rng.dirichlet(np.full(k + 5, 0.7)))[::-1][:k]
        assert -(p * np.log(p)).sum() <= ceiling + 1e-12


def test_without_candidates_their_signals_are_not_measured():
    """A source that shows only the chosen token must not be given margins of 0."""
    steps = TokenSteps.build(
        token_ids=[1], logprob=[-0.5], top_ids=np.empty((1, 0)), top_logprobs=np.empty((1, 0))
    )
    s = step_signals(steps)
    assert s.surprisal[0] == 0.5
    for name in (
        "entropy_lower",
        "entropy_upper",
        "top_k_entropy",
        "margin",
        "confidence",
        "top_probability",
    ):
        assert np.isnan(getattr(s, name)[0]), name


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_give_no_distribution_are_refused(bad):
    """NaN or +inf would come out as a probability of something."""
    with pytest.raises(ValueError, match=r"NaN or \+inf"):
        reduce_logits([[0.0, bad]], [0], top_k=1)


def test_columns_of_different_length_are_refused():
    """A shifted column would attach every signal to the wrong token."""
    with pytest.raises(ValueError, match=r"shape \(T,\)"):
        TokenSteps.build(token_ids=[1, 2], logprob=[-0.5], top_ids=[[1]], top_logprobs=[[-0.5]])
