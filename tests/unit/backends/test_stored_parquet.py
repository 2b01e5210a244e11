"""Parquet files: what is written comes back bit for bit, and a hostile file is errors, not a crash."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cert.backends import Generation, Message, ModelIdentity, Sampling
from cert.backends.stored import StoredOptions, read_stored
from cert.backends.stored.own_analyses import RecordedTexts
from cert.backends.stored.parquet_schema import SCHEMA
from cert.backends.stored.parquet_write import GenerationWriter
from cert.core.errors import InputError, OutputError
from cert.signals import TokenSteps, reduce_logits

COLUMNS = ("token_ids", "logprob", "top_ids", "top_logprobs", "entropy", "self_certainty")


def generation(seed=0, length=6, top_k=4, full=True, **changes):
    rng = np.random.default_rng(seed)
    steps = reduce_logits(rng.normal(size=(length, 12)) * 3, rng.integers(0, 12, size=length), top_k)
    if not full:
        nothing = np.full(length, np.nan)
        steps = dataclasses.replace(steps, entropy=nothing, self_certainty=nothing, vocab_size=None)
    place = np.arange(length)
    values = {
        "prompt": "Say:",
        "text": "é" * length,
        "steps": steps,
        "offsets": np.stack([place, place + 1], axis=1),
        "finish_reason": "stop",
        "stop_step": steps[:1] if length else None,
        "prompt_tokens": 3,
        "sampling": Sampling(0.7, 0.9, 40, 11),
        "model": ModelIdentity("m", "r1", "transformers", steps.vocab_size, 2048, "cpu", "float32"),
        "logprobs_mode": "raw",
        "vocabulary": RecordedTexts({i: f"<{i}>" for i in range(12)}),
        "duration_s": 0.125,
    }
    return Generation(**(values | changes))


def write(path, *generations, **options):
    with GenerationWriter(path, **options) as writer:
        for place, g in enumerate(generations):
            writer.write(g, key=f"k{place}")
    return path


def assert_same_steps(a: TokenSteps, b: TokenSteps):
    for name in COLUMNS:
        left, right = getattr(a, name), getattr(b, name)
        np.testing.assert_array_equal(np.isnan(left), np.isnan(right), err_msg=name)
        assert np.nan_to_num(left).tobytes() == np.nan_to_num(right).tobytes(), name
        assert left.dtype == right.dtype, name
    assert a.vocab_size == b.vocab_size


def assert_same(a: Generation, b: Generation):
    assert_same_steps(a.steps, b.steps)
    assert (a.stop_step is None) == (b.stop_step is None)
    if a.stop_step is not None and b.stop_step is not None:
        assert_same_steps(a.stop_step, b.stop_step)
    np.testing.assert_array_equal(a.offsets, b.offsets)
    for field in dataclasses.fields(Generation):
        if field.name not in ("steps", "stop_step", "offsets", "vocabulary"):
            assert getattr(a, field.name) == getattr(b, field.name), field.name
    ids = set(a.steps.token_ids.tolist()) | set(a.steps.top_ids.ravel().tolist())
    assert [a.vocabulary.text(i) for i in ids] == [b.vocabulary.text(i) for i in ids]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 9), st.integers(0, 6), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 20),
)
def test_generations_come_back_bit_for_bit(tmp_path, shapes, group_tokens):
    """A verdict that is checked years later must be checked on the very numbers it was given on."""
    wanted = [generation(*shape) for shape in shapes]
    items = list(read_stored(write(tmp_path / "a.parquet", *wanted, group_tokens=group_tokens)))
    assert [item.number for item in items] == list(range(1, len(wanted) + 1))
    assert [item.key for item in items] == [f"k{place}" for place in range(len(wanted))]
    for before, item in zip(wanted, items, strict=True):
        assert_same(before, item.unwrap())


def test_what_is_unknown_stays_unknown(tmp_path):
    """A missing prompt, setting or time must not come back as an empty or a zero one."""
    unknown = generation(
        full=False, prompt=None, prompt_tokens=None, sampling=None, duration_s=None, stop_step=None,
        token_ids_known=False, logprobs_mode="unknown", finish_reason="unknown",
    )  # fmt: skip
    chat = generation(prompt=(Message("system", ""), Message("user", "Hi")), sampling=Sampling())
    first, second = read_stored(write(tmp_path / "a.parquet", unknown, chat))
    assert_same(unknown, first.unwrap())
    assert_same(chat, second.unwrap())


def test_odd_numbers_come_back_as_they_are(tmp_path):
    """NaN is not measured and −inf is impossible: neither may turn into the other, or into a number."""
    g = generation(full=False)
    g.steps.top_logprobs[0, 2:] = np.nan
    g.steps.top_ids[0, 2:] = -1
    g.steps.top_logprobs[1, 1:] = -np.inf
    g.steps.logprob[2] = np.nan
    g.steps.logprob[3] = -0.0
    (item,) = read_stored(write(tmp_path / "a.parquet", g))
    assert_same(g, item.unwrap())


def test_floats_of_32_bits_and_lists_of_64_are_read(tmp_path):
    """Other programs write other widths, which lose nothing when they are read."""
    table = pq.read_table(write(tmp_path / "a.parquet", generation(full=False)))
    wide = table.select(["text", "token_ids", "logprob", "top_k", "top_ids", "top_logprobs"])
    logprob = wide["logprob"].cast(pa.large_list(pa.float32()))
    wide = wide.set_column(2, "logprob", logprob).replace_schema_metadata(None)
    ids = wide["token_ids"].cast(pa.list_(pa.int64()))
    pq.write_table(wide.set_column(1, "token_ids", ids), tmp_path / "b.parquet")
    g = next(read_stored(tmp_path / "b.parquet")).unwrap()
    expected = np.float32(generation(full=False).steps.logprob).astype(np.float64)
    np.testing.assert_array_equal(g.steps.logprob, expected)
    assert (g.finish_reason, g.prompt, g.model.name) == ("unknown", None, "unknown")


def rows(**changes):
    """Three good rows; of the middle one some columns are changed."""
    table = [
        {
            "text": "ab", "finish_reason": "stop", "vocab_size": 9,
            "token_ids": [1, 2], "logprob": [-0.5, -0.6],
            "top_k": 2, "top_ids": [1, 3, 2, 4], "top_logprobs": [-0.5, -2.0, -0.6, -1.5],
            "entropy": [0.5, 0.6], "self_certainty": None, "start": [0, 1], "end": [1, 2],
        }
        for _ in range(3)
    ]  # fmt: skip
    table[1] |= changes
    return table


def loose_schema(types=None):
    """The columns of our files, all of which may be null."""
    named = {field.name: field for field in SCHEMA}
    fields = []
    for name in rows()[0]:
        kind = named[name].type
        if pa.types.is_list(kind):
            kind = pa.list_(kind.value_type)
        fields.append(pa.field(name, (types or {}).get(name, kind)))
    return pa.schema(fields)


BAD_ROWS = [
    ({"logprob": None}, "logprob is missing"),
    ({"top_k": None}, "top_k is missing"),
    ({"top_k": -1}, "top_k is missing or negative"),
    ({"top_k": 3}, "top_ids has not the length"),
    ({"top_k": 2**31 - 1}, "top_ids has not the length"),
    ({"token_ids": None}, "token_ids has not the length"),
    ({"token_ids": [1]}, "token_ids has not the length"),
    ({"token_ids": [1, None]}, "token_ids has a null"),
    ({"token_ids": [1, -5]}, "a negative id"),
    ({"top_ids": [1, 3, 2]}, "top_ids has not the length"),
    ({"top_logprobs": [-0.5, -2.0]}, "top_logprobs has not the length"),
    ({"top_logprobs": [-0.5, -2.0, -1.5, -0.6]}, "descending order"),
    ({"logprob": [-0.5, 0.5]}, "above 0"),
    ({"top_logprobs": [1.5, -2.0, -0.6, -1.5]}, "above 0"),
    ({"top_logprobs": [-0.1, -0.2, -0.6, -1.5]}, "sum to more than 1"),
    ({"entropy": [0.5]}, "entropy has not the length"),
    ({"entropy": [0.5, 99.0]}, "entropy is outside its range"),
    ({"entropy": [-5.0, 0.5]}, "entropy is outside its range"),
    ({"self_certainty": [-1.0, 0.5]}, "self-certainty is negative"),
    ({"vocab_size": 0}, "vocab_size is not positive"),
    ({"text": None}, "no text"),
    ({"start": [0, None]}, "start or end"),
    ({"end": None}, "start or end"),
    ({"end": [1, 7]}, "outside the text"),
    ({"start": [-1, 1]}, "outside the text"),
    ({"finish_reason": "bored"}, "unknown finish_reason"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_a_bad_row_is_its_own_error_and_the_rest_is_read(tmp_path, changes, reason):
    """One row that no model can have given must neither crash a run nor give numbers."""
    pq.write_table(pa.Table.from_pylist(rows(**changes), loose_schema()), tmp_path / "a.parquet")
    before, bad, after = read_stored(tmp_path / "a.parquet")
    assert isinstance(bad.outcome, InputError)
    assert reason in bad.outcome.message
    assert bad.outcome.context["row"] == 2
    expected = np.array([-0.5, -0.6])
    np.testing.assert_array_equal(before.unwrap().steps.logprob, expected)
    np.testing.assert_array_equal(after.unwrap().steps.logprob, expected)


def test_a_null_among_the_numbers_is_not_measured(tmp_path):
    """It must not become 0, which would be a certain token."""
    pq.write_table(pa.Table.from_pylist(rows(logprob=[None, -0.6]), loose_schema()), tmp_path / "a.parquet")
    steps = list(read_stored(tmp_path / "a.parquet"))[1].unwrap().steps
    assert np.isnan(steps.logprob).tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.drop_columns(["top_k"]), "no column 'top_k'"),
        (lambda t: t.set_column(0, "text", pa.array([1, 2, 3])), "column 'text' is int64"),
        (lambda t: t.set_column(5, "top_k", pa.array(["1", "2", "3"])), "column 'top_k' is string"),
        (lambda t: t.set_column(4, "logprob", pa.array([b"x"] * 3)), "column 'logprob' is binary"),
        (lambda t: t.append_column("top_k", t["top_k"]), "two columns 'top_k'"),
        (lambda t: t.append_column("vocabulary", pa.array([[1]] * 3)), "column 'vocabulary'"),
        (lambda t: t.replace_schema_metadata({"cert.generations": "2"}), "version 2"),
    ],
)
def test_a_file_of_another_form_is_refused_at_once(tmp_path, change, reason):
    """Columns of other types under our names would be misread from the first row to the last."""
    table = pa.Table.from_pylist(rows(), loose_schema())
    pq.write_table(change(table), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=reason):
        read_stored(tmp_path / "a.parquet")


def test_columns_that_are_not_ours_are_left_alone(tmp_path):
    """Users keep their own columns beside the generations."""
    table = pa.Table.from_pylist(rows(), loose_schema()).append_column("topic", pa.array(["a", "b", "c"]))
    pq.write_table(table, tmp_path / "a.parquet")
    assert len([item.unwrap() for item in read_stored(tmp_path / "a.parquet")]) == 3


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + b"\x00" * 100 + b"PAR1", b"PAR1 not at all"])
def test_what_only_begins_like_parquet_is_refused(tmp_path, content):
    """A broken copy must be named as such, not end in a traceback."""
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a Parquet file"):
        read_stored(tmp_path / "a.parquet")


def test_a_damaged_row_group_costs_no_other(tmp_path):
    """Of a file with one bad sector the rest is still analysed, and the rows that are lost are named."""
    path = write(tmp_path / "a.parquet", *[generation(seed) for seed in range(6)], group_tokens=12)
    described = pq.ParquetFile(path).metadata
    column = described.row_group(1).column([f.name for f in SCHEMA].index("logprob") + 1)
    start = min(described.row_group(1).column(i).data_page_offset for i in range(described.num_columns))
    data = bytearray(path.read_bytes())
    end = start + column.total_compressed_size
    data[start : end + 400] = b"\xff" * (end + 400 - start)
    path.write_bytes(bytes(data))
    items = list(read_stored(path))
    assert [item.number for item in items] == [1, 2, 3, 5, 6]
    assert "rows 3 to 4" in str(items[2].outcome)
    assert [isinstance(item.outcome, Generation) for item in items] == [True, True, False, True, True]


def test_a_row_group_that_unfolds_to_too_much_is_passed_over(tmp_path):
    """A file of kilobytes can hold a list of billions, which must not fill the memory."""
    path = write(tmp_path / "a.parquet", generation(length=50), generation(length=2), group_tokens=10)
    first, second = read_stored(path, options=StoredOptions(max_row_group_values=100))
    assert "too large" in str(first.outcome)
    assert isinstance(second.outcome, Generation)


def test_rows_of_several_forms_in_one_row_group(tmp_path):
    """K, the vocabulary and what is measured may change from row to row."""
    wanted = [generation(s, 3, 2 + s % 3, full=s % 2 == 0) for s in range(9)]
    for before, item in zip(wanted, read_stored(write(tmp_path / "a.parquet", *wanted)), strict=True):
        assert_same(before, item.unwrap())


def test_an_id_beyond_31_bits_is_refused_when_it_is_written(tmp_path):
    """It would come back as the id of another token."""
    steps = generation().steps
    big = dataclasses.replace(steps, token_ids=steps.token_ids + 2**31)
    with (
        GenerationWriter(tmp_path / "a.parquet") as writer,
        pytest.raises(InputError, match="31 bits"),
    ):
        writer.write(generation(steps=big))


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path):
    """Not after the work is done."""
    with pytest.raises(OutputError, match="cannot be written"):
        GenerationWriter(tmp_path / "no" / "a.parquet")


def test_the_table_of_a_batch_is_read_by_its_records(tmp_path):
    """What `cert batch` wrote as a table can be analysed again, with other thresholds."""
    table = pa.table({"id": ["a", "b"], "record": ['{"x": 1}', None]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = [(item.number, str(item.outcome)) for item in read_stored(tmp_path / "a.parquet")]
    assert [number for number, _ in found] == [1, 2]
    assert "no record that is known" in found[0][1]
