"""``cert analyze`` and ``cert demo`` as a user types them."""

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

pytest.importorskip("torch")

from cert.reference.world import load_world


def question(exposures: int) -> str:
    facts = load_world().facts
    return next(f for f in facts if f.exposures == exposures and not f.person.question_person).question()


def test_a_known_fact_passes_with_exit_code_0(cert):
    """The code that a script branches on."""
    code, out, _ = cert("analyze", "--chat", question(512))
    assert code == 0
    assert "PASS" in out
    assert "uncalibrated" in out


def test_a_failed_gate_is_exit_code_1_with_its_reason(cert):
    """A script must be able to stop on it, and a person to see why."""
    code, out, _ = cert("analyze", "--chat", question(0), "--entropy-threshold", "0.01")
    assert code == 1
    assert "FAIL" in out
    assert "above 0.01 at token" in out


def test_nothing_measured_is_exit_code_4(cert):
    """Neither a pass nor a failure."""
    code, out, _ = cert("analyze", "Hello", "--max-new-tokens", "0")
    assert code == 4
    assert "NOT MEASURED" in out
    assert "nan" not in out.lower()


def test_json_is_the_only_thing_on_stdout(cert):
    """A pipe into another program must not meet a progress bar."""
    code, out, _ = cert("analyze", "--chat", question(512), "--json")
    data = json.loads(out)
    schema = resources.files("cert.trajectory").joinpath("schemas/trajectory-analysis.v1.json")
    jsonschema.validate(data, json.loads(schema.read_text(encoding="utf-8")))
    assert code == 0
    assert out.count("\n") == 1


def test_the_prompt_comes_from_stdin_or_a_file(cert, tmp_path):
    """All three ways of giving one prompt ask the same thing."""
    file = tmp_path / "prompt.txt"
    file.write_text("The birth city of", encoding="utf-8")
    options = ("--json", "--max-new-tokens", "4")
    answers = [
        json.loads(out)["generated_text"]
        for _, out, _ in (
            cert("analyze", "The birth city of", *options),
            cert("analyze", "-", *options, stdin=b"The birth city of"),
            cert("analyze", "--file", str(file), *options),
        )
    ]
    assert len(set(answers)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a prompt"),
        (["x", "--file", __file__], "just one"),
        ([""], "prompt is empty"),
        (["x" * 10_001], "10,001 characters"),
        (["--file", "no-such-file"], "no-such-file"),
        (["x", "--temperature", "-1"], "temperature"),
        (["x", "--entropy-threshold", "99"], "can never fail"),
        (["x", "--top-k-entropy-threshold", "2.5", "--top-k", "10"], "2.303"),
        (["x", "--top-p", "7"], "top_p"),
        (["x", "--no-such-option"], "No such option"),
        (["x", "--device", "abacus"], "abacus"),
    ],
)
def test_bad_usage_is_exit_code_2_and_says_what_is_wrong(cert, arguments, says):
    """No traceback, nothing on stdout, the wrong value named."""
    code, out, err = cert("analyze", *arguments)
    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())
    assert out == ""
    assert "Traceback" not in err


def test_time_that_is_over_shows_what_was_measured(cert, hasty_clock):
    """Minutes of generation are not lost to a limit, and a script still sees that it was not finished."""
    code, out, err = cert(
        *("analyze", "A", "--temperature", "50", "--seed", "1", "--max-new-tokens", "400"),
        *("--timeout", "10", "--json"),
    )
    assert code == 3
    assert "was stopped" in err
    analysis = json.loads(out)
    assert analysis["finish_reason"] == "timeout"
    assert 0 < len(analysis["tokens"]["id"]) < 400


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300", "soon"])
def test_a_time_limit_that_is_none_is_refused(cert, seconds):
    """A limit that could never end the work, or ends it before it begins, is a slip."""
    code, out, err = cert("analyze", "A", "--timeout", seconds)
    assert (code, out) == (2, "")
    assert "--timeout" in err


def test_the_environment_says_which_model(cert, monkeypatch, tmp_path):
    """A container is told its model once, and an option still wins."""
    monkeypatch.setenv("CERT_MODEL", str(tmp_path / "gone"))
    assert cert("analyze", "A", "--max-new-tokens", "1")[0] == 3
    assert cert("analyze", "A", "--max-new-tokens", "1", "--model", "reference")[0] in (0, 1)
    monkeypatch.setenv("CERT_MODEL", "reference")
    monkeypatch.setenv("CERT_DEVICE", "abacus")
    code, _, err = cert("analyze", "A")
    assert code == 2
    assert "CERT_DEVICE" in err


@pytest.mark.parametrize(
    "arguments",
    [("--model", "openai:m@http://127.0.0.1:9/v1", "--device", "cpu"), ("--dialect", "vllm")],
)
def test_an_option_of_the_other_kind_of_model_is_refused(cert, arguments):
    """An option that does nothing lets a user believe that it does."""
    code, out, err = cert("analyze", "A", *arguments)
    assert (code, out) == (2, "")
    assert "--d" in err


def test_without_colours_unlikely_tokens_are_marked(cert):
    """In a pipe or a plain terminal the text alone does not say where the model was unsure."""
    _, out, _ = cert("analyze", "The birth city of", "--max-new-tokens", "3")
    assert "]⁴" in out
    assert "[]⁴ ≤ 0.05" in out


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"  \n"])
def test_a_file_without_usable_text_is_exit_code_2(cert, tmp_path, content):
    """Empty files and other encodings are told, not guessed."""
    file = tmp_path / "prompt"
    file.write_bytes(content)
    code, out, err = cert("analyze", "--file", str(file))
    assert (code, out) == (2, "")
    assert "error:" in err


def test_a_model_that_is_not_there_is_exit_code_3_with_a_way_out(cert, tmp_path):
    """What to do without a network stands in the message."""
    code, out, err = cert("analyze", "x", "--model", "nobody/nothing")
    assert (code, out) == (3, "")
    assert "hf download" in " ".join(err.split())
    code, _, err = cert("analyze", "x", "--model", str(tmp_path / "gone"))
    assert code == 3


def test_a_report_that_cannot_be_written_fails_before_the_generation(cert, tmp_path, monkeypatch):
    """The error must come before minutes of work, not after."""
    monkeypatch.setattr(
        "cert.trajectory.HamiltonianMonitor.load", lambda *_: pytest.fail("the model was loaded")
    )
    code, _, err = cert("analyze", "x", "--html", str(tmp_path / "missing" / "report.html"))
    assert code == 3
    assert "missing" in err


def test_the_html_report_is_written_beside_json(cert, tmp_path):
    """Both from one generation."""
    report = tmp_path / "report.html"
    code, out, _ = cert("analyze", "--chat", question(512), "--json", "--html", str(report))
    assert code == 0
    first_word = json.loads(out)["generated_text"].split()[0]
    assert first_word in report.read_text(encoding="utf-8")


def test_a_seeded_sample_repeats(cert):
    """The seed in a record must give the record's answer again."""
    options = (
        "analyze",
        "The birth city of",
        "--temperature",
        "1.0",
        "--seed",
        "7",
        "--json",
        "--max-new-tokens",
        "8",
    )
    first, second = (json.loads(cert(*options)[1]) for _ in range(2))
    assert first["generated_text"] == second["generated_text"]
    assert first["sampling"]["seed"] == 7


def test_markup_in_the_output_is_shown_as_it_is(cert, monkeypatch):
    """Text like [red] from a model must not be eaten as markup of the terminal library."""
    code, _, err = cert("analyze", "x", "--model", "./[bold]missing[/bold]")
    assert code == 3
    assert "[bold]missing[/bold]" in err


def test_the_demo_asks_by_exposure_and_tells_the_truth(cert, tmp_path):
    """The first minute of a new user: three answers, each with its truth, and a report."""
    report = tmp_path / "demo.html"
    code, out, _ = cert("demo", "--html", str(report))
    assert code == 0
    assert "read 512 times" in out
    assert "read never" in out
    assert "right" in out
    assert "the truth is" in out
    assert "uncalibrated" in out
    assert report.stat().st_size > 10_000


def test_the_version_is_printed(cert):
    """One version, from one place."""
    from cert import __version__

    assert cert("--version")[:2] == (0, f"cert {__version__}\n")


def test_a_defect_of_ours_is_not_a_failed_gate(cert, monkeypatch):
    """Python's own exit code for a traceback is 1, which says that an answer failed."""

    def fail(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr("cert.trajectory.HamiltonianMonitor.analyze", fail)
    code, out, err = cert("analyze", "x")
    assert (code, out) == (3, "")
    assert "ZeroDivisionError" in err


def test_a_result_that_cannot_be_written_is_exit_code_3(tmp_path):
    """A full disk behind stdout must not look like a verdict."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    run = [
        sys.executable,
        "-c",
        "from cert.cli.main import main; main()",
        "analyze",
        "A",
        "--max-new-tokens",
        "1",
    ]
    with full.open("w") as stream:
        done = subprocess.run(run, stdout=stream, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_name_with_markup_or_escapes_is_shown_and_not_obeyed(cert, tmp_path, model_copy):
    """A folder's name is untrusted text like any other."""
    folder = tmp_path / "[x]\x1b[31m"
    folder.symlink_to(model_copy)
    code, _, err = cert("analyze", "A", "--model", str(folder), "--max-new-tokens", "1")
    assert code in {0, 1}
    assert "\x1b[31m" not in err


@pytest.fixture
def model_copy():
    from cert.reference import weights

    return weights.path()


def test_json_holds_no_character_that_steers_a_terminal(cert, monkeypatch):
    """What a model wrote is shown by whoever prints the JSON."""
    code, out, _ = cert("analyze", "a\u202eb\x9bc", "--json", "--max-new-tokens", "1")
    assert code in {0, 1}
    assert out.isascii()
    assert json.loads(out)["prompt"] == "a\u202eb\x9bc"


def test_the_report_must_not_overwrite_the_prompt(cert, tmp_path):
    """One slip would destroy the input."""
    file = tmp_path / "prompt"
    file.write_text("A", encoding="utf-8")
    code, _, _ = cert("analyze", "--file", str(file), "--html", str(file))
    assert code == 2
    assert file.read_text(encoding="utf-8") == "A"


def test_an_empty_model_name_is_refused(cert):
    """An unset variable must not load some default model."""
    code, _, err = cert("analyze", "x", "--model", "")
    assert code == 2
    assert "name of a model is empty" in err
