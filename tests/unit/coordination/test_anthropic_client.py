"""The Claude API: what is sent, what answers and failures mean, and where keys and money go."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import sys
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("anthropic")

import anthropic
import anthropic.types
import httpx2
from pydantic import SecretStr

from cert.coordination.chat import ChatRequest, Completion, Usage
from cert.coordination.client import AnthropicClientWithResilience, Price, Tool
from cert.coordination.clients import anthropic as module
from cert.coordination.clients.anthropic_errors import ANTHROPIC_ERRORS
from cert.coordination.clients.arrivals import ArrivalLimiter
from cert.core.budget import Budget
from cert.core.circuit_breaker import CircuitBreaker
from cert.core.errors import (
    BudgetExceededError,
    CertError,
    CircuitOpenError,
    ConfigurationError,
    DeadlineExceededError,
    DependencyMissingError,
    InputError,
    PromptTooLongError,
    RateLimitedError,
    RetriesExhaustedError,
    UpstreamConnectionError,
    UpstreamProtocolError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from cert.core.rate_limit import RateLimiter
from cert.core.resilience import ResiliencePolicy
from cert.core.retry import RetryPolicy
from cert.testing import FakeClock, FaultServer, Reply, error, ok

PRICE = Price(input=Decimal(3), output=Decimal(15))
QUICK = ResiliencePolicy(
    deadline_seconds=20.0, attempt_seconds=5.0, retry=RetryPolicy(initial_seconds=0.01, maximum_seconds=0.05)
)
REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/messages")
# Retried, or not, as their statuses are: of the SDK's 503 and 529 none is about money.
UNAVAILABLE_BY_THEIR_BASE = {
    "BetaRegistrationPendingError",
    "CMEKContextUnavailableError",
    "CMEKKeyUnreachableError",
    "CompactionUnavailableError",
}

Use = Callable[[AnthropicClientWithResilience], Coroutine[Any, Any, Any]]


def client_of(server: FaultServer, **options: Any) -> AnthropicClientWithResilience:
    chosen: dict[str, Any] = {"base_url": server.url, "price": PRICE, "policy": QUICK}
    chosen |= {"requests_per_minute": None} | options
    return AnthropicClientWithResilience("k", **chosen)


def used(script: Iterable[Reply], use: Use, **options: Any) -> tuple[Any, FaultServer]:
    """Return what ``use`` returns of a client of a server with this script, and the server."""

    async def run(server: FaultServer) -> Any:
        async with client_of(server, **options) as client:
            return await use(client)

    with FaultServer(script, api_key="k") as server:
        return asyncio.run(run(server)), server


def asked(script: Iterable[Reply], prompt: str = "Why?", **options: Any) -> tuple[Completion, FaultServer]:
    """Return the completion of one question, and the server."""
    return used(script, lambda client: client.complete(prompt), **options)


def failure(script: Iterable[Reply], **options: Any) -> CertError:
    """Return what one question fails with."""
    with pytest.raises(CertError) as raised:
        asked(script, **options)
    return raised.value


# --- what is sent ---


def test_a_request_is_sent_as_the_api_takes_it():
    """A field under another name is refused by the vendor, or worse: ignored."""
    tool = Tool("score", "Give a score.", {"type": "object", "properties": {}})
    request = ChatRequest.of(
        "Why?", system="Be brief.", max_tokens=9, temperature=0.2, seed=5, tool=tool, draw="d"
    )
    _, server = used([Reply(arguments={})], lambda client: client.complete(request), model="claude-x")
    assert server.requests[0].body == {
        "model": "claude-x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Why?"}],
        "system": "Be brief.",
        "temperature": 0.2,
        "tools": [{"name": "score", "description": "Give a score.", "input_schema": dict(tool.schema)}],
        "tool_choice": {"type": "tool", "name": "score", "disable_parallel_tool_use": True},
    }


def test_nothing_comes_from_the_environment(monkeypatch):
    """A variable that was set for another program must not change where a key goes, or which one."""
    for name, value in {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "ANTHROPIC_API_KEY": "sk-environment",
        "ANTHROPIC_AUTH_TOKEN": "token-environment",
        "ANTHROPIC_CUSTOM_HEADERS": "x-custom: leaked\nAuthorization: Bearer other\nX-Api-Key: other",
    }.items():
        monkeypatch.setenv(name, value)
    _, server = asked([ok("Because.")])
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer k"
    assert "x-api-key" not in headers
    assert not [value for value in headers.values() if "leaked" in value or "environment" in value]
    with pytest.raises(ConfigurationError, match="needs a key"):
        AnthropicClientWithResilience()
    assert AnthropicClientWithResilience("k").identity.endpoint == "https://api.anthropic.com"


def test_a_server_of_ones_own_needs_no_key():
    """A gateway inside the network authorises by itself; the SDK's stand-in for a key must not go out."""

    async def run() -> None:
        async with AnthropicClientWithResilience(base_url=server.url, price=PRICE) as client:
            await client.complete("Why?")

    with FaultServer() as server:
        asyncio.run(run())
        assert "authorization" not in server.requests[0].headers


def test_the_program_of_version_4_finds_its_arguments():
    """Programs written to the specification construct the client this way."""
    client = AnthropicClientWithResilience(api_key="your_key", requests_per_minute=50, max_cost_per_hour=10.0)
    assert str(client.identity) == "anthropic:claude-sonnet-5-5"
    assert "your_key" not in repr(client)
    positional = inspect.signature(AnthropicClientWithResilience).parameters
    assert list(positional)[:4] == ["api_key", "model", "requests_per_minute", "max_cost_per_hour"]
    assert positional["requests_per_minute"].default == 50


# --- what answers mean ---


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (ok("Paris it is."), "Paris it is.", "stop"),
        (Reply(finish="stop_sequence"), "", "stop"),
        (Reply(), "", "stop"),
        (Reply(refused=True), "", "refusal"),
        (replace(ok("Cut"), finish="max_tokens"), "Cut", "length"),
        (replace(ok("Cut"), finish="model_context_window_exceeded"), "Cut", "length"),
        (replace(ok("Wait"), finish="pause_turn"), "Wait", "unknown"),
        (replace(ok("New"), finish="something_new"), "New", "unknown"),
    ],
)
def test_each_end_of_an_answer_is_told(reply, text, finish):
    """An empty, cut or refused answer that looks like a whole one is scored as one."""
    completion, _ = asked([reply])
    assert (completion.text, completion.finish) == (text, finish)


def test_content_that_is_no_text_is_left_out():
    """Thinking is not the answer, and a kind of block that is new must not break old programs."""

    def think(answer: Any) -> Any:
        answer["content"] = [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "text", "text": "One"},
            {"type": "server_tool_use", "id": "x", "name": "web", "input": {}},
            {"type": "text", "text": " two"},
            {"type": "novelty", "text": "no"},
        ]
        return answer

    completion, _ = asked([replace(ok("x"), rewrite=think)])
    assert completion.text == "One two"


def test_arguments_that_were_cut_are_none():
    """Half a judgement is no judgement."""
    tool = Tool("score", "Give a score.", {"type": "object"})
    replies = [replace(Reply(arguments={"score": 1}), finish="max_tokens"), Reply(arguments={"score": 2})]

    async def use(client: AnthropicClientWithResilience) -> list[Completion]:
        return [await client.complete("Why?", tool=tool) for _ in range(2)]

    (cut, whole), _ = used(replies, use)
    assert (cut.structured, cut.finish) == (None, "length")
    assert (whole.structured, whole.finish) == ({"score": 2}, "tool_use")


def test_two_calls_of_the_one_tool_are_no_answer():
    """A judge that calls its tool with a 2 and a 9 has not judged; taking the first would be a guess."""

    def twice(body):
        return {**body, "content": [*body["content"], {**body["content"][-1], "input": {"score": 9}}]}

    tool = Tool("rate", "Rates.", {"type": "object"})
    replies = [Reply(arguments={"score": 2}, rewrite=twice)]
    completion, _ = used(replies, lambda client: client.complete("?", tool=tool))
    assert completion.structured is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda answer: answer | {"usage": None},
        lambda answer: answer | {"usage": {"input_tokens": -1, "output_tokens": 2}},
        lambda answer: answer | {"usage": {"input_tokens": 1}},
        lambda answer: answer | {"content": "text"},
        lambda answer: answer | {"content": [{"text": "no type"}]},
        lambda answer: {"type": "error", "error": {"type": "api_error", "message": "secret"}},
        lambda answer: [answer],
    ],
)
def test_answers_that_make_no_sense_are_no_answers(wrong):
    """An answer whose cost nobody knows cannot be accounted for; a guess would falsify the bill."""
    one = ResiliencePolicy(deadline_seconds=9, attempt_seconds=5, retry=RetryPolicy(attempts=1))
    raised = failure([replace(ok("x"), rewrite=wrong)], policy=one)
    assert isinstance(raised, UpstreamProtocolError)
    assert "secret" not in str(raised)


def test_an_answer_larger_than_the_limit_is_refused_once():
    """A server gone wild must not fill the memory, and asking again would pay again."""
    raised = failure([ok("x" * 5000)], answer_bytes=1000)
    assert isinstance(raised, UpstreamProtocolError)
    assert raised.context["most_bytes"] == 1000


def test_a_page_of_a_proxy_is_no_answer():
    """A login page of a captive network is said to be one, not shown as broken JSON."""
    page = Reply(raw=b"<html>", headers={"content-type": "text/html"})
    raised = failure([page])
    assert isinstance(raised, UpstreamProtocolError)
    assert "text/html" in str(raised)


# --- what failures mean ---


@pytest.mark.parametrize(
    "faults",
    [
        [error(429)],
        [error(429, retry_after=0.05)],
        [error(429, retry_after_ms=20)],
        [error(529)],
        [error(500), error(502), error(503), error(504)],
        [ok(fault="reset")],
        [ok(fault="reset_midway")],
        [ok(fault="truncated")],
        [ok(fault="malformed")],
        [ok(fault="error_inside")],
        [error(408), error(409)],
    ],
)
def test_what_may_pass_is_tried_again(faults):
    """A user should not have to restart a suite for a hiccup of the vendor."""
    breaker = CircuitBreaker("test")
    completion, server = asked([*faults, ok("Because.")], breaker=breaker)
    assert completion.text == "Because."
    assert completion.attempts == len(faults) + 1 == len(server.requests)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (error(400), UpstreamRejectedError),
        (error(400, "prompt is too long: 9 tokens > 1 maximum"), PromptTooLongError),
        (error(401), UpstreamRejectedError),
        (error(402), UpstreamRejectedError),
        (error(403), UpstreamRejectedError),
        (error(404), UpstreamRejectedError),
        (error(413), PromptTooLongError),
        (error(422), UpstreamRejectedError),
    ],
)
def test_what_cannot_pass_is_not(fault, kind):
    """Asking six times with a wrong key locks accounts."""

    async def use(client: AnthropicClientWithResilience) -> Any:
        with pytest.raises(kind):
            await client.complete("Why?")
        return client.get_cost_stats()

    stats, server = used([fault], use)
    assert len(server.requests) == 1
    assert stats.at_most == 0


@pytest.mark.parametrize("code", ["contract_spend_limit_reached", "enforced_spend_limit_reached"])
def test_a_spend_limit_is_no_rate_limit(code):
    """The SDK counts both as 429; waiting for next month's money inside a retry helps nobody."""
    raised = failure([_told(code)])
    assert isinstance(raised, UpstreamRejectedError)
    assert raised.context["code"] == code
    assert not raised.retryable


def test_a_limit_on_growth_is_a_rate_limit():
    """The vendor says when to come back, and then it works."""
    reply = replace(_told("ramp_limit_exceeded"), retry_after=0.05)
    completion, _ = asked([reply, ok("Because.")])
    assert completion.attempts == 2


def _told(code: str) -> Reply:
    def detailed(body: Any) -> Any:
        body["error"]["details"] = {"error_code": code}
        return body

    return replace(error(429), rewrite=detailed)


def test_when_to_come_back_is_kept_to():
    """A client that asks before the time that it was told is blocked for longer."""
    clock = FakeClock()

    async def run(server: FaultServer) -> None:
        async with client_of(server, clock=clock) as client:
            task = asyncio.create_task(client.complete("Why?"))
            assert await asyncio.to_thread(server.wait_for_requests, 1)
            while not clock.sleeping:
                await asyncio.sleep(0.01)
            await clock.advance_async(6.9)
            assert len(server.requests) == 1
            await clock.advance_async(1.0)
            assert (await task).attempts == 2

    # The deadline is a real one, and the wait that the server asks for is within it.
    with FaultServer([error(429, retry_after=7), ok("Because.")]) as server:
        asyncio.run(run(server))


def test_a_time_out_of_an_attempt_is_tried_again():
    """One connection that hangs must not take the whole deadline."""
    policy = replace(QUICK, attempt_seconds=1.0)
    (completion, stats), _ = used([ok(fault="hang"), ok("Because.")], _ask_and_account, policy=policy)
    assert completion.attempts == 2
    assert stats.unanswered == 1


async def _ask_and_account(client: AnthropicClientWithResilience) -> Any:
    return await client.complete("Why?"), client.get_cost_stats()


def test_the_latency_is_that_of_the_answer_alone():
    """Latency with retries and waiting in it would make a good model look slow."""
    completion, _ = asked([error(500), replace(ok("Because."), delay=0.1)], policy=_slow_retry())
    assert 0.1 <= completion.latency_seconds < 0.35


def _slow_retry() -> ResiliencePolicy:
    return replace(QUICK, retry=RetryPolicy(initial_seconds=1.0, maximum_seconds=1.0))


def test_a_server_that_stays_broken_opens_the_circuit():
    """Thousands of calls to a dead server cost time and block its recovery."""

    async def use(client: AnthropicClientWithResilience) -> None:
        with pytest.raises(CircuitOpenError):
            await client.complete("Why?")
        with pytest.raises(CircuitOpenError):
            await client.complete("Why?")

    twenty = replace(QUICK, retry=RetryPolicy(attempts=30, initial_seconds=0.001, maximum_seconds=0.001))
    _, server = used([error(500)] * 30, use, policy=twenty)
    assert len(server.requests) == 20


def test_errors_that_come_before_the_answers_open_nothing():
    """Of forty calls at once, those that fail are done first: five in a row say nothing of the server."""
    script = [error(500) if number % 5 == 0 else replace(ok("Because."), delay=0.2) for number in range(40)]

    async def use(client: AnthropicClientWithResilience) -> list[Completion]:
        return await asyncio.gather(*(client.complete("Why?") for _ in range(40)))

    completions, _ = used(script, use)
    assert {completion.text for completion in completions} == {"Because.", "Paris is the capital of France."}


def test_attempts_that_are_used_up_say_why():
    """The last failure is what the user has to mend."""
    two = replace(QUICK, retry=RetryPolicy(attempts=2, initial_seconds=0.01))
    with pytest.raises(RetriesExhaustedError) as raised:
        asked([error(500), error(500)], policy=two)
    assert isinstance(raised.value.__cause__, UpstreamUnavailableError)


def test_no_error_quotes_the_prompt_or_the_key():
    """Errors end in logs and tickets."""
    prompt = "the patient is called Wolfeschlegelsteinhausen"
    replies = [
        error(400, f"bad words: {prompt}"),
        error(400, "unknown field Wolfeschlegelsteinhausen"),
        error(401, "key k-very-secret-key is revoked"),
        error(400, "max_tokens is too large"),
    ]

    async def run(server: FaultServer) -> list[str]:
        told = []
        client = AnthropicClientWithResilience("k-very-secret-key", base_url=server.url, price=PRICE)
        async with client:
            for _ in replies:
                with pytest.raises(CertError) as raised:
                    await client.complete(prompt)
                told.append(f"{raised.value} {raised.value.to_dict()}")
        return told

    with FaultServer(replies) as server:
        told = asyncio.run(run(server))
    assert not [text for text in told if "Wolfe" in text or "very-secret" in text]
    assert "max_tokens is too large" in told[-1]


def test_nothing_is_logged_of_prompts_and_keys(caplog):
    """A log file is read by more people than may see the prompts."""
    with caplog.at_level(logging.DEBUG, logger="cert"):
        asked([error(500), ok("Because of Ozymandias.")], "Why Rumpelstiltskin?")
    assert not [text for text in caplog.messages if "Rumpel" in text or "Ozymandias" in text]


# --- money ---


def test_costs_are_the_servers_own_account_to_the_micro_dollar():
    """A bill that differs from ours by a little differs by much at the end of the month."""
    prices = {"input": "0.31", "output": "1.57", "cache_read": "0.03", "cache_write": "0.39"}
    exact: dict[str, Any] = {name: Decimal(price) for name, price in prices.items()}

    def reply(number: int) -> Reply:
        return replace(ok("word " * (number % 7 + 1)), cache_read=number % 5, cache_write=number % 3)

    async def run(server: FaultServer) -> Any:
        async with client_of(server, price=Price(**exact)) as client:
            await asyncio.gather(
                *(client.complete("why " * (number + 9), agent=f"a{number % 3}") for number in range(60))
            )
            return client.get_cost_stats()

    dearer: dict[str, Any] = {f"{name}_price": price for name, price in exact.items()}
    with FaultServer([reply(number) for number in range(60)], **dearer) as server:
        stats = asyncio.run(run(server))
        account = server.account
    assert stats.total == Decimal(account.micro_dollars) / 1_000_000
    assert sum(stats.by_agent.values()) == stats.total == sum(stats.by_hour.values())
    assert set(stats.by_agent) == {"a0", "a1", "a2"}
    assert stats.usage == Usage(
        account.input_tokens, account.output_tokens, account.cache_read_tokens, account.cache_write_tokens
    )
    assert (stats.unanswered, stats.at_most) == (0, stats.total)


def test_the_bill_lies_between_what_is_known_and_what_may_be():
    """Under faults nobody knows the bill exactly: both ends have to hold it."""
    faults = [ok(fault="reset_midway"), ok(fault="truncated"), error(500), ok(fault="reset"), error(429)] * 4
    script = [reply for fault in faults for reply in (fault, ok("fine"))]

    async def run(server: FaultServer) -> Any:
        async with client_of(server, policy=replace(QUICK, deadline_seconds=60)) as client:
            for _ in range(20):
                await client.complete("Why?", max_tokens=50)
            return client.get_cost_stats()

    with FaultServer(script) as server:
        stats = asyncio.run(run(server))
        billed = Decimal(server.account.micro_dollars) / 1_000_000
    assert stats.total < billed <= stats.at_most
    assert stats.unanswered == 16  # all but the 429s


def test_a_budget_that_ends_in_the_middle_keeps_what_was_made():
    """What is paid for stays, and the next call is refused before it costs anything."""
    # A question may cost up to 1,260 micro-dollars and does cost about 50.
    request = ChatRequest.of("Why?", max_tokens=64)

    async def use(client: AnthropicClientWithResilience) -> Any:
        most, made = client.most(request), []
        while True:
            try:
                made.append(await client.complete(request))
            except BudgetExceededError:
                break
        client.reset_cost()
        with pytest.raises(BudgetExceededError):
            await client.complete(request)
        return most, made

    (most, made), server = used([ok("Because.")] * 99, use, max_cost_per_hour=Decimal("0.0016"))
    spent = sum(completion.cost_micro_dollars for completion in made)
    assert len(made) == len(server.requests) >= 2
    assert spent <= 1600 < spent + most
    assert server.account.micro_dollars == spent


def test_a_cancelled_completion_keeps_its_reservation():
    """The vendor may bill it, so the money is not there for another call."""
    budget = Budget(limit_per_hour=10_000)

    async def use(client: AnthropicClientWithResilience) -> Any:
        request = ChatRequest.of("Why?", max_tokens=64)
        task = asyncio.create_task(client.complete(request, agent="a"))
        while not budget.snapshot().reserved:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return client.most(request), client.get_cost_stats()

    (most, stats), _ = used([ok(fault="hang")], use, budget=budget)
    snapshot = budget.snapshot()
    assert (snapshot.spent_in_total, snapshot.reserved) == (most, 0)
    assert (stats.total, stats.at_most) == (0, Decimal(most) / 1_000_000)


def test_without_limits_nothing_is_limited():
    """None means none, for money and for rates."""
    completion, _ = asked([ok("Because.")], max_cost_per_hour=None, requests_per_minute=None)
    assert completion.cost > 0


def test_a_call_that_is_too_dear_is_refused_before_it_is_made():
    """The limit is a limit, not a report afterwards."""
    raised = failure([], max_cost_per_hour=0.0001)
    assert isinstance(raised, BudgetExceededError)


@pytest.mark.parametrize("amount", [-1.0, float("nan"), 0.0, True])
def test_a_limit_of_no_sense_is_refused(amount):
    """NaN dollars compare false with everything, so that such a limit would let all through."""
    with pytest.raises(ConfigurationError, match="max_cost_per_hour"):
        AnthropicClientWithResilience("k", max_cost_per_hour=amount)


# --- rates ---


def test_no_minute_holds_more_requests_than_allowed():
    """The 51st request in a minute is the one that gets the account blocked."""
    clock = FakeClock()

    async def run(server: FaultServer) -> None:
        patient = replace(QUICK, deadline_seconds=300.0)
        async with client_of(server, requests_per_minute=50, clock=clock, policy=patient) as client:
            tasks = [asyncio.create_task(client.complete("Why?")) for _ in range(120)]
            for step in itertools.cycle((1.0, 1.0, 10.0)):
                await _quiet(server)
                if all(task.done() for task in tasks):
                    break
                await clock.advance_async(step)
            await asyncio.gather(*tasks)

    with FaultServer(clock=clock.monotonic) as server:
        asyncio.run(run(server))
        arrivals = [request.at for request in server.requests]
    assert len(arrivals) == 120
    assert max(sum(start <= at < start + 60 for at in arrivals) for start in arrivals) <= 50
    assert arrivals[99] < 75  # a hundred in little more than the minute that they need


async def _quiet(server: FaultServer) -> None:
    """Wait until what was let go has arrived: the sockets are real, and the clock is not."""
    seen, since = -1, 0
    while since < 3:
        await asyncio.sleep(0.02)
        seen, since = len(server.requests), since + 1 if len(server.requests) == seen else 0


def test_what_is_late_on_its_way_does_not_crowd_the_next_minute():
    """Connections that open slowly must not make one minute's requests arrive in the next one's."""
    clock = FakeClock()
    limiter = ArrivalLimiter(RateLimiter(2, clock=clock), 2, clock)

    async def begin() -> float:
        await limiter.acquire_async(0, 200.0)
        return clock.monotonic()

    async def run() -> list[float]:
        tasks = [asyncio.create_task(begin()) for _ in range(5)]
        await clock.advance_async(130)
        return [await task for task in tasks]

    begun = asyncio.run(run())
    assert begun[2] - begun[0] >= 62
    assert begun[4] - begun[2] >= 62
    waits = FakeClock()
    plain = ArrivalLimiter(RateLimiter(1, clock=waits), 1, waits)
    assert plain.acquire() == 0
    assert 62 <= plain.acquire(0, 100.0) < 63
    waits.advance(61)
    with pytest.raises(RateLimitedError):
        plain.acquire(0, 0.5)


def test_a_rate_of_tokens_is_kept_too():
    """Vendors limit both; a long prompt takes more of the second."""

    async def use(client: AnthropicClientWithResilience) -> None:
        await client.complete("word " * 300, max_tokens=400)
        with pytest.raises(RateLimitedError):
            await client.complete("word " * 300, max_tokens=400, timeout=0.5)
        with pytest.raises(InputError, match="can never be admitted"):
            await client.complete("word " * 3000, max_tokens=400)

    used([], use, tokens_per_minute=1000)


def test_limits_can_be_shared():
    """Two clients of one key share its rate, its budget and its breaker."""
    limiter, budget = RateLimiter(2, name="shared"), Budget(limit_total=10**6)
    breaker = CircuitBreaker("shared")

    async def run(server: FaultServer) -> None:
        shared = {"limiter": limiter, "budget": budget, "breaker": breaker}
        async with client_of(server, **shared) as one, client_of(server, **shared) as other:
            await one.complete("Why?")
            await other.complete("Why?")
            with pytest.raises(RateLimitedError):
                await one.complete("Why?", timeout=0.2)
            told = one.get_cost_stats().total + other.get_cost_stats().total
            assert budget.snapshot().spent_in_total == told * 1_000_000

    with FaultServer() as server:
        asyncio.run(run(server))


def test_the_deadline_bounds_everything():
    """Waiting, attempts and all."""

    async def use(client: AnthropicClientWithResilience) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(DeadlineExceededError):
            await client.complete("Why?", timeout=0.4)
        return loop.time() - began

    seconds, _ = used([ok(fault="hang")] * 9, use)
    assert seconds < 2


# --- the SDK ---


def classes_below(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind} | {below for child in kind.__subclasses__() for below in classes_below(child)}


def test_every_exception_of_the_sdk_is_mapped():
    """A new class of error would reach users untranslated, or be retried though it must not be."""
    classes = {
        kind
        for _, kind in inspect.getmembers(sys.modules["anthropic._exceptions"], inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__.startswith("anthropic")
    }
    assert anthropic.RateLimitError in classes
    table = ANTHROPIC_ERRORS._table
    assert classes <= set(table)
    # What is worth waiting for is decided by hand for each class of a 429, and looked at for 5xx.
    assert classes_below(anthropic.RateLimitError) <= set(table)
    below = classes_below(anthropic.InternalServerError) - set(table)
    assert {kind.__name__ for kind in below} <= UNAVAILABLE_BY_THEIR_BASE


def test_every_exception_of_the_http_library_is_mapped():
    """The same for what breaks while an answer is read."""
    raised = [
        kind
        for _, kind in inspect.getmembers(httpx2, inspect.isclass)
        if issubclass(kind, Exception) and kind.__name__ not in ("CookieConflict", "SSEError")
    ]
    assert [kind for kind in raised if not ANTHROPIC_ERRORS.covers(kind)] == []


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (anthropic.APITimeoutError(REQUEST), UpstreamConnectionError),
        (anthropic.APIConnectionError(request=REQUEST), UpstreamConnectionError),
        (anthropic.APIError("inside", REQUEST, body=None), UpstreamProtocolError),
        (
            anthropic.APIResponseValidationError(httpx2.Response(200, request=REQUEST), None),
            UpstreamProtocolError,
        ),
        (anthropic.CredentialsError("no key"), ConfigurationError),
        (httpx2.ReadTimeout("slow"), UpstreamTimeoutError),
        (httpx2.ConnectError("no"), UpstreamConnectionError),
    ],
)
def test_what_each_means(raised, kind):
    """Retries, breaker and budget decide by the class."""
    assert type(ANTHROPIC_ERRORS.translate(raised)) is kind


def test_a_server_that_is_not_there_costs_nothing():
    """A connection that was never made sent no prompt."""
    one = replace(QUICK, retry=RetryPolicy(attempts=1))

    async def run() -> Any:
        client = AnthropicClientWithResilience("k", base_url="http://127.0.0.1:9", price=PRICE, policy=one)
        async with client:
            with pytest.raises(UpstreamConnectionError):
                await client.complete("Why?")
            return client.get_cost_stats()

    assert asyncio.run(run()).at_most == 0


def test_a_redirect_is_not_followed_with_a_key():
    """A key that goes where a server points is a key given away."""
    raised = failure([Reply(status=307, headers={"location": "http://127.0.0.1:9/"}, raw=b"")])
    assert isinstance(raised, UpstreamRejectedError)


def test_a_missing_sdk_names_its_extra(monkeypatch):
    """The user has to know what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyMissingError) as raised:
        AnthropicClientWithResilience("k")
    assert "cert-framework[coordination]" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": "claude-none"}, "no price"),
        ({"base_url": "ftp://x"}, "base URL"),
        ({"base_url": "http://user:s3cret@x"}, "user name"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"answer_bytes": 0}, "answer_bytes"),
        ({"connect_seconds": -1}, "connect_seconds"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_at_once(options, match):
    """A mistake in a setting shows when the client is made, not after an hour."""
    with pytest.raises(ConfigurationError, match=match) as raised:
        AnthropicClientWithResilience("k", **options)
    assert "s3cret" not in str(raised.value)


def test_a_key_can_be_a_secret_and_is_not_shown():
    """Settings hold keys as secrets."""
    client = AnthropicClientWithResilience(SecretStr("sk-hidden"))
    assert "sk-hidden" not in repr(client) + str(vars(client))
    assert module.VENDOR_URL == "https://api.anthropic.com"
