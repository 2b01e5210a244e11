"""The vendors' own SDKs, unchanged, against the scripted server: the proof that it speaks their formats."""

from __future__ import annotations

import pytest

from cert.testing import FaultServer, Token, error, ok


def test_anthropics_sdk_gets_messages_streams_and_errors():
    """The double is worthless where the real client understands something else."""
    anthropic = pytest.importorskip("anthropic")
    script = [ok("Paris it is."), ok("one two"), error(529), error(429, retry_after=2), ok(fault="truncated")]
    question = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "?"}]}
    with FaultServer(script, api_key="k") as server:
        client = anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0, timeout=10)
        message = client.messages.create(**question)
        assert message.content[0].text == "Paris it is."
        assert (message.usage.output_tokens, message.stop_reason) == (3, "end_turn")
        with client.messages.stream(**question) as stream:
            assert list(stream.text_stream) == ["one", " two"]
            assert stream.get_final_message().usage.output_tokens == 2
        with pytest.raises(anthropic.InternalServerError) as overloaded:
            client.messages.create(**question)
        assert overloaded.value.status_code == 529
        with pytest.raises(anthropic.RateLimitError) as limited:
            client.messages.create(**question)
        assert limited.value.response.headers["retry-after"] == "2"
        with pytest.raises(Exception, match=r"(?i)peer closed|connection"):
            client.messages.create(**question)
        client.close()


def test_openais_sdk_gets_log_probabilities_streams_and_errors():
    """The same for the other vendor, whose chunks carry what the monitor is about."""
    openai = pytest.importorskip("openai")
    tokens = (Token("Paris", -0.25, (("Lyon", -1.5),)), Token("!", -0.5, ()))
    script = [ok(tokens), ok(tokens), error(500), error(429, retry_after_ms=20), ok(fault="reset")]
    question = {
        "model": "m",
        "messages": [{"role": "user", "content": "?"}],
        "logprobs": True,
        "top_logprobs": 2,
    }
    with FaultServer(script, api_key="k") as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="k", max_retries=0, timeout=10)
        answer = client.chat.completions.create(**question)
        assert answer.choices[0].message.content == "Paris!"
        assert [token.logprob for token in answer.choices[0].logprobs.content] == [-0.25, -0.5]
        assert answer.choices[0].logprobs.content[0].top_logprobs[1].token == "Lyon"
        chunks = list(client.chat.completions.create(**question, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris!"
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**question)
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**question)
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(**question)
        client.close()
