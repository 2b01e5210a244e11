"""``cert score`` as a user types it."""

import json

import pytest

pytest.importorskip("torch")


def test_all_ways_of_giving_one_conversation_score_the_same(cert, tmp_path):
    """A text from a file, from stdin or as messages is read as the same tokens after the same prompt."""
    text = tmp_path / "text"
    text.write_text("\N{BYTE ORDER MARK} Modern Geology", encoding="utf-8")
    messages = [
        {"role": "user", "content": "Which field?"},
        {"role": "assistant", "content": " Modern Geology"},
    ]
    for name, data in (("list", messages), ("body", {"model": "m", "messages": messages})):
        (tmp_path / name).write_text(json.dumps(data), encoding="utf-8")
    runs = (
        cert("score", "--chat", "Which field?", " Modern Geology", "--json"),
        cert("score", "--chat", "Which field?", "--file", text, "--json"),
        cert("score", "--chat", "Which field?", "-", "--json", stdin=b" Modern Geology"),
        cert("score", "--messages", tmp_path / "list", "--json"),
        cert("score", "--messages", tmp_path / "body", "--json"),
    )
    analyses = [json.loads(out) for _, out, _ in runs]
    assert {tuple(analysis["tokens"]["logprob"]) for analysis in analyses} == {
        tuple(analyses[0]["tokens"]["logprob"])
    }
    assert analyses[0]["generated_text"] == " Modern Geology"
    assert analyses[0]["finish_reason"] == "given"


def test_the_verdict_is_the_exit_code_and_the_text_is_called_scored(cert):
    """Nobody may take a given text for one that the model wrote."""
    code, out, _ = cert("score", "The birth city of", " xyzzy", "--surprise-threshold", "0.5")
    assert code == 1
    assert "scored text" in out
    assert "FAIL" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a prompt"),
        (["A"], "give a text to score"),
        (["A", "b", "--file", __file__], "just one"),
        (["A", "--messages", __file__], "goes with no prompt"),
        (["--messages", __file__], "not JSON"),
        (["A", "--file", "no-such-file"], "no-such-file"),
        (["", "b"], "prompt is empty"),
    ],
)
def test_bad_usage_is_exit_code_2(cert, arguments, says):
    """No traceback, nothing on stdout, the wrong thing named."""
    code, out, err = cert("score", *arguments)
    assert (code, out) == (2, "")
    assert says in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


@pytest.mark.parametrize("data", ['"text"', "{}", '[{"role": "user"}]', '[{"role": "user", "content": "A"}]'])
def test_a_conversation_without_an_answer_is_refused(cert, tmp_path, data):
    """There is nothing to score, and a question must not be scored in its place."""
    file = tmp_path / "messages.json"
    file.write_text(data, encoding="utf-8")
    code, out, _ = cert("score", "--messages", file)
    assert (code, out) == (2, "")
