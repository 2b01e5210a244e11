"""`cert calibrate label`: one key an answer, in a real terminal, where nothing that was said is ever lost."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from cert.trajectory.calibration.label_file import read_labels

ESCAPE = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe"


def answer(place, text):
    token = {"token": text, "logprob": -0.5, "top_logprobs": [{"token": text, "logprob": -0.5}]}
    choice = {"message": {"content": text}, "logprobs": {"content": [token]}, "finish_reason": "stop"}
    request = {"messages": [{"role": "user", "content": f"question {place} {ESCAPE}"}], "temperature": 0}
    return {"key": f"k{place}{ESCAPE}", "request": request, "response": {"choices": [choice]}, "truth": "t"}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(
        "".join(json.dumps(answer(place, f"answer {place} {ESCAPE}")) + "\n" for place in range(5))
    )
    return path


def labels_of(data):
    return [one.correct for one in read_labels(f"{data}.labels.jsonl").by_key.values()]


def test_keys_from_a_pipe_label_and_a_second_run_goes_on(cert, data):
    """Labelling is done in sittings; what was said in the first one is not asked again."""
    code, out, err = cert("calibrate", "label", data, stdin=b"y\nn\n?\nu\ny\nq\n")
    assert code == 0
    assert "2 labels in" in out
    assert "2 right, 0 wrong" in out
    assert "3 of 5" in err
    code, out, err = cert("calibrate", "label", data, "--reference", "truth", stdin=b"n\ns\nn\n")
    assert code == 0
    assert "4 labels in" in out
    assert "1 of 5" not in err
    assert "reference" in err
    assert labels_of(data) == [True, True, False, None, False]


def test_nothing_that_a_model_wrote_steers_the_terminal(cert, data):
    """An answer could else clear the screen, rename the window, or show another answer than was given."""
    _, out, err = cert("calibrate", "label", data, stdin=b"m\ny\n")
    assert not set("\x1b\x07\u202e") & set(out + err)
    assert "⟨U+001B⟩" in err


def test_a_long_answer_is_cut_until_it_is_asked_for(cert, tmp_path):
    """Megabytes of text must not push the question out of sight."""
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(answer(0, "word " * 2_000 + "END")) + "\n")
    _, _, err = cert("calibrate", "label", path, stdin=b"q\n")
    assert "more characters: m shows them" in err
    assert "END" not in err
    _, _, err = cert("calibrate", "label", path, stdin=b"m\nq\n")
    assert "END" in err


def test_what_is_no_data_is_told(cert, tmp_path, data):
    """A mistyped name must not become an empty file of labels."""
    assert cert("calibrate", "label", tmp_path / "none.jsonl")[0] == 2
    code, _, err = cert("calibrate", "label", data, "--out", data, stdin=b"y\n")
    assert code == 2
    assert "holds something else" in " ".join(err.split())


RUN = "import sys; from cert.cli.main import main; sys.argv = ['cert', *sys.argv[1:]]; main()"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no terminals of its own")
def test_one_key_is_enough_and_kill_9_loses_none(data):
    """A key that was answered by the next question is on the disk, however the process ends."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "calibrate", "label", str(data)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    try:
        _wait(ours, b"1 of 5")
        os.write(ours, b"\x1b[A")  # an arrow key is no answer
        _wait(ours, b"q quit")
        os.write(ours, b"y")
        _wait(ours, b"2 of 5")
        os.write(ours, b"N")
        _wait(ours, b"3 of 5")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        os.close(theirs)
        os.close(ours)
    assert labels_of(data) == [True, False]


def _wait(terminal, text, seconds=60.0):
    seen, end = b"", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65_536)
