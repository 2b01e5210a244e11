"""`cert coordinate`: what is refused before any money is spent, what is told, and the exit codes."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("openai")
pytest.importorskip("scipy")
pytest.importorskip("sqlalchemy")

from cert.testing import FaultServer, ok

PRICE = ("--price", "3,15")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """The usual store is in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("CERT_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY", "CERT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CERT_REQUESTS_PER_MINUTE", "100000")
    return tmp_path


def answer(request):
    """Right in two of three cases, by the number of the request."""
    return ok(("The answer is 42", "The answer is 41", "It is 42")[request.number % 3])


@pytest.fixture
def server():
    with FaultServer(answer) as server:
        yield server


@pytest.fixture
def model(server):
    return f"openai:scripted@{server.url}/v1"


@pytest.fixture
def tasks(tmp_path):
    path = tmp_path / "tasks.jsonl"
    lines = [
        {"task": f"What is six times seven, variant {i}?", "answer": 42, "id": f"q{i}"} for i in range(4)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def suite(cert, tasks, model, *more, systems="vote", judge=("--evaluator", "numeric")):
    return cert("coordinate", "suite", tasks, "--model", model, *PRICE, "--systems", systems, *judge, *more)


def test_one_task_tells_point_values_and_that_they_are_no_finding(cert, model, server):
    """A person who reads γ = 1.5 of one task must read there, too, that it proves nothing."""
    asked = ("coordinate", "What is six times seven?", "--model", model, *PRICE, "--reference", "42")
    code, out, err = cert(*asked, "--evaluator", "numeric", "--strategy", "debate(rounds=1)")
    assert code == 0, err
    assert "NOT ENOUGH DATA" in out.splitlines()[0]
    assert "always too little" in out
    assert "γ_budget" in out
    assert "at most $" in err
    before = len(server.requests)
    again = cert(*asked, "--evaluator", "numeric", "--strategy", "debate(rounds=1)", "--json")
    assert json.loads(again[1])["kind"] == "coordination_metrics"
    assert len(server.requests) == before  # the same command pays for nothing twice


@pytest.mark.parametrize(
    "words", [("task", "suite"), ("--", "suite"), ("task", "task"), ("--seed", "1", "suite")]
)
def test_a_task_called_as_a_command_can_be_given(cert, model, server, words):
    """Somebody may want to ask about a suite."""
    code, out, err = cert("coordinate", *words[:-1], *(() if "--" in words else ("-m", model)), words[-1])
    assert (code, out) == (2, "")
    assert "the task has no reference" in err
    assert server.requests == ()


def test_a_suite_tells_verdict_money_and_cautions_and_goes_on_for_free(cert, model, tasks, server, tmp_path):
    """The whole of the job: a verdict for each system, what it cost, and no second bill."""
    code, out, err = suite(cert, tasks, model, "--html", tmp_path / "r.html", systems="vote,debate(rounds=1)")
    assert code == 0, err
    assert "  vote" in out
    assert "  debate(rounds=1)" in out
    assert "When not to believe it" in out
    assert "Omega" not in out
    assert "NOT ENOUGH DATA" in out.splitlines()[0]
    assert f"report: {tmp_path / 'r.html'}" in err
    assert "debate(rounds=1)" in (tmp_path / "r.html").read_text()
    before = len(server.requests)
    assert before > 0
    code, out, _ = suite(cert, tasks, model, "--json", systems="vote,debate(rounds=1)")
    report = json.loads(out)
    assert (code, report["kind"], report["spent"]) == (0, "coordination_report", "0.000000")
    assert float(report["saved"]) > 0
    assert len(server.requests) == before
    assert (tmp_path / ".cert/coordination.sqlite3").exists()
    assert (tmp_path / ".cert/.gitignore").read_text() == "*\n"


def test_again_asks_the_teams_anew_and_the_baseline_not(cert, model, tasks, server):
    """A second opinion of the team costs the team's calls alone."""
    suite(cert, tasks, model, systems="vote")
    first = len(server.requests)
    code, _, err = suite(cert, tasks, model, "--again", systems="vote")
    assert code == 0, err
    assert "run: again-" in err
    assert 0 < len(server.requests) - first < first
    assert suite(cert, tasks, model, "--again", "--run", "x")[0] == 2


def test_above_the_limit_nothing_is_asked(cert, model, tasks, server):
    """--max-cost is a promise."""
    code, out, err = suite(cert, tasks, model, "--max-cost", "0.0001")
    assert (code, out) == (3, "")
    assert "nothing was asked" in err
    assert server.requests == ()


def test_fail_unless_worth_it_is_exit_code_1(cert, model, tasks):
    """A pipeline that deploys the team has to stop where the team is not worth it."""
    assert suite(cert, tasks, model, "--fail-unless", "worth-it")[0] == 1


def test_the_budget_of_the_process_ends_the_run_and_the_report_says_so(cert, model, tasks):
    """The estimate may be too low; the limit holds all the same, and what was measured is told."""
    code, out, err = suite(
        cert, tasks, model, "--max-cost", "0.04", "--answer-tokens", "1", "--max-tokens", "400", "--json"
    )
    assert code in (0, 3), err
    report = json.loads(out)
    assert report["stopped"] in ("budget", "max_cost")
    assert float(report["spent"]) <= 0.04


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--systems", "quarrel"], "there is no strategy 'quarrel'"),
        (["--systems", "vote,,debate"], "no list of systems"),
        (["--systems", "debate(rounds=1"], "no list of systems"),
        (["--evaluator", "magic"], "there is no evaluator 'magic'"),
        (["--judge-repeats", "3"], "--judge-repeats plays no part"),
        (["--evaluator", "exact", "--judge", "reference"], "give --judge or --evaluator"),
        (["--price", "cheap"], "is no price"),
        (["--price", "1,2", "--price", "3,4"], "two prices"),
        (["--max-cost", "-1"], "no number of dollars"),
        (["--max-cost", "nan"], "no number of dollars"),
        (["--agents", "1"], "--agents"),
        (["--prompts", "v99"], "no prompts 'v99'"),
        (["--margin", "2"], "--margin"),
        (["--model", "openai:nowhere"], "openai:MODEL@URL"),
        (["--model", "anthropic:claude-sonnet-5-5"], "needs a key"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_asked(cert, model, tasks, server, arguments, told):
    """Each mistake has its own words and exit code 2."""
    given = [] if "--model" in arguments else ["--model", model]
    price = [] if "--price" in arguments else PRICE
    code, out, err = cert("coordinate", "suite", tasks, *given, *price, *arguments)
    assert (code, out) == (2, ""), err
    assert told in " ".join(err.replace("│", " ").split())
    assert server.requests == ()


def test_a_model_without_a_price_is_refused_with_the_option_that_helps(cert, model, tasks, server):
    """Nobody can promise a limit on dollars for a model whose price is not known."""
    code, _, err = cert("coordinate", "suite", tasks, "--model", model)
    assert code == 2
    assert "--price IN,OUT" in err
    assert server.requests == ()


def test_the_claude_api_is_asked_with_the_key_of_the_settings(cert, tasks, monkeypatch, tmp_path):
    """No key on a command line, where everybody on the machine could read it."""
    pytest.importorskip("anthropic")
    monkeypatch.setenv("CERT_ANTHROPIC_API_KEY", "sk-ant-very-secret")
    with FaultServer(answer, api_key="sk-ant-very-secret") as server:
        code, out, err = cert(
            *("coordinate", "suite", tasks, "--model", f"anthropic:claude-sonnet-5-5@{server.url}"),
            *("--evaluator", "numeric", "--systems", "vote", "--html", tmp_path / "r.html"),
        )
        assert code == 0, err
        assert server.requests[0].dialect == "anthropic"
    assert "secret" not in out + err + (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "has no task"),
        ("\n \n", "has no task"),
        ('{"task": "a"}\nnot json\n{"id": 3}\n[1]\n', "line 2: it is not JSON"),
        ('{"task": "a"}\nnot json\n{"id": 3}\n[1]\n', "line 3: it has no task"),
        ('{"task": "a"}\nnot json\n{"id": 3}\n[1]\n', "line 4: it is no JSON object"),
        ('{"task": ""}', "line 1: the task is empty"),
        ('{"task": "a", "prompt": "b"}', "both 'task' and 'prompt'"),
        ('{"task": "a"}\n{"task": "a"}', "line 2: the same task as line 1"),
        ('{"task": "a", "id": 1}\n{"task": "b", "id": "1"}', "line 2: the same id as line 1"),
        ('{"task": "a", "references": [[]]}', "a reference is no text"),
        ('{"task": "a", "metadata": 3}', "'metadata' is no object"),
        ("[" * 5000, "it is not JSON"),
    ],
)
def test_broken_lines_are_told_all_at_once_and_by_number(cert, model, server, tmp_path, content, told):
    """A file that is repaired line by line, one error a run, costs an afternoon."""
    path = tmp_path / "broken.jsonl"
    path.write_text(content)
    code, out, err = cert("coordinate", "suite", path, "--model", model, *PRICE)
    assert (code, out) == (2, ""), err
    assert told in " ".join(err.split())
    assert server.requests == ()


def test_a_text_file_is_one_task_a_line_and_needs_a_judge(cert, model, server, tmp_path):
    """Tasks without right answers cannot be scored by a rule."""
    path = tmp_path / "tasks.txt"
    path.write_text("One?\n\nTwo?\n")
    code, _, err = cert("coordinate", "suite", path, "--model", model, *PRICE)
    assert code == 2
    assert "2 tasks have no reference" in err
    same = cert("coordinate", "suite", path, "--model", model, *PRICE, "--judge", model, "--selector", model)
    assert same[0] == 2
    assert "the selector is the judge" in same[2]
    assert server.requests == ()
