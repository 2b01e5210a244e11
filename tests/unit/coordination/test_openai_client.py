"""Servers that speak the OpenAI API: what is sent to each kind, typed output, log-probabilities, costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("openai")

from cert.coordination.chat import ChatRequest, Completion, Usage
from cert.coordination.client import OpenAIChatClient, Price, Tool
from cert.core.errors import (
    CertError,
    ConfigurationError,
    DependencyMissingError,
    PromptTooLongError,
    UpstreamProtocolError,
    UpstreamRejectedError,
)
from cert.core.resilience import ResiliencePolicy
from cert.core.retry import RetryPolicy
from cert.testing import FaultServer, Reply, Token, error, ok

PRICE = Price(input=Decimal(3), output=Decimal(15))
QUICK = ResiliencePolicy(
    deadline_seconds=20.0, attempt_seconds=5.0, retry=RetryPolicy(initial_seconds=0.01, maximum_seconds=0.05)
)
SCORE = Tool("score", "Give a score.", {"type": "object", "properties": {"score": {"type": "integer"}}})

Use = Callable[[OpenAIChatClient], Coroutine[Any, Any, Any]]


def used(script: Iterable[Reply], use: Use, **options: Any) -> tuple[Any, FaultServer]:
    """Return what ``use`` returns of a client of a server with this script, and the server."""

    async def run(server: FaultServer) -> Any:
        chosen: dict[str, Any] = {"price": PRICE, "policy": QUICK} | options
        async with OpenAIChatClient("m", server.url + "/v1", "k", **chosen) as client:
            return await use(client)

    with FaultServer(script, api_key="k") as server:
        return asyncio.run(run(server)), server


def asked(
    script: Iterable[Reply], request: ChatRequest | None = None, **options: Any
) -> tuple[Completion, Any]:
    """Return the completion of one question, and the body that was sent."""
    question = request or ChatRequest.of("Why?")
    completion, server = used(script, lambda client: client.complete(question), **options)
    return completion, server.requests[-1].body


def test_a_request_is_sent_as_each_kind_of_server_takes_it():
    """OpenAI refuses the old name of the limit, and others do not know the new one."""
    request = ChatRequest.of("Why?", system="Be brief.", max_tokens=9, temperature=0.2, seed=2**40, draw="d")
    _, sent = asked([ok("x")], request)
    assert sent == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        "max_tokens": 9,
        "temperature": 0.2,
        "seed": 2**40,
    }
    _, sent = asked([ok("x")], request, dialect="openai")
    assert sent["max_completion_tokens"] == 9
    assert "max_tokens" not in sent
    _, sent = asked([ok("x")], request, dialect="llama.cpp")
    assert 0 <= sent["seed"] <= 2**32 - 2


def test_a_tool_is_named_so_that_it_must_be_called():
    """A judge that may answer prose does so at the worst moment."""
    completion, sent = asked([Reply(arguments={"score": 7})], ChatRequest.of("Score it.", tool=SCORE))
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "score"}}
    assert sent["tools"][0]["function"]["parameters"] == dict(SCORE.schema)
    assert (completion.structured, completion.finish, completion.text) == ({"score": 7}, "tool_use", "")


def test_a_schema_gives_the_same_from_text():
    """Servers without tools have guided text."""
    request = ChatRequest.of("Score it.", tool=SCORE)
    completion, sent = asked([ok('{"score": 7}')], request, typed_output="json_schema")
    assert sent["response_format"]["json_schema"]["schema"] == dict(SCORE.schema)
    assert "tools" not in sent
    assert completion.structured == {"score": 7}


@pytest.mark.parametrize("text", ["prose", "7", '{"score": 7', '{"score": NaN}', "[1]", "[" * 5000])
def test_text_that_is_no_object_is_no_typed_answer(text):
    """What cannot be parsed is missing, never a guess."""
    request = ChatRequest.of("Score it.", tool=SCORE, max_tokens=9000)
    completion, _ = asked([ok(text)], request, typed_output="json_schema")
    assert completion.structured is None
    assert completion.text == text


@pytest.mark.parametrize(
    "calls",
    [
        None,
        [],
        "none",
        [{"function": None}],
        [{"function": {"name": "other", "arguments": "{}"}}],
        [{"function": {"name": "score", "arguments": "{"}}],
        [{"function": {"name": "score", "arguments": "7"}}],
        [{"function": {"name": "score"}}],
    ],
)
def test_calls_that_are_none_are_no_typed_answer(calls):
    """The same where the server lists what the model wrote in place of a call."""

    def broken(answer: Any) -> Any:
        answer["choices"][0]["message"]["tool_calls"] = calls
        return answer

    completion, _ = asked(
        [replace(Reply(arguments={}), rewrite=broken)], ChatRequest.of("Score it.", tool=SCORE)
    )
    assert completion.structured is None


def test_arguments_that_are_decoded_already_are_taken():
    """Some servers send an object in place of its text."""

    def decoded(answer: Any) -> Any:
        call = answer["choices"][0]["message"]["tool_calls"][0]["function"]
        call["arguments"] = json.loads(call["arguments"])
        return answer

    reply = replace(Reply(arguments={"score": 1}), rewrite=decoded)
    completion, _ = asked([reply], ChatRequest.of("Score it.", tool=SCORE))
    assert completion.structured == {"score": 1}


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (ok("Paris."), "Paris.", "stop"),
        (Reply(), "", "stop"),
        (replace(ok("I will not."), refused=True), "I will not.", "refusal"),
        (replace(ok("Cut"), finish="length"), "Cut", "length"),
        (replace(ok(""), finish="content_filter"), "", "content_filter"),
        (replace(ok("x"), finish="something_new"), "x", "unknown"),
        (replace(ok("Hm. Paris."), thought=1), " Paris.", "stop"),
    ],
)
def test_each_end_of_an_answer_is_told(reply, text, finish):
    """An empty, cut or refused answer that looks like a whole one is scored as one."""
    completion, _ = asked([reply])
    assert (completion.text, completion.finish) == (text, finish)


def test_log_probabilities_come_where_they_are_asked_for():
    """The trajectory monitor's signals on a judge's answer need its tokens."""
    tokens = (Token("Paris", -0.25, (("Lyon", -1.5),)), Token("!", -0.5, ()))
    completion, sent = asked([ok(tokens)], top_logprobs=2)
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
    assert completion.generation is not None
    assert completion.generation.steps.logprob.tolist() == [-0.25, -0.5]
    assert completion.generation.logprobs_mode == "unknown"
    completion, sent = asked([ok(tokens)])
    assert "logprobs" not in sent
    assert completion.generation is None


def test_log_probabilities_that_do_not_come_are_an_error():
    """Asked for and not given is not the same as not asked for."""

    def bare(answer: Any) -> Any:
        answer["choices"][0]["logprobs"] = None
        return answer

    with pytest.raises(UpstreamProtocolError, match="log-prob"):
        asked([replace(ok("x"), rewrite=bare)] * 6, top_logprobs=2)
    completion, sent = asked([Reply(arguments={})], ChatRequest.of("x", tool=SCORE), top_logprobs=2)
    assert "logprobs" not in sent
    assert completion.generation is None


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": 3},
        {"prompt_tokens": 3, "completion_tokens": -1},
        {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}},
        {"prompt_tokens": 3, "completion_tokens": 10**12},
    ],
)
def test_an_answer_that_cannot_be_accounted_for_is_none(usage):
    """A guess would falsify the bill, and asking again would pay again."""

    def counted(answer: Any) -> Any:
        return answer | {"usage": usage}

    async def use(client: OpenAIChatClient) -> Any:
        with pytest.raises(UpstreamProtocolError):
            await client.complete("Why?")
        return client.get_cost_stats()

    stats, server = used([replace(ok("x"), rewrite=counted)], use)
    assert len(server.requests) == 1
    assert stats.at_most > stats.total == 0


def test_costs_are_the_servers_own_account_to_the_micro_dollar():
    """Cached tokens are among the prompt's in this API, and must not be paid twice."""
    exact = {"input": "0.31", "output": "1.57", "cache_read": "0.03", "cache_write": "0.39"}
    prices: dict[str, Any] = {name: Decimal(price) for name, price in exact.items()}
    replies = [
        replace(ok("word " * (number % 7 + 1)), cache_read=number % 5, cache_write=number % 3)
        for number in range(30)
    ]

    async def run(server: FaultServer) -> Any:
        client = OpenAIChatClient("m", server.url + "/v1", price=Price(**prices))
        async with client:
            await asyncio.gather(*(client.complete("why " * 9, agent=f"a{n % 2}") for n in range(30)))
            return client.get_cost_stats()

    charged: dict[str, Any] = {f"{name}_price": price for name, price in prices.items()}
    with FaultServer(replies, **charged) as server:
        stats = asyncio.run(run(server))
        account = server.account
    assert stats.total == Decimal(account.micro_dollars) / 1_000_000 == sum(stats.by_agent.values())
    assert stats.usage == Usage(
        account.input_tokens, account.output_tokens, account.cache_read_tokens, account.cache_write_tokens
    )


@pytest.mark.parametrize(
    "fault",
    [
        error(429, retry_after=0.01),
        error(503),
        ok(fault="reset"),
        ok(fault="truncated"),
        ok(fault="malformed"),
    ],
)
def test_what_may_pass_is_tried_again(fault):
    """The same resilience as for any other vendor."""
    completion, _ = asked([fault, ok("Because.")])
    assert (completion.text, completion.attempts) == ("Because.", 2)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (error(401), UpstreamRejectedError),
        (error(404), UpstreamRejectedError),
        (error(400, "maximum context length is 9 tokens"), PromptTooLongError),
        (
            replace(error(429), rewrite=lambda body: {"error": {"code": "insufficient_quota"}}),
            UpstreamRejectedError,
        ),
    ],
)
def test_what_cannot_pass_is_not(fault, kind):
    """A quota that is used up is no rate limit."""

    async def use(client: OpenAIChatClient) -> Any:
        with pytest.raises(CertError) as raised:
            await client.complete("Why?")
        return raised.value, client.get_cost_stats()

    (raised, stats), server = used([fault], use)
    assert type(raised) is kind
    assert len(server.requests) == 1
    assert stats.at_most == 0


def test_a_server_of_ones_own_has_no_price_until_one_is_given():
    """Free by default would make every comparison of costs wrong in silence."""
    with pytest.raises(ConfigurationError, match="no price"):
        OpenAIChatClient("gpt-6-sol", "http://127.0.0.1:8000/v1")
    free = OpenAIChatClient("gpt-6-sol", "http://127.0.0.1:8000/v1", price=Price.free())
    assert free.cost(Usage(10, 10)) == 0
    vendors = OpenAIChatClient("gpt-6-sol", "https://api.openai.com/v1", "k")
    assert vendors.cost(Usage(1, 1)) == 12
    assert str(vendors.identity) == "openai:gpt-6-sol"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": " "}, "model is empty"),
        ({"base_url": "127.0.0.1:8000"}, "base URL"),
        ({"dialect": "none"}, "dialect"),
        ({"typed_output": "xml"}, "typed_output"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"answer_bytes": 0}, "answer_bytes"),
        ({"max_cost_total": -1}, "max_cost_total"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_at_once(options, match):
    """A mistake in a setting shows when the client is made, not after an hour."""
    right: dict[str, Any] = {
        "model": "m",
        "base_url": "http://127.0.0.1:1/v1",
        "price": PRICE,
        "api_key": "sk-hidden",
    }
    with pytest.raises(ConfigurationError, match=match):
        OpenAIChatClient(**{**right, **options})
    assert "sk-hidden" not in repr(OpenAIChatClient(**right))


def test_a_missing_sdk_names_its_extra(monkeypatch):
    """The user has to know what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyMissingError) as raised:
        OpenAIChatClient("m", "http://127.0.0.1:1/v1", price=PRICE)
    assert "cert-framework[coordination]" in str(raised.value.hint)
