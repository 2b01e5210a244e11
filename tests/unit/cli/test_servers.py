"""The commands with a model on a server, against the scripted one."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("openai")

from cert.testing import FaultServer

KEY = "sk-very-secret-key"


@pytest.fixture
def model(monkeypatch):
    """A model's name; its server wants a key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer(flavour="vllm", api_key=KEY) as server:
        yield f"openai:scripted@{server.url}/v1"


def test_every_command_asks_a_server(cert, model, tmp_path):
    """Whoever has an engine running needs no torch, and gets the same from each command."""
    asked = ("--model", model, "--top-k", "5", "--chat")
    code, out, err = cert("analyze", "Where?", *asked, "--json")
    assert code in (0, 1, 4), err
    analysis = json.loads(out)
    assert analysis["model"]["backend"] == "vllm"
    _, out, err = cert("watch", "Where?", *asked, "--json")
    *tokens, streamed = map(json.loads, out.splitlines())
    assert "".join(token["text"] for token in tokens) == analysis["generated_text"]
    assert streamed["tokens"]["logprob"] == analysis["tokens"]["logprob"]
    source = tmp_path / "in.jsonl"
    source.write_text('"Where?"\n"And when?"\n')
    code, out, err = cert("batch", source, tmp_path / "out.jsonl", *asked)
    assert code == 0, err
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {record["analysis"]["generated_text"] for record in records} == {analysis["generated_text"]}
    for path in tmp_path.iterdir():
        assert KEY not in path.read_text()


def test_a_server_without_the_key_is_exit_code_3_and_the_key_is_not_told(cert, model, monkeypatch):
    """A log of CI keeps what is printed for years."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-but-secret")
    code, out, err = cert("analyze", "Where?", "--model", model, "--top-k", "5", "--chat")
    assert (code, out) == (3, "")
    assert "secret" not in err
    assert "Traceback" not in err


def test_more_candidates_than_the_server_gives_are_refused(cert, model):
    """Signals of 30 candidates cannot be made of 20."""
    code, out, err = cert("analyze", "Where?", "--model", model, "--top-k", "2000", "--chat")
    assert out == ""
    assert code in (2, 3)
    assert "top_k" in err or "candidates" in err
