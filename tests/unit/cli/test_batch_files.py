"""The files of a batch: any input is read an item at a time, and no record that was kept is lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.cli.batch_done import ItemKey, KeySet, read_done, repair
from cert.cli.batch_file import RecordFile
from cert.cli.batch_items import check_input, count_items, prompts_of
from cert.cli.batch_parquet import lines_of_table, write_table
from cert.cli.batch_run import Counts, missing
from cert.cli.batch_target import Target
from cert.core.errors import DependencyMissingError, InputError, OutputError

KEY = st.integers(0, 2**64 - 1)


def items(path: Path):
    check_input(path)
    found = list(prompts_of(path))
    assert count_items(path) == len(found)
    return found


def record(line: int, **outcome: object) -> dict[str, object]:
    key = ItemKey(line, line * 7)
    told = {"id": None, "key": None, "line": line, "digest": str(key)}
    return told | (outcome or {"analysis": {"verdict": "pass"}})


# --- the input ---


def test_a_text_file_has_a_prompt_a_line_whatever_its_line_ends(tmp_path):
    """Files from Windows, and from editors that leave a mark, ask what they show."""
    file = tmp_path / "in.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\n  \ntwo words \nthree")
    assert [(item.line, item.prompt) for item in items(file)] == [(1, "one"), (4, "two words "), (5, "three")]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"prompt": st.text(min_size=1)},
            optional={"id": st.text() | st.integers(), "seed": st.integers(0, 9), "top_p": st.floats(0.1, 1)},
        ),
        max_size=5,
    )
)
def test_what_lines_of_json_say_is_read(tmp_path_factory, entries):
    """Any text in any script, line ends within a prompt included, is asked as it stands."""
    file = tmp_path_factory.mktemp("in") / "in.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)) or "\n", encoding="utf-8")
    if not entries:
        with pytest.raises(InputError, match="empty"):
            check_input(file)
        return
    for item, entry in zip(items(file), entries, strict=True):
        assert item.error is None
        assert (item.prompt, item.id) == (entry["prompt"], entry.get("id"))
        assert item.options == {name: entry[name] for name in ("seed", "top_p") if name in entry}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("7", "neither a JSON object nor"),
        ('{"id": "a"}', "just one"),
        ('{"prompt": "a", "messages": []}', "just one"),
        ('{"prompt": 7}', "prompt"),
        ('{"prompt": "a", "temperature": "hot"}', "temperature"),
        ('{"prompt": "a", "seed": true}', "seed"),
        ('{"prompt": "a", "max_tokens": 5}', "max_tokens"),
        ('{"prompt": "a", "Temperature": 1}', "Temperature"),
        ('{"prompt": "a", "top_k": 5}', "top_k"),
        ('{"prompt": "a", "stop": ["x"]}', "stop"),
        ('{"messages": [{"role": "user"}]}', "content"),
        ("[" * 100_000, "not JSON"),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_wrong_line_is_one_error_and_the_others_are_read(tmp_path, line, says):
    """One broken line of millions, or an option that would be left out in silence, is told in its place."""
    file = tmp_path / "in.jsonl"
    file.write_bytes(
        b'"before"\n' + line.encode("latin-1") + b'\n{"prompt": "after", "category": "my own"}\n'
    )
    before, wrong, after = items(file)
    assert (before.prompt, after.prompt) == ("before", "after")
    assert wrong.line == 2
    assert wrong.prompt is None
    with pytest.raises(InputError, match=says):
        raise wrong.error


def test_a_wrong_line_keeps_its_id(tmp_path):
    """Whoever joins results by id finds the error of an item under it."""
    file = tmp_path / "in.jsonl"
    file.write_text('{"id": "a", "prompt": 7}\n')
    assert items(file)[0].id == "a"


def test_a_huge_line_is_passed_over_in_bounded_memory(tmp_path, monkeypatch):
    """A file that is one line of gigabytes must not be read into memory whole."""
    monkeypatch.setattr("cert.cli.batch_items._LONGEST_LINE", 100)
    file = tmp_path / "in.txt"
    file.write_text("a\n" + "x" * 1000 + "\nb\n" + "y" * 99 + "\n" + "z" * 100 + "\n" + "w" * 101)
    read = items(file)
    assert [item.line for item in read if item.error is not None] == [2, 5, 6]
    assert [item.prompt for item in read if item.error is None] == ["a", "b", "y" * 99]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.txt", b""),
        ("in.jsonl", b" \n\n"),
        ("in.jsonl", b"\x7fELF\x02\x01\0\0\0"),
        ("in.txt", "text".encode("utf-16")),
        ("in.csv", b"prompt\na\n"),
        ("in", b"a"),
        ("in.parquet", b"PAR1 is not enough"),
    ],
)
def test_a_file_that_is_no_batch_is_refused_whole(tmp_path, name, content):
    """Thousands of error records from one wrong file name would bury the reason."""
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError):
        check_input(file)


def test_a_folder_is_no_batch(tmp_path):
    """A folder by a file's name is told as such."""
    (tmp_path / "in.jsonl").mkdir()
    with pytest.raises(InputError, match="folder"):
        check_input(tmp_path / "in.jsonl")


def test_parquet_rows_are_items(tmp_path):
    """Tables have missing values as null or NaN, and columns of their owner's."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    messages = [{"role": "user", "content": "hello"}]
    rows = {
        "prompt": ["one", None, None, "four"],
        "messages": [None, messages, None, None],
        "id": [1, 2, 3, 4],
        "temperature": [float("nan"), 0.5, None, 9.0],
        "answer": ["w", "x", "y", "z"],
    }
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    one, two, three, four = items(tmp_path / "in.parquet")
    assert (one.prompt, one.id, one.options) == ("one", 1, {})
    assert (two.prompt, two.options) == (messages, {"temperature": 0.5})
    assert three.error is not None
    assert four.options == {"temperature": 9.0}
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="no column 'prompt'"):
        check_input(tmp_path / "none.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "max_tokens": [1]}), tmp_path / "wrong.parquet")
    with pytest.raises(InputError, match="max_tokens"):
        check_input(tmp_path / "wrong.parquet")


def test_without_pyarrow_parquet_names_the_extra(tmp_path, monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "in.parquet").write_bytes(b"PAR1")
    with pytest.raises(DependencyMissingError) as failed:
        check_input(tmp_path / "in.parquet")
    assert "cert-framework[parquet]" in (failed.value.hint or "")


# --- what is done ---


@given(st.lists(KEY))
def test_a_set_of_keys_tells_what_was_there(keys):
    """An item that is taken for another's double would never be answered."""
    import cert.cli.batch_done as module

    before, module._MERGE = module._MERGE, 3
    try:
        found, seen = KeySet(), set()
        for key in keys:
            assert found.add(key) == (key not in seen)
            seen.add(key)
    finally:
        module._MERGE = before


@given(st.integers(0, 12), st.integers(0, 400))
def test_a_cut_at_any_byte_loses_the_last_record_at_most(tmp_path_factory, count, cut):
    """A kill while a record is written leaves half a line: it goes, and every other record stays."""
    path = tmp_path_factory.mktemp("out") / "out.jsonl"
    lines = [json.dumps(record(line)).encode() + b"\n" for line in range(1, count + 1)]
    whole = b"".join(lines)
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = path.read_bytes().count(b"\n")
    repair(path)
    assert path.read_bytes() == b"".join(lines[:kept])
    assert len(read_done(path)) == kept


def test_a_long_half_line_is_cut_off(tmp_path, monkeypatch):
    """A record of many tokens is longer than what is looked at in one go."""
    monkeypatch.setattr("cert.cli.batch_done._MERGE", 4)
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"whole\n" + b"x" * 50)
    repair(path)
    assert path.read_bytes() == b"whole\n"
    path.write_bytes(b"x" * 50)
    repair(path)
    assert path.read_bytes() == b""


def test_errors_that_may_pass_are_not_done(tmp_path):
    """A server that was busy yesterday is asked again; a prompt that is too long is not."""
    path = tmp_path / "out.jsonl"
    records = [
        record(1),
        record(2, error={"retryable": True}),
        record(3, error={"retryable": False}),
        record(4, analysis={"verdict": "fail"}),
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in records))
    done = read_done(path)
    assert [done.has(ItemKey(line, line * 7), line) for line in (1, 2, 3, 4, 5)] == [
        *(True, False, True, True),
        False,
    ]
    assert (done.errors, done.verdicts) == (1, Counter({"pass": 1, "fail": 1}))
    again = read_done(path, retry_errors=True)
    assert not again.has(ItemKey(3, 21), 3)
    assert again.errors == 0


def test_an_output_of_another_input_is_refused(tmp_path):
    """Answers to other questions must not be taken for those to these."""
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(record(1)) + "\n")
    with pytest.raises(InputError, match="another input"):
        read_done(path).has(ItemKey(1, 8), 1)


@pytest.mark.parametrize("line", ["{}", "text", '{"digest": "xyz"}', '{"digest": 7}'])
def test_a_file_of_something_else_is_no_output(tmp_path, line):
    """A user's own file that is named as the output stays as it is."""
    path = tmp_path / "out.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="no record"):
        read_done(path)


def test_items_are_known_by_their_id_wherever_they_stand(tmp_path):
    """A line that is put in at the top must not have every item done again."""
    first, second, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "out.jsonl"
    lines = ['{"id": "x", "prompt": "a"}', '{"id": 7, "prompt": "b"}']
    first.write_text("\n".join(lines))
    second.write_text("\n".join(['{"id": "new", "prompt": "c"}', *reversed(lines)]))
    out.touch()
    keys = [named.key for named, _ in missing(prompts_of(first), read_done(out), Counts())]
    out.write_text(
        "".join(json.dumps({"digest": str(key), "analysis": {"verdict": "pass"}}) + "\n" for key in keys)
    )
    counts = Counts()
    rest = list(missing(prompts_of(second), read_done(out), counts))
    assert [named.id for named, _ in rest] == ["new"]
    assert counts.met == 2


def test_a_second_item_of_the_same_id_is_an_error_also_when_resumed(tmp_path):
    """Two answers under one name could not be told apart; the first keeps it, in every run."""
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "a"}\n')
    out.touch()
    (one, _), (two, wrong) = missing(prompts_of(file), read_done(out), Counts())
    assert wrong.error is not None
    outcomes = (record(1), record(2, error={"retryable": False}))
    lines = [
        outcome | {"digest": str(named.key)} for named, outcome in zip((one, two), outcomes, strict=True)
    ]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not list(missing(prompts_of(file), read_done(out), Counts()))


# --- the output ---


def test_two_processes_cannot_write_one_output(tmp_path):
    """Two runs side by side would answer every item twice."""
    first = RecordFile(tmp_path / "out.jsonl")
    with pytest.raises(OutputError, match="another process"):
        RecordFile(tmp_path / "out.jsonl")
    first.add({"a": 1})
    first.close()
    RecordFile(tmp_path / "out.jsonl").close()
    assert (tmp_path / "out.jsonl").read_text() == '{"a":1}\n'


def test_a_run_that_came_to_nothing_leaves_no_file(tmp_path):
    """An empty output would look like a batch without items."""
    RecordFile(tmp_path / "out.jsonl").close()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.parquet"


def test_a_table_goes_on_where_it_ended(out):
    """A finished Parquet file takes more items later, and keeps those that it has to the last bit."""
    pytest.importorskip("pyarrow")
    records = [
        record(1, analysis={"verdict": "pass", "generated_text": "a\x00é", "signals": {"n_tokens": 2}}),
        record(2, error={"retryable": False, "code": "input", "message": "no"}),
    ]
    with Target(out, {"a": 1}) as target:
        target.begin({})
        for entry in records:
            target.add(entry)
        target.finish()
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.parquet", "out.parquet.meta.json"]
    assert [json.loads(line) for line in lines_of_table(out)] == records
    with Target(out, {"a": 1}) as target:
        assert len(target.done) == 2
        target.begin({})
        target.add(record(3))
    assert (out.parent / "out.parquet.part.jsonl").exists()  # not finished
    with Target(out, {"a": 1}) as target:
        assert len(target.done) == 3
        target.begin({})
        target.finish()
    assert [json.loads(line)["line"] for line in lines_of_table(out)] == [1, 2, 3]


def test_the_columns_of_a_table_are_what_is_asked_for_most(tmp_path):
    """A table is filtered by verdict and signals without taking JSON apart; what is not measured is null."""
    pq = pytest.importorskip("pyarrow.parquet")
    lines, table = tmp_path / "lines", tmp_path / "t.parquet"
    analysis = {
        "verdict": "fail",
        "generated_text": "x",
        "finish_reason": "stop",
        "signals": {"n_tokens": 1, "max_entropy_lower": None, "mean_token_perplexity": "Infinity"},
    }
    lines.write_text(json.dumps(record(1, analysis=analysis)) + "\n")
    write_table(lines, table)
    (row,) = pq.read_table(table).to_pylist()
    assert (row["verdict"], row["n_tokens"], row["max_entropy_lower"]) == ("fail", 1, None)
    assert row["mean_token_perplexity"] == float("inf")
    assert row["error_code"] is None


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_other_settings_are_refused_and_named(tmp_path, name):
    """Answers of two configs in one file would be compared as if they were of one."""
    path = tmp_path / name
    with Target(path, {"config": {"temperature": 0.0}}) as target:
        target.begin({"name": "m"})
        target.add(record(1))
        target.finish()
    content = path.read_bytes()
    with (
        pytest.raises(InputError, match=r"config.temperature was 0.0 and is 0.5"),
        Target(path, {"config": {"temperature": 0.5}}),
    ):
        pass
    with (
        Target(path, {"config": {"temperature": 0.0}}) as target,
        pytest.raises(InputError, match="name was"),
    ):
        target.begin({"name": "other"})
    assert path.read_bytes() == content
    with Target(path, {"config": {"temperature": 0.5}}, overwrite=True) as target:
        assert not len(target.done)
        target.begin({"name": "m"})
        target.add(record(2))
        target.finish()
    with Target(path, {"config": {"temperature": 0.5}}) as target:
        assert target.done.has(ItemKey(2, 14), 2)
        assert not target.done.has(ItemKey(1, 7), 1)


def test_overwriting_forgets_nothing_before_the_model_is_ready(tmp_path):
    """A model that cannot be loaded must not cost the answers that were there."""
    path = tmp_path / "out.jsonl"
    path.write_text("precious\n")
    with Target(path, {}, overwrite=True):
        pass
    assert path.read_text() == "precious\n"


def test_a_file_that_is_not_ours_is_left_alone(tmp_path):
    """A user's own data under the name of the output."""
    for name in ("out.jsonl", "out.parquet"):
        path = tmp_path / name
        path.write_text("precious\n")
        with pytest.raises(InputError, match="tells how it was made"), Target(path, {}):
            pass
        assert path.read_text() == "precious\n"
