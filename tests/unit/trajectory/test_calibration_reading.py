"""Labelled answers read from files: what is not used is counted, and what would be wrong is refused."""

import hashlib
import json
import math
import struct
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.backends import Generation, ModelIdentity, Sampling
from cert.backends.stored import StoredOptions
from cert.backends.stored.own_analyses import RecordedTexts
from cert.backends.stored.parquet_write import GenerationWriter
from cert.core.errors import ConfigurationError, InputError
from cert.signals import reduce_logits
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.calibration.label_file import Label, Labels, label_of, read_labels
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.calibration.reading import read_labelled
from cert.trajectory.calibration.records import read_answers
from cert.trajectory.stored import summarise_stored, write_summaries
from cert.trajectory.summaries import SIGNALS
from cert.trajectory.types import TrajectoryConfig


def generation(seed, prompt="default", text=None, length=5, **changes):
    rng = np.random.default_rng(seed)
    steps = reduce_logits(rng.normal(size=(length, 40)) * 3, rng.integers(0, 40, size=length), 4)
    place = np.arange(length)
    given: Any = {
        "prompt": f"What about {seed}?" if prompt == "default" else prompt,
        "text": f"a{seed:04}"[:length] if text is None else text,
        "steps": steps,
        "offsets": np.stack([place, place + 1], axis=1),
        "finish_reason": "stop",
        "stop_step": None,
        "prompt_tokens": 3,
        "sampling": Sampling(),
        "model": ModelIdentity("m", "r1", "transformers", 40, None),
        "logprobs_mode": "raw",
        "vocabulary": RecordedTexts({}),
        "duration_s": None,
    }
    return Generation(**(given | changes))


CONFIG = TrajectoryConfig(top_k=4)
MADE = Conditions(
    model="m",
    revision="r1",
    backend="transformers",
    sampling={"temperature": 0.0},
    logprobs_mode="raw",
    top_k=4,
    max_new_tokens=150,
    surprise_probability=0.1,
)


def analysis(seed, config=CONFIG, **changes):
    return analyze_generation(generation(seed, **changes), config)


def line(seed, label=True, *, config=CONFIG, extra=None, **changes):
    return analysis(seed, config, **changes).to_dict() | {"label": label} | (extra or {})


def record(key, seed, **members):
    return {"kind": "trajectory_record", "key": key, "analysis": analysis(seed).to_dict()} | members


def write(path, *lines):
    path.write_bytes(b"".join((x if isinstance(x, bytes) else json.dumps(x).encode()) + b"\n" for x in lines))
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "data.jsonl"


def bits(value):
    return struct.pack("<d", math.nan if math.isnan(value) else value)


def chat(words, logprobs, **more):
    content = [
        {
            "token": w,
            "logprob": p,
            "top_logprobs": [{"token": w, "logprob": p}, {"token": "~", "logprob": -6.0}],
        }
        for w, p in zip(words, logprobs, strict=True)
    ]
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "logprobs": {"content": content}, "finish_reason": "stop"}
    return {"model": "m", "choices": [choice]} | more


# --- what comes in ---


def test_the_signals_are_those_of_the_live_analysis_bit_for_bit(file):
    """A threshold that was found on other bits than the gate sees promises nothing at the edge."""
    write(file, *(line(seed, seed % 2 == 0, length=1 + seed % 7) for seed in range(20)))
    data = read_labelled(file)
    for place in range(20):
        live = analysis(place, length=1 + place % 7).signals
        for name in SIGNALS:
            assert bits(data.columns[name][place]) == bits(getattr(live, name))
    assert data.correct.tolist() == [seed % 2 == 0 for seed in range(20)]
    assert data.columns["n_tokens"].dtype == np.int64
    assert data.conditions == MADE
    assert data.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert data.dropped == {}


def test_what_was_not_measured_stays_so(file):
    """A NaN that turned into a number would be passed or flagged as if it were measured."""
    nothing = {"entropy": np.full(5, np.nan)}
    steps = generation(1).steps
    changed = type(steps)(**{f: nothing.get(f, getattr(steps, f)) for f in steps.__dataclass_fields__})
    write(file, line(1, steps=changed), line(2))
    data = read_labelled(file)
    live = analyze_generation(generation(1, steps=changed), CONFIG).signals
    assert data.columns["max_entropy_lower"].tolist()[0] == live.max_entropy_lower
    empty = write(file, line(3, length=0, text=""), line(4))
    columns = read_labelled(empty).columns
    assert math.isnan(columns["sequence_logprob"][0])
    assert columns["n_tokens"].tolist() == [0, 5]


def test_responses_are_measured_and_unknown_conditions_are_none(file):
    """Answers of a server carry labels too; "stored" is no backend that a live monitor could ever match."""
    lines = []
    for place in range(6):
        request = {"messages": [{"role": "user", "content": f"q{place}"}], "temperature": 0}
        response = chat(["a", "b"], [-0.1 * place, -0.5])
        lines.append({"custom_id": f"c{place}", "request": request, "response": response, "label": place % 2})
    data = read_labelled(write(file, *lines), given=Conditions(template="t", logprobs_mode="raw"))
    assert data.ids == tuple(f"c{place}" for place in range(6))
    assert data.columns["sequence_logprob"][1] == pytest.approx(-0.6)
    assert data.conditions == replace(
        MADE, revision=None, backend=None, template="t", top_k=2, max_new_tokens=None
    )


def test_own_analyses_and_responses_keep_their_rows_when_mixed(file):
    """A signal that slips to another answer's label is the worst of all errors here."""
    pair = {"key": "c", "request": {"prompt": "p", "temperature": 0}, "response": chat(["a"], [-0.25])}
    rows = [record("x", 1, label=1), pair | {"label": 0}, record("y", 2, label=1)]
    for row in rows:
        if "analysis" in row:
            row["analysis"]["model"] |= {"revision": None, "backend": "stored"}
            row["analysis"]["config"] |= {"top_k": 2}
            row["analysis"]["logprobs_mode"] = "unknown"
    rows[1]["request"] |= {"max_tokens": 150}
    data = read_labelled(write(file, *rows), given=Conditions(max_new_tokens=150))
    live = [analysis(1).signals.sequence_logprob, -0.25, analysis(2).signals.sequence_logprob]
    assert data.columns["sequence_logprob"].tolist() == live
    assert data.correct.tolist() == [True, False, True]


def test_summaries_and_tables_give_the_same_columns(tmp_path):
    """Whoever keeps 100,000 answers as Parquet or as signals alone gets the same threshold."""
    with GenerationWriter(tmp_path / "g.parquet") as writer:
        for seed in range(8):
            writer.write(generation(seed), key=f"k{seed}")
    table = pq.read_table(tmp_path / "g.parquet").append_column(
        "ok", pa.array([s % 2 == 0 for s in range(8)])
    )
    table = table.append_column("who", pa.array([f"u{s // 2}" for s in range(8)]))
    pq.write_table(table, tmp_path / "g.parquet")
    whole = read_labelled(tmp_path / "g.parquet", label="ok", unit="who")
    assert whole.ids == tuple(f"k{seed}" for seed in range(8))
    assert whole.n_units == 4
    labels = Labels({f"k{s}": Label(s % 2 == 0, unit=f"u{s // 2}") for s in range(8)})
    for name in ("s.jsonl", "s.parquet"):
        write_summaries(summarise_stored(tmp_path / "g.parquet"), tmp_path / name)
        brief = read_labelled(tmp_path / name, labels=labels)
        assert brief.ids == whole.ids
        assert brief.units.tolist() == whole.units.tolist()
        assert {n: c.tobytes() for n, c in brief.columns.items()} == {
            n: c.tobytes() for n, c in whole.columns.items()
        }
        assert any("copies" in told for told in brief.unchecked)
        assert brief.conditions == Conditions()


def test_a_table_of_cert_batch_is_read_by_its_records(tmp_path):
    """The output of a batch may be Parquet; the label may be a column beside the record, or within it."""
    records = [json.dumps(record(f"k{seed}", seed, label=seed % 2)) for seed in range(4)]
    table = pa.table({"record": records, "who": ["a", "a", "b", "b"]})
    pq.write_table(table, tmp_path / "b.parquet")
    data = read_labelled(tmp_path / "b.parquet", unit="who")
    assert data.correct.tolist() == [False, True, False, True]
    assert data.units.tolist() == [0, 0, 1, 1]


def test_units_groups_and_names_come_from_fields(file):
    """A unit that is read from the wrong place makes dependent answers look independent."""
    rows = [
        line(seed, extra={"meta": {"who": seed // 2, "topic": "x" if seed < 3 else "y"}, "n": f"id{seed}"})
        for seed in range(6)
    ]
    data = read_labelled(write(file, *rows), unit="meta.who", group="meta.topic", key="n")
    assert data.ids == tuple(f"id{seed}" for seed in range(6))
    assert data.units.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.groups is not None
    assert data.groups.tolist() == ["x"] * 3 + ["y"] * 3


def test_several_answers_of_one_record_are_one_unit(file):
    """Samples of one prompt are no independent evidence."""
    several = chat(["a"], [-0.5])
    several["choices"].append(chat(["b"], [-0.75])["choices"][0] | {"index": 1})
    data = read_labelled(write(file, {"key": "k", "response": several, "label": 1}))
    assert data.ids == ("k", "k#1")
    assert data.units.tolist() == [0, 0]


# --- labels ---


@pytest.mark.parametrize("value", [2, -1, 0.5, 1.0, "true", "yes", "1", [], {}, 10**30, "\x1b[31m"])
def test_a_label_that_is_none_is_an_error_with_its_line(file, value):
    """A score of 0.7 or a "yes" that counts as right, or as wrong, would be a label that nobody gave."""
    with pytest.raises(InputError, match="line 2") as error:
        read_labelled(write(file, line(1), line(2, value)))
    assert "\x1b" not in error.value.message


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_only_true_false_one_and_zero_are_labels(value):
    """`1 == True` and `1.0 == 1` in Python must let nothing else in."""
    is_label = value is None or isinstance(value, bool) or (type(value) is int and value in (0, 1))
    if is_label:
        assert label_of(value, "here") is (None if value is None else bool(value))
    else:
        with pytest.raises(InputError):
            label_of(value, "here")


def test_unlabelled_answers_are_counted_and_told(file):
    """Who labels 300 of 10,000 gets a promise of those; that they stand for all is theirs to make sure of."""
    data = read_labelled(write(file, line(1), line(2, None), line(3), line(4, None)))
    assert data.dropped == {"no label": 2}
    assert any("2 answers have no label" in told for told in data.unchecked)


def test_data_without_any_label_are_refused(file):
    """A misspelt field must not read as "nothing is labelled yet"."""
    with pytest.raises(InputError, match="'rihgt' is in none"):
        read_labelled(write(file, line(1), line(2)), label="rihgt")
    with pytest.raises(InputError, match="both 'label' and 'correct'"):
        read_labelled(write(file, line(1, extra={"correct": False})))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_labels_beside_the_data_are_joined_by_name(tmp_path, file, form):
    """Labels often come from a spreadsheet; the order there is not that of the answers."""
    write(file, *(record(f"k{seed}", seed) for seed in range(4)))
    labels = tmp_path / f"labels.{form}"
    if form == "csv":
        labels.write_text("\ufeffKey,Label,unit,group\r\nk2,TRUE,a,x\r\nk0,0,a,x\r\nk3,,b,y\r\nk1,1,b,y\r\n")
    else:
        rows = [("k2", True, "a", "x"), ("k0", 0, "a", "x"), ("k3", None, "b", "y"), ("k1", 1, "b", "y")]
        names = ("key", "label", "unit", "group")
        write(labels, *(dict(zip(names, row, strict=True)) for row in rows))
    data = read_labelled(file, labels=labels)
    assert dict(zip(data.ids, data.correct.tolist(), strict=True)) == {"k0": False, "k1": True, "k2": True}
    assert data.units.tolist() == [0, 1, 0]
    assert data.groups is not None
    assert data.groups.tolist() == ["x", "y", "x"]
    digests = [hashlib.sha256(f.read_bytes()).hexdigest() for f in (file, labels)]
    assert data.sha256 == hashlib.sha256(f"{digests[0]} {digests[1]}\n".encode()).hexdigest()


def test_labels_of_answers_that_are_not_there_are_refused(file):
    """Labels of another file, joined in part, would be a calibration on whatever happened to match."""
    write(file, record("k0", 0), record("k1", 1))
    with pytest.raises(InputError, match="2 labels of answers that the data do not have, such as 'q9'"):
        read_labelled(file, labels=Labels({"k0": Label(True), "q9": Label(True), "q8": Label(False)}))
    with pytest.raises(ConfigurationError):
        read_labelled(file, labels=Labels({}), label="label")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("key,label\na,1\na,1\n", "two labels of 'a': line 2"),
        ("key,label\na,0.5\n", "line 2"),
        ("key,label\na\n", "not as many columns"),
        ("key,label\na,1,2\n", "not as many columns"),
        ("a,b\n1,1\n", "no columns 'key' and 'label'"),
        ("key,label,label\na,1,0\n", "two columns of one name"),
        ('key,label\n"a,1\n', "CSV"),
        ("key,label\n" + "a" * 300 + ",1\n", "longer than"),
        ("key,label\n,1\n", "no 'key'"),
    ],
)
def test_a_labels_file_that_is_wrong_is_refused(tmp_path, text, told):
    """A label that lands on another answer, or counts twice, is worse than none."""
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_labels(path)


def test_a_unit_that_is_missing_is_refused(file):
    """An answer whose person is unknown cannot be put on one side of a split."""
    with pytest.raises(InputError, match="line 2 has no 'who'"):
        read_labelled(write(file, line(1, extra={"who": "a"}), line(2)), unit="who")
    write(file, record("k0", 0), record("k1", 1))
    with pytest.raises(InputError, match="some labels"):
        read_labelled(file, labels=Labels({"k0": Label(True, unit="a"), "k1": Label(True)}))


# --- what must agree ---


@pytest.mark.parametrize(
    ("changes", "name", "values"),
    [
        ({"model": ModelIdentity("m2", "r1", "transformers", 40, None)}, "model", ("'m'", "'m2'")),
        ({"model": ModelIdentity("m", "r2", "transformers", 40, None)}, "revision", ("'r1'", "'r2'")),
        ({"model": ModelIdentity("m", "r1", "vllm", 40, None)}, "backend", ("'transformers'", "'vllm'")),
        ({"sampling": Sampling(0.7, 0.9)}, "sampling", ("'temperature': 0.0", "'temperature': 0.7")),
        ({"logprobs_mode": "processed"}, "logprobs_mode", ("'raw'", "'processed'")),
        ({"config": TrajectoryConfig(top_k=3)}, "top_k", ("4", "3")),
        ({"config": TrajectoryConfig(top_k=4, max_new_tokens=9)}, "max_new_tokens", ("150", "9")),
        (
            {"config": TrajectoryConfig(top_k=4, surprise_probability_threshold=0.2)},
            "surprise_probability",
            ("0.1", "0.2"),
        ),
    ],
)
def test_answers_that_were_made_in_different_ways_are_refused(file, changes, name, values):
    """A promise about a mixture of two models holds for neither of them."""
    with pytest.raises(InputError, match=f"{name} is") as error:
        read_labelled(write(file, line(1), line(2), line(3, **changes)))
    assert all(value in error.value.message for value in values)
    assert "line 1" in error.value.message
    assert "line 3" in error.value.message


def test_greedy_answers_are_alike_whatever_plays_no_part(file):
    """Seeds differ from answer to answer, and top_p does nothing where the likeliest token is taken."""
    sampled = [line(s, sampling=Sampling(0.7, 0.9, None, seed=s)) for s in range(3)]
    assert read_labelled(write(file, *sampled)).conditions.sampling == {
        "temperature": 0.7, "top_p": 0.9, "top_k": None
    }  # fmt: skip
    read_labelled(write(file, line(1, sampling=Sampling(0.0, 0.9)), line(2, sampling=Sampling(seed=3))))


def test_what_is_stated_must_not_contradict_a_record(file):
    """Who states another model than the file has is about to certify the wrong one."""
    write(file, line(1), line(2))
    assert read_labelled(file, given=Conditions(template="abc")).conditions.template == "abc"
    with pytest.raises(InputError, match="model is stated as 'other', and line 1 records 'm'"):
        read_labelled(file, given=Conditions(model="other"))


def test_a_limit_that_a_call_was_given_shows_where_answers_end(file):
    """The record names the monitor's own limit; an answer cut at 5 tokens shows that the call had another."""
    cut = [line(1, finish_reason="length"), line(2, finish_reason="length")]
    assert read_labelled(write(file, *cut)).conditions.max_new_tokens == 5
    write(file, *cut, line(3))
    with pytest.raises(InputError, match="max_new_tokens"):
        read_labelled(file)
    assert read_labelled(file, given=Conditions(max_new_tokens=5)).conditions.max_new_tokens == 5
    with pytest.raises(InputError, match="max_new_tokens is stated as 6"):
        read_labelled(file, given=Conditions(max_new_tokens=6))


# --- what occurs twice ---


def test_the_same_name_twice_is_refused(file):
    """Of two records under one name, one may be an old one, and a label is of either."""
    with pytest.raises(InputError, match="two answers are called 'a': line 1 and line 3"):
        read_labelled(write(file, record("a", 1, label=1), record("b", 2, label=1), record("a", 3, label=1)))


def test_copies_over_units_are_refused_or_dropped(file):
    """A copy in the other half of a split makes the threshold look better than it is."""
    rows = [line(1, extra={"u": 1}), line(2, extra={"u": 2}), line(1, extra={"u": 3})]
    write(file, *rows)
    with pytest.raises(InputError, match="under two units: line 1 and line 3"):
        read_labelled(file, unit="u")
    data = read_labelled(file, unit="u", duplicates="drop")
    assert data.dropped == {"the same answer under another unit": 1}
    assert len(data) == 2


def test_draws_of_one_unit_are_kept(file):
    """Ten samples of a question that say the same are ten draws: without nine of them the rate is another."""
    data = read_labelled(write(file, *(line(1, extra={"u": 1}) for _ in range(10))), unit="u")
    assert len(data) == 10


@pytest.mark.parametrize("duplicates", ["refuse", "drop"])
def test_an_answer_that_is_right_and_wrong_is_refused(file, duplicates):
    """One of two contradicting labels is an error, and nobody but the user knows which."""
    with pytest.raises(InputError, match="right and wrong"):
        read_labelled(
            write(file, line(1, True, extra={"u": 1}), line(1, False, extra={"u": 1})),
            unit="u",
            duplicates=duplicates,
        )


def test_answers_without_a_prompt_are_no_copies(file):
    """A bare "Yes" is a frequent answer; without the question nobody can say that two of them are one."""
    data = read_labelled(write(file, line(1, prompt=None, text="Yes  "), line(2, prompt=None, text="Yes  ")))
    assert len(data) == 2
    assert any("2 answers have no prompt" in told for told in data.unchecked)


# --- what is broken ---


def test_broken_records_are_counted_and_refused_above_the_limit(file):
    """A file of which half cannot be read must not become a calibration on the other half."""
    failed = {"kind": "trajectory_record", "key": "f", "error": {"code": "generation_timeout"}}
    rows = [line(seed) for seed in range(18)]
    write(file, *rows[:9], failed, *rows[9:], b"{broken")
    with pytest.raises(InputError, match="2 of 20 records") as error:
        read_labelled(file)
    assert "the record is of a failure" in error.value.message
    assert read_labelled(file, most_broken=0.1).dropped == {
        "the record is of a failure": 1,
        "the line cannot be read": 1,
    }


def test_a_failure_that_was_tried_again_is_no_loss(file):
    """The next run of a batch adds the answer; the failure before it is history."""
    failed = {"kind": "trajectory_record", "key": "a", "error": {"code": "upstream_timeout"}}
    data = read_labelled(write(file, failed, record("a", 1, label=1)))
    assert data.ids == ("a",)
    assert data.dropped == {}


@pytest.mark.parametrize("reason", ["timeout", "cancelled", "early_stop"])
def test_an_answer_that_was_stopped_is_no_answer(file, reason):
    """Half an answer has half the surprise of a whole one, and a label of nothing."""
    data = read_labelled(write(file, line(1), line(2, finish_reason=reason)), most_broken=0.5)
    assert data.ids == ("line 1",)
    assert data.dropped == {f"the answer was stopped before its end ({reason})": 1}


HOSTILE = {
    "nothing": b"null",
    "half a character": b'{"kind": "\\ud800", "label": 1}',
    "a list": b"[1]",
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep label": json.dumps(line(9)).encode()[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "cut": json.dumps(line(9)).encode()[:500],
    "NaN": json.dumps(line(9))
    .encode()
    .replace(b'"sequence_logprob": ', b'"sequence_logprob": NaN, "x": ', 1),
    "beyond a double": json.dumps(line(9))
    .encode()
    .replace(b'"perplexity": ', b'"perplexity": 1e999, "x": ', 1),
    "no text": b"\xff\xfe{}",
    "negative length": json.dumps(line(9) | {"signals": {"n_tokens": -1}}).encode(),
    "no signals": json.dumps(line(9) | {"signals": None}).encode(),
    "words": json.dumps(
        line(9) | {"signals": analysis(9).to_dict()["signals"] | {"perplexity": "big"}}
    ).encode(),
    "another version": json.dumps(line(9) | {"schema_version": 2}).encode(),
    "a response without log-probabilities": b'{"choices": [{"message": {"content": "x"}}]}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_costs_itself_alone(file, name):
    """A line that ends the process, or is read as something it is not, would be a way to bend a promise."""
    data = read_labelled(write(file, line(1), HOSTILE[name], line(2)), most_broken=0.5)
    assert data.ids == ("line 1", "line 3")
    assert sum(data.dropped.values()) == 1
    assert all(len(reason) < 200 for reason in data.dropped)


def test_a_huge_line_is_passed_over(file):
    """A line of gigabytes must not be taken into memory."""
    write(file, line(1), b'{"x": "' + b"y" * 5_000_000 + b'"}', line(2))
    data = read_labelled(file, options=StoredOptions(max_line_bytes=1_000_000), most_broken=0.5)
    assert data.dropped == {"the line is longer than 1,000,000 bytes": 1}


def test_names_cannot_steer_a_terminal_or_fill_the_memory(file):
    """Names stand in messages, and are kept for every answer."""
    rows = [record("\x1b[2J\u202ea", 1, label=1), record("\x1b[2J\u202ea", 2, label=1)]
    with pytest.raises(InputError) as error:
        read_labelled(write(file, *rows))
    assert not set("\x1b\u202e") & set(error.value.message)
    with pytest.raises(InputError, match="longer than 200"):
        read_labelled(write(file, record("a" * 1000, 1, label=1)))
    with pytest.raises(InputError, match="empty or longer"):
        read_labelled(write(file, line(1, extra={"u": 10**300})), unit="u")


def test_a_file_that_changes_meanwhile_is_refused(file, monkeypatch):
    """The digest in the certificate would be of other data than the threshold."""
    write(file, line(1), line(2))

    def slow(path, **options):
        yield from read_answers(path, **options)
        with path.open("ab") as stream:
            stream.write(b"\n")

    monkeypatch.setattr("cert.trajectory.calibration.reading.read_answers", slow)
    with pytest.raises(InputError, match="changed while it was read"):
        read_labelled(file)


def test_what_is_no_file_is_refused(tmp_path):
    """A pipe would be empty the second time, and its digest that of nothing."""
    for path in (tmp_path, tmp_path / "none", "/dev/null"):
        with pytest.raises(InputError):
            read_labelled(path)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.booleans()), min_size=1, max_size=30))
def test_every_record_is_used_or_counted(tmp_path_factory, rows):
    """No silent loss: answers with and without labels add up to the records of the file."""
    path = tmp_path_factory.mktemp("all") / "data.jsonl"
    signals = analysis(1).to_dict()
    lines = []
    for place, (correct, unit, labelled) in enumerate(rows):
        own = signals | {"prompt": f"q{place}", "u": unit, "label": correct if labelled else None}
        lines.append(msgspec.json.encode(own))
    write(path, *lines)
    if not any(labelled for _, _, labelled in rows):
        with pytest.raises(InputError, match="has a label"):
            read_labelled(path, unit="u")
        return
    data = read_labelled(path, unit="u")
    assert len(data) + sum(data.dropped.values()) == len(rows)
    assert data.correct.tolist() == [correct for correct, _, labelled in rows if labelled]
    same = [unit for _, unit, labelled in rows if labelled]
    assert (np.equal.outer(data.units, data.units) == np.equal.outer(same, same)).all()
