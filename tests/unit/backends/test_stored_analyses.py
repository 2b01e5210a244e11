"""Our own analyses, read back: the recorded floats are the same, bit for bit."""

import copy
import dataclasses
import json

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cert.backends import Generation, Message, ModelIdentity, Sampling
from cert.backends.stored import read_stored
from cert.backends.stored.own_analyses import RecordedTexts
from cert.core.errors import InputError
from cert.signals import reduce_logits
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.types import TrajectoryConfig


def generation(seed=0, length=5, top_k=4, full=True, **changes):
    rng = np.random.default_rng(seed)
    steps = reduce_logits(rng.normal(size=(length, 12)) * 3, rng.integers(0, 12, size=length), top_k)
    if not full:
        nothing = np.full(length, np.nan)
        steps = dataclasses.replace(steps, entropy=nothing, self_certainty=nothing)
    place = np.arange(length)
    values = {
        "prompt": (Message("user", "Say:"),),
        "text": "é" * length,
        "steps": steps,
        "offsets": np.stack([place, place + 1], axis=1),
        "finish_reason": "stop",
        "stop_step": steps[:1] if length else None,
        "prompt_tokens": 3,
        "sampling": Sampling(0.7, 0.9, 40, 11),
        "model": ModelIdentity("m", "r1", "transformers", 12, 2048, "cpu", "float32"),
        "logprobs_mode": "raw",
        "vocabulary": RecordedTexts({i: f"<{i}>" for i in range(12)}),
        "duration_s": 0.125,
    }
    return Generation(**(values | changes))


def written(g: Generation):
    return analyze_generation(g, TrajectoryConfig(entropy_threshold=2.0)).to_dict()


def read(path, data):
    path.write_bytes(data if isinstance(data, bytes) else msgspec.json.encode(data))
    (item,) = read_stored(path)
    return item


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.integers(0, 999), st.integers(0, 9), st.integers(0, 6), st.booleans(), st.booleans())
def test_an_analysis_read_back_gives_itself_again(tmp_path, seed, length, top_k, full, odd):
    """An auditor who recomputes a stored verdict must find every one of its numbers."""
    g = generation(seed, length, top_k, full)
    if odd and length and top_k:
        g.steps.logprob[0], g.steps.top_logprobs[-1, -1] = np.nan, -np.inf
    before = written(g)
    after = written(read(tmp_path / "a.jsonl", before).unwrap())
    for name in ("created_at", "stages"):
        del before[name], after[name]
    # What a token is called alone is known of candidates and of the stop token only.
    assert json.dumps(after, sort_keys=True) == json.dumps(before, sort_keys=True)


def test_what_an_analysis_does_not_know_stays_unknown(tmp_path):
    """An analysis of a server's record has no settings; none may be made up on the way."""
    g = generation(
        full=False, prompt=None, sampling=None, duration_s=None, prompt_tokens=None, stop_step=None,
        token_ids_known=False, logprobs_mode="unknown",
    )  # fmt: skip
    back = read(tmp_path / "a.jsonl", written(g)).unwrap()
    assert (back.prompt, back.sampling, back.duration_s, back.prompt_tokens) == (None,) * 4
    assert (back.stop_step, back.token_ids_known, back.logprobs_mode) == (None, False, "unknown")


def test_a_record_of_a_journal_is_read_under_its_key(tmp_path):
    """What a batch wrote can be found by the name that its user gave it."""
    record = {
        "schema_version": 1,
        "kind": "trajectory_record",
        "key": "q7",
        "analysis": written(generation()),
    }
    item = read(tmp_path / "a.jsonl", record | {"error": None, "line": 3})
    assert item.key == "q7"
    assert item.unwrap().text == "é" * 5


def changed(path, value):
    data = copy.deepcopy(written(generation()))
    part = data
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return data


BROKEN = [
    (("tokens", "logprob", 0), 0.5, "above 0"),
    (("tokens", "logprob", 0), "-0.5", "cannot be read"),
    (("tokens", "logprob", 0), "NaN", "cannot be read"),
    (("tokens", "logprob"), [-0.5], "differ in length"),
    (("tokens", "id", 0), -3, "cannot be read"),
    (("tokens", "id", 0), 2**70, "cannot be read"),
    (("tokens", "end", 4), 900, "outside the text"),
    (("tokens", "start", 4), -1, "cannot be read"),
    (("top", "logprob", 0), [-0.1], "differ in length"),
    (("top", "logprob", 0, 3), -0.0, "descending"),
    (("top", "id"), [], "differ in length"),
    (("sampling", "temperature"), -1, "cannot be read"),
    (("model", "vocab_size"), "many", "cannot be read"),
    (("finish_reason",), "bored", "cannot be read"),
    (("schema_version",), 2, "cannot be read"),
]


@pytest.mark.parametrize(("place", "value", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_an_analysis_that_was_changed_by_hand_is_refused(tmp_path, place, value, reason):
    """Numbers that cannot have been measured must not be measured again."""
    item = read(tmp_path / "a.jsonl", changed(place, value))
    assert isinstance(item.outcome, InputError)
    assert reason in item.outcome.message
