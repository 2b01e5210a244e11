"""Stored files through the monitor: one by one and all at once give the same numbers and verdicts."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cert.backends import Generation, ModelIdentity
from cert.backends.stored.own_analyses import RecordedTexts
from cert.backends.stored.parquet_write import GenerationWriter
from cert.core.errors import InputError, OutputError
from cert.signals import GenerationSignals, reduce_logits
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.gate import Thresholds
from cert.trajectory.gate_columns import VERDICTS, verdicts
from cert.trajectory.stored import (
    RecordWriter,
    analyze_stored,
    summarise_stored,
    write_summaries,
)
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

NAMES = [field.name for field in dataclasses.fields(GenerationSignals)]


def generation(seed=0, length=6, top_k=4, full=True):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 6)
    steps = reduce_logits(rng.normal(size=(length, 40)) * scale, rng.integers(0, 40, size=length), top_k)
    if not full:
        nothing = np.full(length, np.nan)
        size = None if seed % 2 else 40
        steps = dataclasses.replace(steps, entropy=nothing, self_certainty=nothing, vocab_size=size)
    if length and top_k and seed % 5 == 0:
        steps.top_logprobs[-1, -1] = rng.choice([np.nan, -np.inf])
    place = np.arange(length)
    return Generation(
        prompt=None,
        text="x" * length,
        steps=steps,
        offsets=np.stack([place, place + 1], axis=1),
        finish_reason="stop",
        stop_step=None,
        prompt_tokens=None,
        sampling=None,
        model=ModelIdentity("m", None, "stored", steps.vocab_size, None),
        logprobs_mode="raw",
        vocabulary=RecordedTexts({}),
        duration_s=None,
    )


def chat(words, logprobs):
    content = [
        {
            "token": w,
            "logprob": p,
            "top_logprobs": [{"token": w, "logprob": p}, {"token": "~", "logprob": -6.0}],
        }
        for w, p in zip(words, logprobs, strict=True)
    ]
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "logprobs": {"content": content}, "finish_reason": "length"}
    return {"model": "m", "choices": [choice]}


def same(a, b):
    return np.float64(a).tobytes() == np.float64(b).tobytes() or (np.isnan(a) and np.isnan(b))


def assert_tables_agree(path, config):
    """Every number and verdict of the table is that of the analysis of the record."""
    one_by_one = list(analyze_stored(path, config))
    place = 0
    for table in summarise_stored(path, config):
        for row, verdict in enumerate(table.verdicts):
            analysis = one_by_one[place]
            place += 1
            assert (table.number[row], table.keys[row]) == (analysis.number, analysis.key)
            if not isinstance(analysis.outcome, TrajectoryAnalysis):
                assert verdict is None
                assert table.errors[row].message == analysis.outcome.message
                continue
            assert verdict == analysis.outcome.verdict
            for name in NAMES:
                value = getattr(analysis.outcome.signals, name)
                assert same(value, table.signals[name][row]), name
    assert place == len(one_by_one)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 60), st.integers(0, 21), st.booleans()), max_size=20
    ),
    st.sampled_from([None, 3.0, 50.0]),
    st.sampled_from([None, 1.0, 2.5]),
    st.sampled_from([None, 10.0]),
)
def test_the_quick_way_gives_the_bits_and_verdicts_of_the_slow_one(
    tmp_path, shapes, perplexity, entropy, surprise
):
    """A decision about millions of answers must be the one that each answer by itself would get."""
    with GenerationWriter(tmp_path / "a.parquet", group_tokens=100) as writer:
        for place, shape in enumerate(shapes):
            writer.write(generation(*shape), key=f"k{place}")
    config = TrajectoryConfig(
        perplexity_threshold=perplexity, entropy_threshold=entropy, surprise_threshold=surprise
    )
    assert_tables_agree(tmp_path / "a.parquet", config)


def test_a_file_of_responses_has_the_same_summary_one_by_one_and_at_once(tmp_path):
    """Errors stay in their places, and their rows have no numbers."""
    lines = [chat(["a", " b"], [-0.1, -0.2]), {"x": 1}, chat(["c"], [-3.0]), chat([], [])]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{")
    assert_tables_agree(path, TrajectoryConfig())
    (table,) = summarise_stored(path)
    assert sorted(table.errors) == [1, 4]
    assert np.isnan(table.signals["perplexity"][1])


def test_probabilities_that_sum_to_more_than_1_are_refused_the_quick_way_too(tmp_path):
    """The quick way must not give an entropy of what is no distribution."""
    good, bad = generation(1), generation(2)
    bad.steps.top_logprobs[3] = np.log([0.9, 0.5, 0.1, 0.1])
    with GenerationWriter(tmp_path / "a.parquet") as writer:
        for g in (good, bad, good):
            writer.write(g)
    (table,) = summarise_stored(tmp_path / "a.parquet")
    assert {place: error.message for place, error in table.errors.items()} == {
        1: "the probabilities of one step sum to more than 1"
    }
    assert_tables_agree(tmp_path / "a.parquet", TrajectoryConfig())


@given(
    st.lists(st.tuples(*[st.sampled_from([0.5, 1.0, 1.5, np.nan, np.inf])] * 6), min_size=1, max_size=8),
    st.tuples(*[st.sampled_from([None, 1.0])] * 4),
)
def test_verdicts_of_columns_are_those_of_the_gate(rows, limits):
    """The rules must not differ between one answer and many."""
    from cert.signals import TokenSteps, step_signals
    from cert.trajectory.gate import decide

    fields = (
        "mean_token_perplexity", "max_entropy_lower", "max_entropy_upper", "max_top_k_entropy",
        "final_surprise", "perplexity",
    )  # fmt: skip
    columns = {name: np.full(len(rows), np.nan) for name in NAMES}
    columns["n_tokens"] = np.zeros(len(rows), dtype=np.int64)
    for name, values in zip(fields, zip(*rows, strict=True), strict=True):
        columns[name] = np.array(values)
    thresholds = Thresholds(*limits)
    step = step_signals(TokenSteps.empty(1, None))
    for row, place in enumerate(verdicts(columns, thresholds).tolist()):
        signals = GenerationSignals(**{name: columns[name][row].item() for name in NAMES})
        expected = decide(step, signals, thresholds, tokens=[], profile="test").verdict
        assert VERDICTS[place] == expected


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_written_summary_has_what_was_measured_and_null_for_what_was_not(tmp_path, kind):
    """In a table, 0 or an empty cell would be taken for a measurement."""
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps(chat(["a", " b"], [-0.1, -0.2])) + '\n{"x": 1}\n')
    target = tmp_path / f"out.{kind}"
    assert write_summaries(summarise_stored(source), target) == 2
    if kind == "parquet":
        first, second = pq.read_table(target).to_pylist()
        assert second["error"] == "input"
    else:
        first, second = (json.loads(line) for line in target.read_text().splitlines())
        assert second["error"]["code"] == "input"
    (analysis, _) = analyze_stored(source)
    assert isinstance(analysis.outcome, TrajectoryAnalysis)
    assert first["mean_surprisal"] == analysis.outcome.signals.mean_surprisal
    assert (first["verdict"], first["n_tokens"], first["mean_self_certainty"]) == ("undecided", 2, None)
    assert (second["verdict"], second["n_tokens"], second["perplexity"]) == (None, None, None)


def test_a_summary_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    """A run that breaks off must not destroy the result of the one before."""
    target = tmp_path / "out.jsonl"
    target.write_text("old")

    def tables():
        yield from summarise_stored(source)
        raise OutputError("no more")

    source = tmp_path / "a.jsonl"
    source.write_text('{"x": 1}\n')
    with pytest.raises(OutputError):
        write_summaries(tables(), target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.jsonl"]


def test_a_journal_can_be_summarised(tmp_path):
    """What a batch has written is a stored file like any other."""
    with RecordWriter(tmp_path / "j.jsonl") as journal:
        journal.write("a", analyze_generation(generation(1), TrajectoryConfig()))
        journal.write("b", InputError("no"))
    (table,) = summarise_stored(tmp_path / "j.jsonl")
    assert table.keys == ["a", "b"]
    expected = analyze_generation(generation(1), TrajectoryConfig())
    assert table.signals["perplexity"][0] == expected.signals.perplexity
    assert table.verdicts == [expected.verdict, None]


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A log of any size must be analysed on a small machine."""
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    line = json.dumps(chat([f" w{i}" for i in range(200)], [-0.1] * 200)) + "\n"
    small.write_text(line * 100)
    large.write_text(line * 1500)
    program = (
        "import sys\n"
        "from cert.trajectory.stored import summarise_stored\n"
        "count = sum(len(table) for table in summarise_stored(sys.argv[1]))\n"
        "status = open('/proc/self/status').read().splitlines()\n"
        "print(count, next(line.split()[1] for line in status if line.startswith('VmHWM')))\n"
    )
    used = {}
    for path in (small, large):
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
        )
        count, used[path.stem] = map(int, done.stdout.split())
        assert count == (100 if path is small else 1500)
    assert large.stat().st_size - small.stat().st_size > 25_000_000
    assert used["large"] - used["small"] < 12_000  # kilobytes
