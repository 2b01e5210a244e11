"""Labels by a rule, a judge or a person: what nobody decided is missing, and no label is ever lost."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cert.answers import ExactMatcher, Judgement, NumericMatcher
from cert.core.errors import BudgetExceededError, ConfigurationError, InputError, OutputError
from cert.trajectory.calibration.label_file import LabelWriter, read_labels
from cert.trajectory.calibration.labelling import (
    ToLabel,
    answers_to_label,
    drawn,
    judge_labels,
    match_labels,
    question_of,
)
from cert.trajectory.calibration.session import SKIPPED, LabellingSession


def answer(place, text, **members):
    """A record of a response with one token."""
    token = {"token": text, "logprob": -0.5, "top_logprobs": [{"token": text, "logprob": -0.5}]}
    choice = {"message": {"content": text}, "logprobs": {"content": [token]}, "finish_reason": "stop"}
    request = {"messages": [{"role": "user", "content": f"question {place}"}], "temperature": 0}
    return {"key": f"k{place}", "request": request, "response": {"choices": [choice]}} | members


@pytest.fixture
def file(tmp_path):
    return tmp_path / "data.jsonl"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "labels.jsonl"


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def items(count):
    return [ToLabel(f"k{i}", f"question {i}", f"answer {i}", content=str(i).encode()) for i in range(count)]


# --- rules ---


def test_a_rule_labels_what_it_can_decide(file):
    """An answer without a number is not wrong: nobody measured it."""
    texts = ["It is 42.", "43", "forty", "42 or 43"]
    write(file, *(answer(place, text, truth=42) for place, text in enumerate(texts)))
    labels = match_labels(file, NumericMatcher(), reference="truth").by_key
    assert [labels[f"k{i}"].correct for i in range(4)] == [True, False, None, None]
    assert {labels[f"k{i}"].reason for i in (2, 3)} == {"the rule could not decide"}


def test_one_of_several_references_is_enough(file):
    """Both "NYC" and "New York" are right."""
    write(file, answer(0, "NYC", truth=["New York", "NYC"]), answer(1, "LA", truth=["New York", "NYC"]))
    labels = match_labels(file, ExactMatcher(), reference="truth").by_key
    assert [labels["k0"].correct, labels["k1"].correct] == [True, False]


def test_an_extractor_finds_the_answer_in_the_text(file):
    """A model that reasons before it answers is matched by its answer."""
    write(file, answer(0, "First 7, so the answer is 42.", truth=42), answer(1, "no idea", truth=42))
    labels = match_labels(file, ExactMatcher(), reference="truth", extractors=["stated"]).by_key
    assert [labels["k0"].correct, labels["k1"].correct] == [True, None]
    with pytest.raises(ConfigurationError, match="no extractor 'statd'"):
        match_labels(file, ExactMatcher(), reference="truth", extractors=["statd"])


def test_references_must_be_there_and_be_answers(file):
    """A misspelt field must not read as "no answer is right"."""
    write(file, answer(0, "42", truth=42), answer(1, "42"))
    assert match_labels(file, ExactMatcher(), reference="truth").by_key["k1"].reason == "no reference"
    with pytest.raises(InputError, match="'turth' is in none"):
        match_labels(file, ExactMatcher(), reference="turth")
    with pytest.raises(InputError, match="line 1"):
        match_labels(write(file, answer(0, "42", truth={"a": 1})), ExactMatcher(), reference="truth")


def test_an_answer_too_long_for_the_rule_is_undecided(file):
    """A model that writes a megabyte must not stop the labelling of the others."""
    write(file, answer(0, "9" * 2_000_000, truth=42), answer(1, "42", truth=42))
    labels = match_labels(file, NumericMatcher(), reference="truth").by_key
    assert [labels["k0"].correct, labels["k1"].correct] == [None, True]


def test_a_chat_is_shown_with_who_said_what(file):
    """A judge that sees the last message alone judges another question."""
    from cert.backends import Message

    assert question_of("plain") == "plain"
    assert question_of((Message("user", "Why?"),)) == "Why?"
    assert question_of((Message("system", "Be brief."), Message("user", "Why?"))) == (
        "system: Be brief.\n\nuser: Why?"
    )


# --- judges ---


class Scripted:
    """A judge that says what it is told to, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, say):
        self.say, self.asked = say, []

    def judge(self, requests):
        self.asked += requests
        return [self.say(request) for request in requests]


def test_a_judges_failure_is_a_missing_label(out):
    """A judge that refused has not said "wrong"."""
    said = {
        "answer 0": Judgement(True),
        "answer 1": Judgement(False),
        "answer 2": Judgement(missing="refused"),
    }
    judge = Scripted(lambda request: said.get(request.answers[0], Judgement()))
    with LabelWriter(out, by="judge") as writer:
        missing = judge_labels(items(4), judge, writer)
    assert missing == {"judge: refused": 1, "judge: undecided": 1}
    labels = read_labels(out).by_key
    assert [labels[f"k{i}"].correct for i in range(4)] == [True, False, None, None]
    assert labels["k2"].reason == "judge: refused"


def test_nothing_is_paid_for_twice(out):
    """After a crash the same command asks for what is missing, and copies of an answer cost one judgement."""

    def no_money(request):
        if request.answers[0] == "answer 40":
            raise BudgetExceededError("no money left")
        return Judgement(True)

    with LabelWriter(out, by="judge") as writer, pytest.raises(BudgetExceededError):
        judge_labels(items(64), Scripted(no_money), writer)
    again = Scripted(lambda _: Judgement(True))
    with LabelWriter(out, by="judge") as writer:
        assert len(writer.labels) == 32
        judge_labels(items(64), again, writer)
    assert len(again.asked) == 32
    copies = Scripted(lambda _: Judgement(False))
    with LabelWriter(out.with_name("other.jsonl"), by="judge") as writer:
        judge_labels([ToLabel(f"k{i}", "q", "same", content=b"x") for i in range(100)], copies, writer)
        assert len(writer.labels) == 100
    assert len(copies.asked) == 1


def test_a_judge_sees_the_reference(file):
    """Without it, a judge of facts guesses."""
    write(file, answer(0, "42", truth=["43", "44"]))
    judge = Scripted(lambda _: Judgement(False))
    with LabelWriter(file.with_name("l.jsonl"), by="judge") as writer:
        judge_labels(answers_to_label(file, reference="truth"), judge, writer)
    assert (judge.asked[0].kind, judge.asked[0].question, judge.asked[0].reference) == (
        "correct", "question 0", "43"
    )  # fmt: skip


# --- people ---


def test_a_session_goes_on_where_it_was(out):
    """Three hundred answers are labelled in several sittings."""
    with LabelWriter(out, by="person") as writer:
        session = LabellingSession(items(5), writer)
        session.label(True)
        session.label(None)
    with LabelWriter(out, by="person") as writer:
        session = LabellingSession(items(5), writer)
        assert session.current is not None
        assert (session.current.id, session.done, session.total) == ("k2", 2, 5)
        skipped = LabellingSession(items(5), writer, skipped_too=True)
        assert skipped.current is not None
        assert skipped.current.id == "k1"
    assert read_labels(out).by_key["k1"].reason == SKIPPED


def test_a_label_can_be_taken_back(out):
    """A slip of the finger must not become a label; the last word on an answer counts."""
    with LabelWriter(out, by="person") as writer:
        session = LabellingSession(items(3), writer)
        assert not session.undo()
        session.label(False)
        session.label(True)
        assert session.undo()
        assert session.current is not None
        assert session.current.id == "k1"
        assert read_labels(out).by_key["k1"].correct is None
        session.label(False)
    assert [read_labels(out).by_key[f"k{i}"].correct for i in range(2)] == [False, False]
    with LabelWriter(out, by="person") as writer:
        assert LabellingSession(items(3), writer).done == 2


def test_the_sample_is_random_and_stays_as_it_was(file):
    """The first 300 lines are often the easy ones; and a file that grows must not shuffle the rest."""
    names = [f"k{i}" for i in range(200)]
    order = [one.id for one in drawn(iter(items(200)), 50, seed=1)]
    assert order != names[:50]
    assert len(set(order)) == 50
    assert order == [one.id for one in drawn(reversed(items(200)), 50, seed=1)]
    assert order != [one.id for one in drawn(iter(items(200)), 50, seed=2)]
    grown = [one.id for one in drawn(iter(items(220)), 60, seed=1) if one.id in names]
    assert grown[:40] == order[:40]


def test_files_of_others_are_not_written_to(tmp_path, out):
    """A wrong --out must not put labels behind somebody's data."""
    for text in ('{"key": "a", "label": 1}\n', "not JSON\n", '{"kind": "trajectory_record", "key": "a"}\n'):
        out.write_text(text)
        with pytest.raises(InputError, match="something else than labels"):
            LabelWriter(out, by="person")
        assert out.read_text() == text
    with pytest.raises(InputError, match="jsonl"):
        LabelWriter(tmp_path / "labels.csv", by="person")
    out.unlink()
    with LabelWriter(out, by="person"), pytest.raises(OutputError, match="another process"):
        LabelWriter(out, by="person")


def test_a_line_that_was_cut_off_is_moved_aside(out):
    """A machine that loses power in the middle of a line leaves a file that can be gone on with."""
    with LabelWriter(out, by="person") as writer:
        writer.write("a", True)
        writer.write("b", False)
    whole = out.read_bytes()
    out.write_bytes(whole[:-10])
    with LabelWriter(out, by="person") as writer:
        assert set(writer.labels) == {"a"}
        assert writer.moved > 0
        writer.write("b", False)
    assert {key: one.correct for key, one in read_labels(out).by_key.items()} == {"a": True, "b": False}


WRITES = """
import sys
from cert.trajectory.calibration.label_file import LabelWriter
with LabelWriter(sys.argv[1], by="person") as writer:
    for number in range(100_000):
        writer.write(f"k{number}", number % 2 == 0)
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
"""


def test_kill_9_loses_no_label(out):
    """Every label that a person saw accepted is there after the process was killed."""
    command = [sys.executable, "-c", WRITES, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(200):
            process.stdout.readline()
        time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        said = 200 + len(process.stdout.read().split())
    with LabelWriter(out, by="person") as writer:
        assert len(writer.labels) >= said
        assert all(one.correct == (int(key[1:]) % 2 == 0) for key, one in writer.labels.items())
