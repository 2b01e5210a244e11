"""``cert batch`` as a user types it, on the reference model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from cert.backends.microbatch import MicroBatcher
from cert.core.errors import OverloadedError, UpstreamConnectionError

SHORT = ("--max-new-tokens", "3")


def write(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_line_gets_its_own_record_and_a_second_run_has_nothing_to_do(cert, tmp_path):
    """Answers, errors and ids stay together, and a rerun costs nothing and changes nothing."""
    source = write(
        tmp_path / "in.jsonl",
        {"id": "a", "prompt": "The birth city of"},
        {"id": "a", "prompt": "twice"},
        {"prompt": " "},
        "At which company",
        {"id": 4, "messages": [{"role": "user", "content": "Which field?"}], "max_new_tokens": 1},
    )
    out = tmp_path / "out.jsonl"
    code, summary, err = cert("batch", source, out, *SHORT, "--json")
    assert code == 1
    records = {record["line"]: record for record in read(out)}
    assert {line: record["id"] for line, record in records.items()} == {
        1: "a",
        2: "a",
        3: None,
        4: None,
        5: 4,
    }
    assert {line for line, record in records.items() if "error" in record} == {2, 3}
    assert records[4]["analysis"]["prompt"] == "At which company"
    assert len(records[5]["analysis"]["tokens"]["id"]) == 1
    told = json.loads(summary)
    assert (told["done"], told["done_before"], told["errors"]) == (5, 0, 2)
    assert sum(told["verdicts"].values()) == 3
    assert "first error of this run: line 2" in err
    before = out.read_bytes()
    code, summary, _ = cert("batch", source, out, *SHORT, "--json")
    assert code == 1
    assert json.loads(summary) == told | {"done_before": 5}
    assert out.read_bytes() == before


def test_a_batch_says_what_single_analyses_say(cert, tmp_path):
    """The numbers of an item do not depend on who else is in the file."""
    prompts = ["The birth city of", "At which company"]
    source = tmp_path / "in.txt"
    source.write_text("\n".join(prompts), encoding="utf-8")
    assert cert("batch", source, tmp_path / "out.jsonl", *SHORT)[0] == 0
    records = {record["line"]: record["analysis"] for record in read(tmp_path / "out.jsonl")}
    for line, prompt in enumerate(prompts, 1):
        single = json.loads(cert("analyze", prompt, *SHORT, "--json")[1])
        batched = records[line]
        assert batched["generated_text"] == single["generated_text"]
        assert batched["verdict"] == single["verdict"]
        assert batched["tokens"]["logprob"] == pytest.approx(single["tokens"]["logprob"], abs=1e-4)


def test_a_verdict_can_stop_a_pipeline(cert, tmp_path):
    """In CI a failed answer is a failed check only where that was asked for."""
    source = write(tmp_path / "in.jsonl", "The birth city of")
    arguments = ("batch", source, tmp_path / "out.jsonl", *SHORT, "--entropy-threshold", "0.01")
    assert cert(*arguments)[0] == 0
    assert cert(*arguments, "--fail-on-verdict", "undecided")[0] == 0
    code, out, _ = cert(*arguments, "--fail-on-verdict", "fail")
    assert code == 1
    assert "1 fail" in out


def test_the_options_of_a_run_are_those_of_the_output(cert, tmp_path):
    """A temperature that was changed in between must not give one file with answers of both."""
    source = write(tmp_path / "in.jsonl", "A")
    out = tmp_path / "out.jsonl"
    assert cert("batch", source, out, *SHORT)[0] == 0
    before = out.read_bytes()
    code, _, err = cert("batch", source, out, *SHORT, "--temperature", "0.5")
    assert code == 2
    assert "config.temperature was 0.0 and is 0.5" in " ".join(err.split())
    write(source, "B")
    code, _, err = cert("batch", source, out, *SHORT)
    assert code == 2
    assert "another input" in err
    assert out.read_bytes() == before
    assert cert("batch", source, out, *SHORT, "--overwrite")[0] == 0
    assert [record["analysis"]["prompt"] for record in read(out)] == ["B"]


def test_items_of_an_error_are_tried_again_if_asked(cert, tmp_path):
    """After a limit was raised, what failed on it is done and the rest is kept."""
    source = write(tmp_path / "in.jsonl", {"id": "x", "prompt": "A"}, {"prompt": "\ud800"})
    out = tmp_path / "out.jsonl"
    assert cert("batch", source, out, *SHORT)[0] == 1
    assert cert("batch", source, out, *SHORT)[0] == 1
    assert len(read(out)) == 2
    assert cert("batch", source, out, *SHORT, "--retry-errors")[0] == 1
    assert [record["line"] for record in read(out) if "error" in record] == [2, 2]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("in.jsonl", ["out.txt"], "must end in"),
        ("in.jsonl", ["in.jsonl"], "is the input"),
        ("in.jsonl", ["link.jsonl"], "is the input"),
        ("in.csv", ["out.jsonl"], "must end in"),
        ("no-such.jsonl", ["out.jsonl"], "no-such.jsonl"),
        ("folder.jsonl", ["out.jsonl"], "folder"),
        ("empty.jsonl", ["out.jsonl"], "empty"),
        ("in.jsonl", ["out.jsonl", "--top-p", "7"], "top_p"),
        ("in.jsonl", ["out.jsonl", "--fail-on-verdict", "pass"], "fail-on-verdict"),
        ("in.jsonl", [], "OUT"),
    ],
)
def test_bad_usage_is_exit_code_2_before_any_work(cert, tmp_path, monkeypatch, name, arguments, says):
    """A slip is told at once, with nothing written and the input as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cert.trajectory.HamiltonianMonitor.load", lambda *_: pytest.fail("loaded"))
    source = write(tmp_path / "in.jsonl", "A")
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "in.csv").write_text("A")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder.jsonl").mkdir()
    before = {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    code, out, err = cert("batch", name, *arguments)
    assert (code, out) == (2, "")
    assert says in " ".join(err.replace("│", " ").split())
    assert {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_output_that_cannot_be_written_is_exit_code_3_before_any_work(cert, tmp_path, monkeypatch):
    """A missing folder is found before hours of generation."""
    monkeypatch.setattr("cert.trajectory.HamiltonianMonitor.load", lambda *_: pytest.fail("loaded"))
    source = write(tmp_path / "in.jsonl", "A")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("missing/out.jsonl", "folder.jsonl"):
        assert cert("batch", source, tmp_path / name)[0] == 3


def test_an_item_that_is_late_is_an_error_with_what_was_measured(cert, tmp_path, hasty_clock):
    """One endless answer costs its own time, and the tokens that it has are kept."""
    source = write(tmp_path / "in.jsonl", {"prompt": "A", "temperature": 50, "seed": 1})
    out = tmp_path / "out.jsonl"
    assert cert("batch", source, out, "--max-new-tokens", "400", "--timeout", "10")[0] == 1
    (record,) = read(out)
    assert record["error"]["code"] == "generation_timeout"
    assert record["partial"]["finish_reason"] == "timeout"
    assert "analysis" not in record


def test_a_server_that_is_down_ends_the_run_and_costs_no_item(cert, tmp_path, monkeypatch):
    """A million error records of one outage would have to be sorted out by hand."""
    begun = []

    def fail(_queue: MicroBatcher[Any], jobs: object) -> None:
        begun.append(jobs)
        raise UpstreamConnectionError("no connection")

    source = write(tmp_path / "in.jsonl", *(f"prompt {number}" for number in range(100)))
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(MicroBatcher, "add", fail)
        code, _, err = cert("batch", source, out, *SHORT)
    assert code == 3
    assert "no connection" in err
    assert len(begun) < 100
    code, summary, _ = cert("batch", source, out, *SHORT, "--json", "--max-new-tokens", "1")
    assert code == 2  # other settings are other answers
    code, summary, _ = cert("batch", source, out, *SHORT, "--json")
    assert code == 0
    assert json.loads(summary)["errors"] == 0
    answered = [record["line"] for record in read(out) if "analysis" in record]
    assert sorted(answered) == list(range(1, 101))


def test_an_item_that_was_refused_once_is_answered_later(cert, tmp_path, monkeypatch):
    """What fails for a passing reason is tried again by the next run without a word."""
    add = MicroBatcher.add

    def busy(queue: MicroBatcher[Any], jobs: list[Any]) -> None:
        if jobs[0].request.prompt == "B":
            raise OverloadedError("busy")
        add(queue, jobs)

    source = write(tmp_path / "in.jsonl", "B", "A")
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(MicroBatcher, "add", busy)
        assert cert("batch", source, out, *SHORT)[0] == 1
    assert cert("batch", source, out, *SHORT)[0] == 0
    assert [record["line"] for record in read(out) if "analysis" in record] == [2, 1]


def test_parquet_goes_in_and_out(cert, tmp_path):
    """A table of prompts gives a table of answers."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"prompt": ["A", None], "id": ["a", "b"]}), source)
    assert cert("batch", source, out, *SHORT)[0] == 1
    rows = {row["id"]: row for row in pq.read_table(out).to_pylist()}
    assert rows["a"]["n_tokens"] == len(json.loads(rows["a"]["record"])["analysis"]["tokens"]["id"])
    assert rows["b"]["error_code"] == "input"
    code, summary, _ = cert("batch", source, out, *SHORT, "--json")
    assert (code, json.loads(summary)["done_before"]) == (1, 2)


def test_stored_answers_are_measured_without_a_model(cert, tmp_path, monkeypatch):
    """Records of yesterday get today's thresholds, and no model is loaded for it."""
    source, out = write(tmp_path / "in.jsonl", "The birth city of"), tmp_path / "out.jsonl"
    again = tmp_path / "again.jsonl"
    assert cert("batch", source, out, *SHORT)[0] == 0
    with out.open("a", encoding="utf-8") as stream:
        stream.write("broken\n")
    monkeypatch.setattr("cert.trajectory.HamiltonianMonitor.load", lambda *_: pytest.fail("loaded"))
    arguments = ("batch", out, again, "--stored", "--entropy-threshold", "0.01")
    code, _, err = cert(*arguments)
    assert code == 1
    assert "line 2" in err
    first = json.loads(out.read_text(encoding="utf-8").splitlines()[0])
    second, broken = read(again)
    assert second["analysis"]["tokens"]["surprisal"] == first["analysis"]["tokens"]["surprisal"]
    assert second["analysis"]["verdict"] == "fail"
    assert broken["error"]["code"] == "input"
    code, summary, _ = cert(*arguments, "--json")
    assert json.loads(summary)["done_before"] == 2


@pytest.mark.parametrize(
    "option",
    [
        ("--model", "reference"),
        ("--device", "cpu"),
        ("--dialect", "vllm"),
        ("--temperature", "0.5"),
        ("--max-new-tokens", "3"),
        ("--seed", "1"),
        ("--timeout", "5"),
        ("--chat",),
    ],
)
def test_what_plays_no_part_with_stored_answers_is_refused(cert, tmp_path, option):
    """An option that does nothing lets a user believe that answers were made with it."""
    source = write(tmp_path / "in.jsonl", {"x": 1})
    code, out, err = cert("batch", source, tmp_path / "out.jsonl", "--stored", *option)
    assert (code, out) == (2, "")
    assert f"{option[0]} plays no part with --stored" in " ".join(err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_the_same_prompt_again_gets_its_own_record(cert, tmp_path):
    """Lines that ask the same are answered once and told each."""
    source = write(tmp_path / "in.jsonl", "A", "A", {"prompt": "A"})
    code, _, _ = cert("batch", source, tmp_path / "out.jsonl", *SHORT)
    assert code == 0
    found = read(tmp_path / "out.jsonl")
    assert sorted(record["line"] for record in found) == [1, 2, 3]
    assert len({json.dumps(record["analysis"]["tokens"]) for record in found}) == 1
    assert [record["analysis"]["from_cache"] for record in found].count(False) == 1
