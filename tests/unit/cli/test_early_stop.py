"""``--early-stop``: a part of an answer is shown as one, with the exit code of a gate that failed it."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from cert.trajectory import HamiltonianMonitor
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES, path_of

PROMPT = "The birth city of"
SAMPLED = ("--temperature", "1.5", "--seed", "3", "--max-new-tokens", "12")


@pytest.fixture(scope="module")
def score():
    """The score of the answer so far, token by token; whatever weights there are."""
    with HamiltonianMonitor() as monitor:
        analysis = monitor.analyze(PROMPT, temperature=1.5, seed=3, max_new_tokens=12)
    path = path_of(SCORES["msp"]).running(analysis.step, analysis.running)
    assert len(path) > 3
    return path


def certificate(tmp_path, threshold, goal="streaming"):
    data = LabelledData(
        ids=tuple(map(str, range(60))),
        correct=np.ones(60, dtype=np.bool_),
        columns={"sequence_logprob": np.full(60, -threshold)},
        units=np.arange(60),
    )
    made = calibrate(data, goal=goal, alpha=0.05)
    return made.save(tmp_path / "gate.json")


@pytest.fixture
def strict(tmp_path, score):
    """A certificate whose alarm comes at the second token or soon after, and before the end."""
    return certificate(tmp_path, float(score[1]))


def test_a_part_of_an_answer_is_not_shown_as_the_whole(cert, strict, score):
    """Whoever reads the text must see that it was cut off, and why."""
    token = next(i for i, value in enumerate(score) if value > score[1])
    code, out, _ = cert("analyze", PROMPT, *SAMPLED, "--gate", strict, "--early-stop")
    assert code == 1
    assert "a part of the answer: stopped at the alarm" in out
    assert f"stopped early: alarm at token {token}, 0 tokens after it" in " ".join(out.split())
    assert "not the whole answer" in " ".join(out.split())
    code, out, _ = cert("analyze", PROMPT, *SAMPLED, "--gate", strict, "--early-stop", "--json")
    data = json.loads(out)
    assert (code, data["finish_reason"], data["verdict"]) == (1, "early_stop", "fail")
    assert data["early_stop"]["alarm_at"] == token
    assert data["early_stop"]["saved_at_most"] == 12 - token - 1


def test_watching_shows_the_alarm_and_ends_there(cert, strict, score):
    """A program that follows the tokens sees at which one the alarm came."""
    token = next(i for i, value in enumerate(score) if value > score[1])
    code, out, _ = cert("watch", PROMPT, *SAMPLED, "--gate", strict, "--early-stop", "--json")
    *tokens, analysis = map(json.loads, out.splitlines())
    assert code == 1
    assert [one["alarm"] for one in tokens if "step" in one] == [False] * token + [True]
    assert analysis["early_stop"]["alarm_at"] == token
    code, out, _ = cert("watch", PROMPT, *SAMPLED, "--gate", strict, "--early-stop")
    assert (code, "not the whole answer" in out) == (1, True)
    code, out, _ = cert("watch", PROMPT, *SAMPLED, "--gate", strict)
    assert (code, "not the whole answer" in out) == (1, False)


def test_an_answer_without_an_alarm_is_whole_and_passes(cert, tmp_path):
    """The option alone changes nothing."""
    code, out, _ = cert(
        "analyze", PROMPT, *SAMPLED, "--gate", certificate(tmp_path, 1e6), "--early-stop", "--json"
    )
    data = json.loads(out)
    assert (code, data["verdict"], data["early_stop"]) == (0, "pass", None)


@pytest.mark.parametrize("command", ["analyze", "watch"])
def test_a_stop_without_a_promise_for_it_is_refused_before_a_model_is_loaded(cert, tmp_path, command):
    """The option would seem to work, and nothing would ever be stopped."""
    nowhere = ("--model", tmp_path / "nowhere")
    code, _, err = cert(command, PROMPT, "--early-stop", *nowhere)
    assert (code, "needs a gate" in err) == (2, True)
    other = certificate(tmp_path, 1.0, "false-flags")
    code, _, err = cert(command, PROMPT, "--early-stop", "--gate", other, *nowhere)
    assert (code, "promises nothing" in " ".join(err.split())) == (2, True)
