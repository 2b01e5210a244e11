"""What a server gives is found out, not believed."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("openai")

from cert.backends import GenerationRequest, Message
from cert.backends.openai_server import DIALECTS, OpenAIBackend, Profile
from cert.core.errors import (
    CertError,
    ConfigurationError,
    RetriesExhaustedError,
    UpstreamConnectionError,
    UpstreamRejectedError,
)
from cert.core.resilience import ResiliencePolicy
from cert.core.retry import RetryPolicy
from cert.testing import FaultServer, Reply, Token, error, ok
from cert.testing.flavours import FLAVOURS, Flavour

POLICY = ResiliencePolicy(deadline_seconds=30, attempt_seconds=20, retry=RetryPolicy(attempts=1))
EVEN = ok((Token("a", -3.0, tuple((f"b{rank}", -3.0) for rank in range(9))),))


def probed(flavour: str | Flavour, reply: Reply | None = None, **options: Any) -> Profile:
    with FaultServer(flavour=flavour, otherwise=reply or ok("Maybe so")) as server:
        backend = OpenAIBackend("scripted", server.url + "/v1", **{"policy": POLICY} | options)
        try:
            return backend.probe()
        finally:
            backend.close()


def flavoured(name: str, **changes: Any) -> Flavour:
    return dataclasses.replace(FLAVOURS[name], **changes)


@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        (
            "openai",
            {"plain": False, "max_top_logprobs": 20, "mode": "raw", "scores": False, "scores_chats": False},
        ),
        (
            "vllm",
            {"plain": True, "max_top_logprobs": 20, "mode": "raw", "scores": True, "scores_chats": True},
        ),
        ("sglang", {"mode": "processed", "scores": True, "scores_chats": False, "context_window": 4096}),
        (
            "llama.cpp",
            {"plain": True, "mode": "raw", "scores": False, "token_ids": True, "vocab_size": 50_000},
        ),
        ("tgi", {"plain": False, "max_top_logprobs": 5, "mode": "processed", "scores": False}),
    ],
)
def test_each_server_is_known_by_what_it_does(flavour, expected):
    """A monitor that promises what the server cannot give fails in the middle of the work."""
    profile = probed(flavour)
    assert profile.dialect is DIALECTS[flavour]
    assert {name: getattr(profile, name) for name in expected} == expected
    assert profile.chat
    assert profile.streams


@pytest.mark.parametrize("name", ["vllm", "tgi"])
@pytest.mark.parametrize("processed", [(), ("temperature",), ("top_p",), ("temperature", "top_p")])
def test_raw_or_processed_is_measured(name, processed):
    """A calibration for raw numbers is wrong for others, and start options decide which they are."""
    mode = probed(flavoured(name, processed=frozenset(processed))).mode
    assert mode == ("processed" if processed else "raw")


def test_where_nothing_can_be_told_nothing_is_said():
    """Candidates that are all alike look the same at every temperature."""
    assert probed("vllm", EVEN).mode == "unknown"


@pytest.mark.parametrize("most", [3, 20, 50])
@pytest.mark.parametrize("clamps", [True, False])
def test_how_many_candidates_is_what_the_server_shows(most, clamps):
    """A start option of the server decides, and some cut in silence."""
    token = Token("a", -0.5, tuple((f"b{rank}", -2.0 - rank) for rank in range(60)))
    many = replace(ok((token,)), stop=replace(token, text="</s>", special=True))
    profile = probed(flavoured("sglang", most=most, clamps=clamps), many, top_logprobs=40)
    shown = min(most, 40) if clamps or most >= 40 else {3: 1, 20: 20}[most]
    assert profile.max_top_logprobs == shown


def test_one_more_is_asked_where_it_is_allowed():
    """With one candidate more, vLLM's sampled token takes nobody's place."""
    many = ok((Token("odd", -9.0, tuple((f"b{rank}", -1.2 - 0.4 * rank) for rank in range(60))),))
    with FaultServer(flavour=flavoured("vllm", most=50), otherwise=many) as server:
        backend = OpenAIBackend("scripted", server.url + "/v1", policy=POLICY)
        steps = backend.generate(GenerationRequest((Message("user", "?"),))).steps
        assert server.requests[-1].body["top_logprobs"] == 21
        assert steps.top_logprobs[0].tolist() == [-1.2 - 0.4 * rank for rank in range(20)]
        backend.close()


def test_no_log_probabilities_at_all_is_said_at_once():
    """A monitor of such a server could measure nothing."""

    def bare(data: Any) -> Any:
        for choice in data.get("choices", ()):
            choice["logprobs"] = None
        return data

    with pytest.raises(ConfigurationError, match="no log-probabilities") as raised:
        probed("vllm", replace(ok("Maybe"), rewrite=bare))
    assert raised.value.context["missing"] == "logprobs"


def test_a_server_of_another_kind_than_stated_is_refused():
    """The quirks of one kind read with the rules of another give wrong numbers."""
    with pytest.raises(ConfigurationError, match="says that it is sglang"):
        probed("sglang", dialect="vllm")
    assert probed("sglang", dialect="openai-compatible").dialect.name == "openai-compatible"
    with pytest.raises(ConfigurationError, match="no dialect"):
        OpenAIBackend("m", "http://127.0.0.1:1/v1", dialect="vlm")


def test_an_unknown_server_is_taken_for_nothing_special():
    """A proxy or a new server works with what it shows."""
    profile = probed(flavoured("vllm", owner="somebody", extra=None))
    assert profile.dialect.name == "openai-compatible"
    assert (profile.mode, profile.max_top_logprobs, profile.scores) == ("raw", 20, True)
    assert profile.scores_chats
    older = flavoured("vllm", owner="somebody", extra=None, prompt_logprobs=False)
    assert not probed(older).scores_chats


def test_without_a_probe_the_dialect_is_believed_and_nothing_called_raw():
    """Whoever may not send test requests gets no promise about the numbers."""
    with FaultServer(flavour="vllm") as server:
        backend = OpenAIBackend("scripted", server.url + "/v1", dialect="vllm", probe=False, policy=POLICY)
        assert backend.capabilities.logprobs_mode == "unknown"
        assert backend.identity.backend == "vllm"
        assert server.requests == ()
        backend.close()
    with pytest.raises(ConfigurationError, match="dialect has to be named"):
        OpenAIBackend("m", "http://127.0.0.1:1/v1", probe=False)


def test_a_probe_that_failed_is_made_again():
    """A server that starts after its client must be found."""
    with FaultServer([error(401)], flavour="vllm") as server:
        backend = OpenAIBackend("scripted", server.url + "/v1", policy=POLICY)
        with pytest.raises(UpstreamRejectedError):
            backend.probe()
        assert backend.probe().dialect.name == "vllm"
        asked = len(server.requests)
        assert backend.capabilities == backend.probe().capabilities
        assert len(server.requests) == asked
        backend.close()


def test_a_server_that_is_not_there_is_said_to_be_so():
    """The commonest mistake is a wrong address."""
    with FaultServer() as server:
        url = server.url
    backend = OpenAIBackend("m", url + "/v1", policy=POLICY)
    with pytest.raises(UpstreamConnectionError, match="cannot be reached") as raised:
        backend.probe()
    assert raised.value.context["sent"] is False
    backend.close()


def test_a_model_that_is_not_there_is_said_to_be_so():
    """The second commonest is a wrong name."""
    with pytest.raises(CertError, match="404") as raised:
        probed("vllm", error(404, "no such model"))
    assert "name of the model" in str(raised.value.hint)


def test_every_dialect_names_its_sources():
    """A quirk without a source cannot be checked when the server changes."""
    for dialect in DIALECTS.values():
        assert dialect.note
        assert dialect.sources or dialect.name == "openai-compatible"


def test_a_server_that_cannot_be_reached_is_not_one_without_log_probabilities():
    """Whoever reads that the server lacks them changes its start options, and it was only switched off."""
    with FaultServer() as server:
        gone = server.url
    patient = replace(POLICY, retry=RetryPolicy(attempts=2, initial_seconds=0.01))
    backend = OpenAIBackend("scripted", gone + "/v1", policy=patient)
    try:
        with pytest.raises(RetriesExhaustedError) as failure:
            backend.probe()
    finally:
        backend.close()
    assert isinstance(failure.value.__cause__, UpstreamConnectionError)
