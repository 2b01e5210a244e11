"""``cert watch``: tokens as they come, on a terminal, in a pipe and for a program."""

import io
import json
import math

import pytest
from rich.console import Console

pytest.importorskip("torch")

from cert.cli.watch_view import choose_view
from cert.trajectory import HamiltonianMonitor
from cert.trajectory.streaming import StreamedToken
from cert.trajectory.types import ReasoningMetrics

PROMPT = "The birth city of"


@pytest.fixture(scope="module")
def monitor():
    with HamiltonianMonitor() as made:
        yield made


def test_a_program_gets_one_object_a_token_and_then_the_analysis(cert):
    """A program that follows the lines has the same numbers as one that waits for the end."""
    code, out, _ = cert("watch", PROMPT, "--json", "--max-new-tokens", "6")
    *tokens, analysis = map(json.loads, out.splitlines())
    assert out.isascii()
    assert code == {"pass": 0, "fail": 1}[analysis["verdict"]]
    assert "".join(token["text"] for token in tokens) == analysis["generated_text"]
    measured = [token for token in tokens if "step" in token]
    for name in ("surprisal", "entropy_lower", "entropy_upper", "cumulative_surprise"):
        assert [token[name] for token in measured] == analysis["tokens"][name]


def test_a_pipe_gets_one_line_a_token_and_the_verdict(cert):
    """What is piped into a file or grep has no bar, no colour and no cursor movement."""
    code, out, _ = cert("watch", PROMPT, "--max-new-tokens", "3")
    head, *lines = out.splitlines()
    assert head.split() == ["token", "surprisal", "entropy", "text"]
    assert [line.split()[0] for line in lines[:3]] == ["0", "1", "2"]
    assert lines[3].startswith(("✔ PASS", "✘ FAIL")), code
    assert "\x1b" not in out


def test_a_limit_on_time_shows_the_tokens_until_then(cert, hasty_clock):
    """What came before the limit is measured and told, with the error."""
    code, out, err = cert(
        *("watch", "A", "--temperature", "50", "--seed", "1", "--max-new-tokens", "400"),
        *("--timeout", "10", "--json"),
    )
    assert code == 3
    assert json.loads(out.splitlines()[-1])["finish_reason"] == "timeout"
    assert "was stopped" in err


def token(text: str, surprisal: float, step: int = 0) -> StreamedToken:
    nan = math.nan
    metrics = ReasoningMetrics(step, text, nan, nan, nan, nan, surprisal, nan, nan, nan, nan)
    return StreamedToken(text, 1, metrics, nan, nan)


def terminal(**options) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=40, height=10, legacy_windows=False, **options
    )


def shown(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_text_of_the_model_cannot_steer_the_terminal():
    """A model could clear the screen, or set the title, token by token."""
    for console in (terminal(color_system="truecolor"), Console(file=io.StringIO(), width=80)):
        view = choose_view(console, as_json=False)
        with view.tokens():
            for part in ("\x1b]0;ow", "ned\x07", "\x1b[2J", "\u202e", "a\r"):
                view.token(token(part, 0.1))
        for steering in ("\x1b]0", "\x07", "\x1b[2J", "\u202e"):
            assert steering not in shown(console)
        assert "U+001B" in shown(console)


def test_a_terminal_without_colours_gets_marks():
    """With NO_COLOR the live view must still say which tokens were unlikely."""
    console = terminal(no_color=True, color_system="truecolor")
    view = choose_view(console, as_json=False)
    with view.tokens():
        view.token(token(" sure", 0.01))
        view.token(token(" wild", 5.0, 1))
    assert "sure [wild]⁴" in shown(console)


def test_a_long_text_shows_its_end():
    """What is written now must stay in sight on a small terminal."""
    console = terminal(color_system=None)
    view = choose_view(console, as_json=False)
    with view.tokens():
        for step in range(400):
            view.token(token(f" word{step}", 0.01, step))
    last = shown(console).rpartition("generating")[2]
    assert "word399" in last
    assert "word0 " not in last


def test_signals_that_are_not_measured_are_no_numbers():
    """A server without entropies must not show 0 or nan in their place."""
    for console in (terminal(color_system=None), Console(file=io.StringIO(), width=80)):
        view = choose_view(console, as_json=False)
        with view.tokens():
            view.token(token(" a", math.nan))
        assert "nan" not in shown(console)
        assert "–" in shown(console)


def test_the_end_shows_the_whole(monitor):
    """The live picture goes, and the full view with its numbers stays."""
    console = Console(file=io.StringIO(), force_terminal=True, width=70, color_system=None)
    view = choose_view(console, as_json=False)
    with monitor.stream(PROMPT, max_new_tokens=4) as stream:
        with view.tokens():
            for piece in stream:
                view.token(piece)
        view.end(stream.analysis)
    assert "mean perplexity" in shown(console)
    assert "profile v3" in shown(console)
