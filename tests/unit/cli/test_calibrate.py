"""`cert calibrate`: what it promises in words, what it refuses, and certificates that are whole."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("cryptography")
pytest.importorskip("rfc8785")

from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.label_file import read_labels


def row(place, *, wrong, logprob, person=None, **members):
    """A record of a response with one token."""
    text = f"answer {place}"
    token = {"token": text, "logprob": logprob, "top_logprobs": [{"token": text, "logprob": logprob}]}
    choice = {
        "message": {"content": text},
        "logprobs": {"content": [token]},
        "finish_reason": "stop",
    }
    request = {"messages": [{"role": "user", "content": f"question {place}"}], "temperature": 0}
    return {
        "key": f"k{place}",
        "request": request,
        "response": {"model": "m", "choices": [choice]},
        "label": not wrong,
        "person": f"p{place if person is None else person}",
    } | members


def rows(count, seed=0):
    """Answers of which a fifth is wrong, and mostly looks so."""
    rng = np.random.default_rng(seed)
    for place in range(count):
        wrong = bool(rng.random() < 0.2)
        surprisal = rng.gamma(6.0 if wrong else 1.0, 0.5)
        yield row(place, wrong=wrong, logprob=-float(surprisal), topic="xy"[place % 2])


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows(600)))
    return path


@pytest.fixture
def certified(cert, data):
    code, _, err = cert("calibrate", data, "--alpha", "0.1", "--unit", "person", "--logprobs", "raw")
    assert code == 0, err
    return data.with_name("certificate.json")


def test_it_says_what_it_promises_and_what_it_rests_on(cert, data):
    """Whoever decides by this gate must read the promise, its grounds and its limits on one screen."""
    code, out, err = cert("calibrate", data, "--alpha", "0.1", "--unit", "person", "--logprobs", "raw")
    assert code == 0, err
    told = " ".join(out.split())
    assert "Of the answers that pass, at most 10 % are wrong: this holds for at least 90 %" in told
    made = Certificate.load("certificate.json")
    assert made.threshold is not None
    assert f"if its msp is at most {made.threshold.value:.6g}" in told
    assert f"{made.n:,} answers about {made.n_units:,} units" in told
    assert "600 labelled answers about 600 units" in told
    assert made.achieved is not None
    assert f"On {made.achieved.n:,} answers about {made.achieved.n_units:,} units that played no part" in told
    assert "What nobody checked" in told
    assert "not signed" in told
    assert "certificate: certificate.json" in err
    assert made.conditions.logprobs_mode == "raw"
    assert made.data_n == 600


@pytest.mark.parametrize("goal", ["false-flags", "misses", "undetected-errors", "streaming"])
def test_every_goal_says_what_it_means(cert, data, goal):
    """A rate of flags given right answers, taken for one of errors given passes, is a wrong decision."""
    arguments = ("--goal", goal, "--alpha", "0.2", "--score", "max_surprisal", "--out", f"{goal}.json")
    code, out, err = cert("calibrate", data, *arguments)
    assert code == 0, err
    words = {
        "false-flags": "Of the right answers, at most 20 % are flagged",
        "misses": "Of the wrong answers, at most 20 % pass",
        "undetected-errors": "Of all answers, at most 20 % are wrong and pass",
        "streaming": "Of the right answers, at most 20 % are ever alarmed at, whenever one stops",
    }
    assert words[goal] + ", on average" in " ".join(out.split())


def test_json_is_the_certificate_and_nothing_else(cert, data):
    """A pipeline reads standard output."""
    code, out, _ = cert("calibrate", data, "--alpha", "0.1", "--json", "--out", "c.json")
    assert code == 0
    assert Certificate.of_dict(json.loads(out)).id == Certificate.load("c.json").id


def test_a_promise_that_the_data_cannot_bear_is_refused(cert, tmp_path):
    """No threshold is better than one without grounds; and how many labels would do is told."""
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows(30)))
    out = tmp_path / "c.json"
    for goal, alpha in (("selective-risk", "0.01"), ("misses", "0.05")):
        code, shown, err = cert("calibrate", path, "--goal", goal, "--alpha", alpha, "--out", out)
        assert (code, shown) == (2, "")
        assert not out.exists()
        assert "error:" in err
    hint = " ".join(err.partition("hint:")[2].split())
    assert re.search(r"[1-9]\d* more", hint), hint


def test_groups_have_promises_of_their_own(cert, data):
    """A gate that is right on average can be wrong for every customer of one kind."""
    arguments = ("--goal", "false-flags", "--alpha", "0.2", "--group", "topic", "--by-group")
    code, out, err = cert("calibrate", data, *arguments)
    assert code == 0, err
    assert "in each group" in " ".join(out.split())
    assert set(Certificate.load("certificate.json").groups or {}) == {"x", "y"}


def test_options_that_contradict_each_other_are_refused(cert, data):
    """Labels from two places would be a mixture that nobody asked for."""
    labels = data.with_name("labels.csv")
    labels.write_text("key,label\n")
    for wrong in (
        ("--label", "label", "--labels", labels),
        ("--match", "exact"),
        ("--reference", "person"),
        ("--extract", "stated"),
        ("--max-cost", "1"),
        ("--goal", "misses", "--delta", "0.1"),
        ("--score", "mps"),
        ("--goal", "all"),
    ):
        code, _, err = cert("calibrate", data, *wrong)
        assert code == 2, (wrong, err)
        assert "Traceback" not in err
        assert not data.with_name("certificate.json").exists()


def test_labels_come_from_a_file_or_a_rule(cert, data):
    """The same labels, wherever they are, give the same threshold."""
    read = [json.loads(line) for line in data.read_text().splitlines()]
    labels = data.with_name("labels.csv")
    labels.write_text("key,label\n" + "".join(f"{one['key']},{int(one['label'])}\n" for one in read))
    ruled = data.with_name("ruled.jsonl")
    with ruled.open("w") as stream:
        for one in read:
            text = one["response"]["choices"][0]["message"]["content"]
            truth = text if one.pop("label") else "another"
            stream.write(json.dumps(one | {"truth": truth}) + "\n")
    values = []
    for number, how in enumerate(
        ((data,), (ruled, "--labels", labels), (ruled, "--match", "exact", "--reference", "truth"))
    ):
        code, _, err = cert("calibrate", *how, "--alpha", "0.1", "--out", f"{number}.json")
        assert code == 0, err
        threshold = Certificate.load(f"{number}.json").threshold
        assert threshold is not None
        values.append(threshold.value)
    assert len(set(values)) == 1


def test_a_certificate_is_not_replaced_by_accident(cert, certified):
    """A monitor may be running on it."""
    before = certified.read_bytes()
    code, _, err = cert("calibrate", certified.with_name("data.jsonl"), "--alpha", "0.1")
    assert code == 3
    assert "--overwrite" in err
    assert certified.read_bytes() == before
    code, _, _ = cert("calibrate", certified.with_name("data.jsonl"), "--alpha", "0.1", "--overwrite")
    assert code == 0


def test_keys_sign_and_show_checks(cert, data):
    """Whoever edits the threshold of a signed certificate is found out."""
    code, out, _ = cert("calibrate", "keygen", "team.pem")
    assert code == 0
    assert "team.pub.pem" in out
    assert cert("calibrate", "keygen", "team.pem")[0] == 3  # a key is never replaced
    signed = ("calibrate", data, "--alpha", "0.1", "--key", "team.pem", "--out", "signed.json")
    assert cert(*signed)[0] == 0
    code, out, _ = cert("calibrate", "show", "signed.json", "--key", "team.pub.pem")
    assert code == 0
    assert "with the key" in out
    path = data.with_name("signed.json")
    edited = json.loads(path.read_text())
    edited["alpha"] = 0.01
    path.write_text(json.dumps(edited))
    for key in ((), ("--key", "team.pub.pem")):
        code, out, err = cert("calibrate", "show", "signed.json", *key)
        assert code == 2
        assert out == ""
        assert "error:" in err


def test_show_refuses_what_is_not_signed_by_whom_one_trusts(cert, certified):
    """An unsigned certificate is a file that anybody could have written."""
    assert cert("calibrate", "keygen", "other.pem")[0] == 0
    assert cert("calibrate", "show", certified)[0] == 0
    assert cert("calibrate", "show", certified, "--key", "other.pub.pem")[0] == 2
    assert cert("calibrate", "show", certified, "--json")[0] == 0


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"id": ' + "[" * 100_000, '{"alpha": NaN}', "\x00", '{"kind": "x"}']
)
def test_show_of_anything_else_is_an_error(cert, tmp_path, text):
    """A certificate is a file from somebody."""
    path = tmp_path / "c.json"
    path.write_text(text)
    code, out, err = cert("calibrate", "show", path)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_names_in_data_cannot_steer_the_terminal(cert, tmp_path):
    """A group's name, a model's name and the reason of a failure come from files."""
    bad = "\x1b[2J\u202e[bold]x"
    made = [row(place, wrong=place % 5 == 0, logprob=-float(place % 7), topic=bad) for place in range(200)]
    for one in made:
        one["response"]["model"] = bad
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in made))
    arguments = ("--goal", "false-flags", "--alpha", "0.2", "--group", "topic", "--by-group")
    code, out, err = cert("calibrate", path, *arguments, "--out", tmp_path / "c.json")
    assert code == 0, err
    assert not set("\x1b\u202e") & set(out + err)
    assert "[bold]" in out


def test_a_judge_labels_and_is_paid_once(cert, data, monkeypatch):
    """A judge of six hundred answers costs money; the second run must not."""
    pytest.importorskip("openai")
    from cert.testing import FaultServer
    from cert.testing.replies import Reply

    monkeypatch.setenv("CERT_REQUESTS_PER_MINUTE", "100000")
    monkeypatch.delenv("CERT_MODEL", raising=False)
    few = data.with_name("few.jsonl")
    few.write_text("".join(data.read_text().splitlines(keepends=True)[:40]))
    kept = few.with_name("few.jsonl.judged.jsonl")

    arguments = ("--goal", "false-flags", "--alpha", "0.3", "--json")
    with FaultServer(otherwise=Reply(arguments={"rationale": "r", "verdict": "correct"})) as server:
        judge = ("--judge", f"openai:scripted@{server.url}/v1", "--price", "0,0")
        first = cert("calibrate", few, *judge, *arguments)
        asked = len(server.requests)
        labels = [one.correct for one in read_labels(kept).by_key.values()]
        assert asked == 40
        assert labels.count(True) == 40, first
        assert cert("calibrate", few, *judge, *arguments, "--out", "again.json")[0] == first[0]
        assert len(server.requests) == asked
    other = ("--judge", "openai:other@http://127.0.0.1:9/v1", "--price", "0,0")
    code, _, err = cert("calibrate", few, *other, *arguments, "--out", "third.json")
    assert code == 2
    assert "two who label are two instruments" in " ".join(err.split())
