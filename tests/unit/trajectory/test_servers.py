"""A monitor of a model on a server: what cannot be is said when the monitor is made, or before any prompt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("openai")

from cert.backends.opening import ServerOptions
from cert.core.errors import CertError, ConfigurationError, DependencyMissingError, InputError
from cert.core.resilience import ResiliencePolicy
from cert.core.retry import RetryPolicy
from cert.testing import FaultServer, Reply, Token, ok
from cert.trajectory import HamiltonianMonitor, LoadOptions, Message, TrajectoryConfig

ONE_TRY = ResiliencePolicy(deadline_seconds=30, attempt_seconds=20, retry=RetryPolicy(attempts=1))
SECRET = "where-is-the-tower"


def named(server: FaultServer) -> str:
    return f"openai:scripted@{server.url}/v1"


def without_logprobs(data: Any) -> Any:
    for choice in data.get("choices", ()):
        choice["logprobs"] = None
    return data


BARE = replace(ok("Maybe so"), rewrite=without_logprobs)


@pytest.mark.parametrize(
    ("flavour", "reply", "config", "says"),
    [
        ("vllm", BARE, TrajectoryConfig(), "no log-probabilities"),
        ("tgi", ok("Maybe so"), TrajectoryConfig(), "at most 5 candidates"),
        ("vllm", ok("Maybe so"), TrajectoryConfig(top_k=30), "at most 20 candidates"),
        ("llama.cpp", ok("Maybe so"), TrajectoryConfig(entropy_threshold=11.0), "can never fail"),
    ],
)
def test_what_a_server_lacks_is_said_when_it_is_preloaded(flavour, reply, config, says):
    """A service that comes up and fails at each request is worse than one that does not come up."""
    with (
        FaultServer(flavour=flavour, otherwise=reply) as server,
        pytest.raises(ConfigurationError, match=says),
    ):
        HamiltonianMonitor(named(server), preload=True, config=config)


@pytest.mark.parametrize("call", [HamiltonianMonitor.load, lambda m: m.analyze([Message("user", SECRET)])])
def test_without_preload_it_is_said_before_any_prompt_is_sent(call: Callable[[HamiltonianMonitor], Any]):
    """Nothing is asked of a server before it is needed, and no prompt is spent on one that cannot do."""
    with FaultServer(flavour="tgi", otherwise=ok("Maybe so")) as server:
        monitor = HamiltonianMonitor(named(server))
        assert list(server.requests) == []
        with pytest.raises(ConfigurationError, match="at most 5 candidates"):
            call(monitor)
        assert SECRET not in repr([request.body for request in server.requests])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("openai:m", {}, "openai:MODEL@URL"),
        ("openai:@http://127.0.0.1:1/v1", {}, "openai:MODEL@URL"),
        ("openai:m@ftp://127.0.0.1/v1", {}, "URL"),
        ("openai:m@http://127.0.0.1:1/v1", {"server": ServerOptions(dialect="vlm")}, "no dialect"),
        ("openai:m@http://127.0.0.1:1/v1", {"server": ServerOptions(probe=False)}, "has to be named"),
        ("openai:m@http://127.0.0.1:1/v1", {"options": LoadOptions()}, "is on a server"),
        (
            "openai:m@http://127.0.0.1:1/v1",
            {"server": ServerOptions(top_logprobs=5)},
            r"top_k is 20, and the server is asked for 5",
        ),
        (
            "openai:m@http://127.0.0.1:1/v1",
            {"server": ServerOptions(dialect="tgi", probe=False)},
            "at most 5 candidates",
        ),
        (
            "openai:m@http://127.0.0.1:1/v1",
            {"server": ServerOptions(vocab_size=50), "config": TrajectoryConfig(entropy_threshold=9.0)},
            "can never fail",
        ),
    ],
)
def test_what_cannot_be_right_is_said_without_asking_the_server(name, options, says):
    """A typing error in a configuration must not wait for the first request at night."""
    with pytest.raises(ConfigurationError, match=says):
        HamiltonianMonitor(name, **options)


def test_a_missing_package_is_said_when_the_monitor_is_made(monkeypatch):
    """With the extra to install, and not as an ImportError of a stranger's module."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "openai" else object())
    with pytest.raises(DependencyMissingError) as raised:
        HamiltonianMonitor("openai:m@http://127.0.0.1:1/v1")
    assert "cert-framework[openai]" in str(raised.value.hint)


def test_a_larger_k_is_asked_of_the_server():
    """A config with more candidates works on a server that gives them, without an option said twice."""
    token = Token("a", -0.5, tuple((f"b{rank}", -2.0 - rank) for rank in range(60)))
    many = replace(ok((token,)), stop=replace(token, text="", special=True))
    config = TrajectoryConfig(top_k=40)
    with (
        FaultServer(flavour="llama.cpp", otherwise=many) as server,
        HamiltonianMonitor(named(server), config=config) as monitor,
    ):
        assert monitor.analyze("When?").generation.steps.top_k == 40


def test_a_chat_is_scored_where_the_server_can_and_refused_where_not():
    """The last message alone is judged; a server that cannot says so, with what could."""
    chat = [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "At nine."}]
    with FaultServer(flavour="vllm") as server, HamiltonianMonitor(named(server)) as monitor:
        analysis = monitor.score(chat)
        assert (analysis.generated_text, analysis.generation_steps) == ("At nine.", 2)
        assert analysis.generation.prompt == (Message("user", "When?"),)
    with FaultServer(flavour="sglang") as server, HamiltonianMonitor(named(server)) as monitor:
        with pytest.raises(ConfigurationError, match="cannot score an answer to messages"):
            monitor.score(chat)
        assert monitor.score("It opens", " at nine.").generation_steps == 2
        with pytest.raises(InputError, match="token ids"):
            monitor.score("It opens", token_ids=[1, 2])


REPLIES: list[tuple[str, Reply, type[CertError] | str]] = [
    ("no log-probabilities", BARE, CertError),
    ("an empty answer", ok(()), "not_measured"),
    ("a refusal", replace(ok("I can't help."), refused=True), "pass"),
    ("malformed JSON", ok("Maybe", fault="malformed"), CertError),
    ("an error inside", ok("Maybe", fault="error_inside"), CertError),
    ("a cut body", ok("Maybe", fault="truncated"), CertError),
    ("another page", Reply(raw=b"<html>", headers={"content-type": "text/html"}), CertError),
]


@pytest.mark.parametrize(("reply", "expected"), [reply[1:] for reply in REPLIES], ids=[r[0] for r in REPLIES])
@pytest.mark.parametrize("way", ["analyze", "batch", "stream"])
def test_whatever_a_server_answers_is_a_typed_error_or_says_what_it_is(reply, expected, way):
    """At every entry point: no traceback of a stranger, no number where nothing was measured."""
    options = ServerOptions(policy=ONE_TRY)
    chat = [Message("user", "When?")]
    with (
        FaultServer(flavour="openai") as server,
        HamiltonianMonitor(named(server), server=options) as monitor,
    ):
        monitor.load()
        server.then([reply] * 3)

        def ask() -> Any:
            if way == "batch":
                (outcome,) = monitor.analyze_batch([chat], return_exceptions=True)
                if isinstance(outcome, CertError):
                    raise outcome
                return outcome
            if way == "stream":
                with monitor.stream(chat) as stream:
                    list(stream)
                return stream.analysis
            return monitor.analyze(chat)

        if isinstance(expected, str):
            analysis = ask()
            assert analysis.verdict in (expected, "undecided")
            if not analysis.generation_steps:
                assert analysis.verdict == "not_measured"
                assert math.isnan(analysis.avg_perplexity)
            if reply.refused:
                assert analysis.generation.finish_reason == "refusal"
        else:
            with pytest.raises(expected):
                ask()
