"""`cert evaluate`: what it reads, prints and refuses."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest

from cert.trajectory.summaries import SIGNALS


def record(place, rng, label):
    signals: dict[str, float | None] = {name: float(rng.normal()) for name in SIGNALS}
    hidden = 1.2 * (not label) + rng.normal()
    signals |= {
        "n_tokens": int(rng.integers(2, 30)), "mean_surprisal": hidden,
        "max_surprisal": hidden + float(rng.normal()),
        "sequence_logprob": -float(np.exp(0.5 * hidden - 1)), "mean_self_certainty": None,
    }  # fmt: skip
    return {
        "number": place + 1, "choice": 0, "key": f"q{place}", "error": None, "verdict": "pass", **signals,
        "label": label, "person": f"p{place // 2}", "language": ("en", "de")[place // 2 % 2],
    }  # fmt: skip


def write(path, labels, **members):
    rng = np.random.default_rng(0)
    rows = [record(place, rng, label) | members for place, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(1)
    return write(tmp_path / "answers.jsonl", (rng.random(160) < 0.7).tolist())


def test_a_table_says_the_finding_first_and_the_doubts_last(cert, data):
    """A person who decides on a score reads which, how sure, and why not to believe it."""
    code, out, _ = cert("evaluate", data, "--unit", "person", "--group", "language", "--replicates", 200)
    assert code == 0
    lines = out.splitlines()
    assert "AUROC" in lines[0]
    assert "160 answers about 80 units" in " ".join(out.split())
    assert "mean_self_certainty" in out
    assert "200 draws of units" in " ".join(out.split())
    for group in ("en", "de"):
        assert any(line.split()[:2] == [group, "80"] for line in lines)
    assert out.index("When not to believe it") > out.index("mean_surprisal")


def test_json_is_the_report_and_nothing_else(cert, data):
    """A program that reads stdout must find JSON of the schema."""
    code, out, _ = cert("evaluate", data, "--unit", "person", "--score", "msp", "--score", "mean_surprisal",
                        "--combiner", "--replicates", 200, "--json")  # fmt: skip
    assert code == 0
    told = json.loads(out)
    schema = resources.files("cert.trajectory").joinpath("schemas/evaluation-report.v1.json")
    jsonschema.validate(told, json.loads(schema.read_text("utf-8")))
    assert [one["name"] for one in told["scores"]] == ["msp", "mean_surprisal", "combiner"]
    assert told["n_units"] == 80
    assert len(told["data_sha256"]) == 64


def test_the_page_is_written_beside_the_table(cert, data, tmp_path):
    """Whoever asks for a page gets it, whole, and is told where."""
    page = tmp_path / "page.html"
    code, out, err = cert("evaluate", data, "--replicates", 200, "--html", page)
    assert code == 0
    assert "AUROC" in out
    assert "report:" in err
    assert page.read_text("utf-8").rstrip().endswith("</html>")


def test_a_page_never_takes_the_place_of_the_data(cert, data):
    """A typing error must not cost the labels."""
    before = data.read_bytes()
    assert cert("evaluate", data, "--html", data)[0] == 2
    assert data.read_bytes() == before


@pytest.mark.parametrize(
    ("labels", "members", "says"),
    [
        ([True] * 30, {}, "all 30 labelled answers are right"),
        ([False] * 30, {}, "all 30 labelled answers are wrong"),
        ([True, False] * 10, {"label": "maybe"}, "label"),
        ([True, False] * 10, {"label": 0.5}, "label"),
        ([True, False] * 10, {"key": "same"}, "same"),
    ],
)
def test_data_that_cannot_be_judged_are_refused(cert, tmp_path, labels, members, says):
    """One kind of answers, labels that are none, and duplicates: a reason, and exit code 2."""
    code, out, err = cert("evaluate", write(tmp_path / "bad.jsonl", labels, **members))
    assert (code, out) == (2, "")
    assert says in err


def test_few_wrong_answers_are_evaluated_without_intervals(cert, tmp_path):
    """Three wrong answers give values, no intervals, and a warning."""
    path = write(tmp_path / "few.jsonl", [False] * 3 + [True] * 40)
    code, out, _ = cert("evaluate", path, "--replicates", 200)
    assert code == 0
    assert "Only 3 units have a wrong answer" in " ".join(out.split())
    code, _, err = cert("evaluate", path, "--combiner")
    assert code == 2
    assert "12 are missing" in " ".join(err.split())


@pytest.mark.parametrize("options", [("--score", "mps"), ("--replicates", "10"), ("--max-rejection", "0")])
def test_bad_options_are_refused(cert, data, options):
    """A typing error is not a missing row or a number of another kind."""
    assert cert("evaluate", data, *options)[0] == 2
