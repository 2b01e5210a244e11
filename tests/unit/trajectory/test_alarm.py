"""The alarm while a generation runs: the bits of the score at the end, and no promise that it cannot keep."""

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.core.errors import ConfigurationError
from cert.signals import SignalOptions, TokenSteps, analyze_steps
from cert.trajectory.calibration.alarm import StreamingAlarm
from cert.trajectory.calibration.goals.types import Threshold
from cert.trajectory.calibration.scores import SCORES, path_of

RISING = sorted(name for name, score in SCORES.items() if score.path is not None)
OPTIONS = SignalOptions(surprise_probability=0.3, cusum_drift=0.7)


def made(seed: int, count: int, *, full: bool, vocab: int = 60, k: int = 5) -> TokenSteps:
    """Return steps from random distributions: peaked and flat ones, with rounding above 0."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, vocab)) * rng.exponential(6.0, size=(count, 1))
    logits -= logits.max(axis=1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    order = np.argsort(-logprobs, axis=1)[:, :k]
    chosen = np.array([rng.choice(vocab, p=np.exp(row) / np.exp(row).sum()) for row in logprobs], np.int64)
    own = logprobs[np.arange(count), chosen] if count else np.empty(0)
    own = np.where(rng.random(count) < 0.2, rng.choice([0.0, -0.0, 6e-8, 1e-4], size=count), own)
    entropy = -(np.exp(logprobs) * logprobs).sum(axis=1)
    return TokenSteps.build(
        token_ids=chosen,
        logprob=own,
        top_ids=order,
        top_logprobs=np.take_along_axis(logprobs, order, axis=1),
        entropy=entropy if full else None,
        vocab_size=vocab,
    )


def bits(value: float) -> bytes:
    return struct.pack("d", math.nan if math.isnan(value) else value)


def with_missing(steps: TokenSteps, place: int) -> TokenSteps:
    """Return steps of which one was not measured."""
    values = {
        name: getattr(steps, name).copy()
        for name in ("token_ids", "logprob", "top_ids", "top_logprobs", "entropy", "self_certainty")
    }
    for name in ("logprob", "top_logprobs", "entropy"):
        values[name][place] = np.nan
    return TokenSteps(**values, vocab_size=steps.vocab_size)


@pytest.mark.parametrize("name", RISING)
@given(
    seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 7), min_size=1, max_size=8), full=st.booleans()
)
def test_the_running_value_has_the_bits_of_the_score_of_the_tokens_so_far(name, seed, cuts, full):
    """An alarm on another number than the certificate's would promise nothing."""
    steps = made(seed, sum(cuts), full=full)
    alarm = StreamingAlarm(SCORES[name], math.inf, OPTIONS)
    done = 0
    for size in cuts:
        assert not alarm.update(steps[done : done + size])
        done += size
        so_far = SCORES[name].of(analyze_steps(steps[:done], OPTIONS)[2])
        assert bits(alarm.running) == bits(so_far)
    assert (alarm.seen, alarm.status) == (done, "quiet")


@pytest.mark.parametrize("name", RISING)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), k=st.integers(0, 5))
def test_plain_numbers_token_by_token_give_the_same_bits_as_arrays(name, seed, count, k):
    """The quick way on this machine's own models must not be another alarm than that of a server's tokens."""
    steps = made(seed, count, full=True, k=k)
    alarm, other = (StreamingAlarm(SCORES[name], 1.0, OPTIONS) for _ in range(2))
    columns = np.column_stack((steps.logprob, steps.entropy, steps.self_certainty, steps.top_logprobs))
    for token, values in enumerate(columns.tolist()):
        assert alarm.take(values) == other.update(steps[token : token + 1])
        assert bits(alarm.running) == bits(other.running)
    assert (alarm.alarm_at, alarm.not_measured_at) == (other.alarm_at, other.not_measured_at)


@pytest.mark.parametrize("name", RISING)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), share=st.floats(0.0, 1.2))
def test_there_is_an_alarm_on_the_way_if_and_only_if_the_whole_is_above_the_threshold(
    name, seed, count, share
):
    """An alarm that the whole answer takes back would break the promise of false alarms."""
    steps = made(seed, count, full=seed % 2 == 0)
    whole = SCORES[name].of(analyze_steps(steps, OPTIONS)[2])
    threshold = whole * share
    alarm = StreamingAlarm(SCORES[name], threshold, OPTIONS)
    for token in range(count):
        alarm.update(steps[token : token + 1])
    assert (alarm.alarm_at is not None) == (whole > threshold)
    if alarm.alarm_at is not None:
        before = SCORES[name].of(analyze_steps(steps[: alarm.alarm_at], OPTIONS)[2])
        at = SCORES[name].of(analyze_steps(steps[: alarm.alarm_at + 1], OPTIONS)[2])
        assert not before > threshold
        assert at > threshold


@pytest.mark.parametrize("name", RISING)
@given(seed=st.integers(0, 1000))
def test_a_token_that_was_not_measured_is_said_and_never_a_quiet_run(name, seed):
    """What nobody saw must not count as seen and found well."""
    steps = with_missing(made(seed, 9, full=True), 4)
    alarm = StreamingAlarm(SCORES[name], math.inf, OPTIONS)
    alarm.update(steps[:4])
    assert alarm.status == "quiet"
    alarm.update(steps[4:])
    assert (alarm.status, alarm.not_measured_at, alarm.alarm_at) == ("not_measured", 4, None)
    assert math.isnan(alarm.running)
    assert math.isnan(SCORES[name].of(analyze_steps(steps, OPTIONS)[2]))


def test_an_alarm_stays_when_a_later_token_was_not_measured():
    """The generation was bad before anything went missing."""
    steps = with_missing(made(3, 9, full=True), 6)
    alarm = StreamingAlarm(SCORES["msp"], -1.0)
    assert alarm.update(steps)
    assert (alarm.status, alarm.alarm_at, alarm.not_measured_at) == ("alarm", 0, 6)


def test_an_infinite_score_alarms_and_no_tokens_are_not_measured_yet():
    """A chosen token of probability 0 is as bad as can be; of no token nothing is known."""
    steps = made(1, 3, full=True)
    steps.logprob[1] = -np.inf
    for name in ("msp", "max_surprisal", "max_token_perplexity", "final_surprise", "max_cusum"):
        alarm = StreamingAlarm(SCORES[name], 1e300)
        assert math.isnan(alarm.running)
        assert alarm.update(steps)
        assert alarm.alarm_at == 1


@pytest.mark.parametrize("name", sorted(set(SCORES) - set(RISING)))
def test_a_score_that_may_fall_again_is_refused(name):
    """On a mean the first odd token would stop an answer that the certificate calls good."""
    with pytest.raises(ConfigurationError, match="may fall again") as error:
        path_of(SCORES[name])
    assert "max_cusum" in str(error.value.hint)


def test_a_threshold_of_another_goal_is_refused():
    """A bound on misses says nothing about alarms on the way."""
    kept: dict[str, Any] = {"alpha": 0.1, "delta": None, "n": 20, "n_units": 20, "n_wrong": 0, "details": {}}
    threshold = Threshold(goal="misses", value=1.0, **kept)
    with pytest.raises(ConfigurationError, match="misses"):
        StreamingAlarm(SCORES["msp"], threshold)
    with pytest.raises(ConfigurationError, match="NaN"):
        StreamingAlarm(SCORES["msp"], math.nan)
    alarm = StreamingAlarm(SCORES["msp"], Threshold(goal="streaming", value=1.0, **kept))
    assert alarm.threshold == 1.0


@pytest.mark.parametrize("name", RISING)
def test_a_threshold_from_correct_runs_keeps_its_rate_of_false_alarms(name):
    """The promise itself: P(ever alarmed given correct) ≤ α on average over calibrations."""
    rng = np.random.default_rng(0)
    pool = [made(int(seed), int(rng.integers(3, 20)), full=True) for seed in rng.integers(0, 10**6, 400)]
    scores = np.array([SCORES[name].of(analyze_steps(steps)[2]) for steps in pool])
    alpha, n, rates = 0.1, 39, []
    for _ in range(200):
        order = rng.permutation(len(pool))
        rank = math.ceil((n + 1) * (1 - alpha))
        threshold = float(np.sort(scores[order[:n]])[rank - 1])
        rates.append(np.mean([scores[i] > threshold for i in order[n : n + 40]]))
    assert np.mean(rates) <= alpha + 3 * np.std(rates) / math.sqrt(len(rates))
    threshold = float(np.quantile(scores, 0.9))
    for steps, score in zip(pool, scores, strict=True):
        alarm = StreamingAlarm(SCORES[name], threshold)
        assert alarm.update(steps) == (score > threshold)
