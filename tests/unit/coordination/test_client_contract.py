"""What every chat client keeps to: one suite over two vendors' APIs and a model in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("anthropic")
pytest.importorskip("openai")
pytest.importorskip("torch")

from cert.backends.base import Backend, Message
from cert.backends.opening import open_backend
from cert.coordination.chat import ChatClient, ChatRequest, Usage
from cert.coordination.client import (
    AnthropicClientWithResilience,
    InProcessChatClient,
    OpenAIChatClient,
    Price,
    Tool,
)
from cert.coordination.clients.protected import ProtectedChatClient
from cert.core.errors import ConfigurationError, DeadlineExceededError, InputError
from cert.core.events import CallFinished, EventHub
from cert.testing import FaultServer, Reply, captured_events, ok

PRICE = Price(input=Decimal(3), output=Decimal(15))
QUESTION = "What is the birth date of Daphne Klara Penworth?"


@dataclass
class Case:
    """One client with its server, where it has one."""

    make: Callable[..., ProtectedChatClient]
    server: FaultServer | None

    def script(self, *replies: Reply) -> None:
        if self.server is not None:
            self.server.then(iter(replies))

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[ProtectedChatClient]:
        async with self.make(**options) as client:
            yield client


@pytest.fixture(scope="module")
def reference() -> Any:
    backend = open_backend("reference")
    yield backend
    backend.close()


@pytest.fixture(params=["anthropic", "openai", "in_process"])
def case(request: pytest.FixtureRequest, reference: Backend) -> Any:
    if request.param == "in_process":
        yield Case(lambda **options: InProcessChatClient(backend=reference, **options), None)
        return
    with FaultServer() as server:
        if request.param == "anthropic":
            url, kind = server.url, AnthropicClientWithResilience
            yield Case(lambda **options: kind(base_url=url, price=PRICE, **options), server)
        else:
            url = server.url + "/v1"
            yield Case(lambda **options: OpenAIChatClient("m", url, price=PRICE, **options), server)


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_it_is_a_chat_client(case):
    """A strategy or a judge takes any client, and must find in each what the protocol says."""

    async def ask() -> None:
        async with case.client() as made:
            client: ChatClient = made
            completion = await client.complete(QUESTION, agent="a", max_tokens=16)
            assert completion.text.strip()
            assert completion.finish == "stop"
            assert completion.attempts == 1
            assert completion.usage.output_tokens > 0
            assert completion.usage.input_tokens > 0
            assert completion.latency_seconds > 0
            assert completion.cost_micro_dollars == client.cost(completion.usage)
            assert client.most(ChatRequest.of(QUESTION, max_tokens=16)) >= completion.cost_micro_dollars
            assert client.weight(completion.usage) > 0
            assert client.identity.model in repr(client)
            assert not completion.from_cache

    run(ask())


def test_messages_and_whole_requests_mean_what_they_say(case):
    """A debate sends a conversation; a cache sends a request with its draw."""
    talk = (Message("user", "One?"), Message("assistant", "Yes."), Message("user", "Sure?"))
    request = ChatRequest(messages=talk, system="Be brief.", max_tokens=8, temperature=0.5, seed=3, draw="d")

    async def ask() -> None:
        async with case.client() as client:
            await client.complete(talk, max_tokens=8)
            await client.complete(request)
            with pytest.raises(ConfigurationError, match="max_tokens"):
                await client.complete(request, max_tokens=3)
            with pytest.raises(InputError, match="roles"):
                await client.complete((Message("system", "x"), Message("user", "y")))
            with pytest.raises(InputError, match="last message"):
                await client.complete(talk[:2])
            with pytest.raises(InputError, match="half"):
                await client.complete("half \ud800 a pair")

    run(ask())
    if case.server is not None:
        sent = [request.body for request in case.server.requests]
        assert len(sent) == 2
        assert [message["content"] for message in sent[0]["messages"]] == ["One?", "Yes.", "Sure?"]
        assert "draw" not in sent[1]
        assert sent[1]["temperature"] == 0.5


def test_an_answer_that_is_cut_says_so(case):
    """A cut answer taken for a whole one is a wrong answer."""

    async def ask() -> None:
        async with case.client() as client:
            completion = await client.complete(QUESTION, max_tokens=1)
            assert completion.finish == "length"

    run(ask())


def test_agents_of_a_round_run_at_once(case):
    """A round as slow as the sum of its agents makes debates useless."""
    case.script(*[replace(ok("Yes."), delay=0.3)] * 8)

    async def ask() -> float:
        async with case.client() as client:
            loop = asyncio.get_running_loop()
            began = loop.time()
            answers = await asyncio.gather(
                *(client.complete(QUESTION, agent=f"agent-{n}", max_tokens=8) for n in range(8))
            )
            assert len({answer.text for answer in answers}) >= 1
            stats = client.get_cost_stats()
            assert stats.completions == 8
            assert set(stats.by_agent) == {f"agent-{n}" for n in range(8)}
            return loop.time() - began

    seconds = run(ask())
    if case.server is not None:
        assert case.server.peak == 8
        assert seconds < 1.5


def test_a_deadline_holds(case):
    """A caller that gave half a second must not wait for a minute."""
    case.script(*[ok(fault="hang")] * 9)
    talk = ChatRequest.of("word " * 100, max_tokens=300, temperature=1.0)

    async def ask() -> None:
        async with case.client() as client:
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(DeadlineExceededError):
                await client.complete(talk, timeout=0.05 if case.server is None else 0.3)
            assert loop.time() - began < 5

    if case.server is None:
        pytest.skip("the reference model answers before any deadline; see test_in_process_client")
    run(ask())


def test_a_client_outlives_an_event_loop(case):
    """A script that calls asyncio.run twice with one client is no mistake of its user."""
    client = case.make()

    async def ask() -> str:
        try:
            return (await client.complete(QUESTION, max_tokens=16)).text
        finally:
            if case.server is not None:
                await client.aclose()

    assert run(ask())
    assert run(ask())


def test_calls_are_told_to_observers_without_their_words(case):
    """Metrics count calls; what was asked and answered is nobody's metric."""
    hub = EventHub()

    async def ask() -> None:
        async with case.client(hub=hub) as client:
            await client.complete(QUESTION, max_tokens=8)

    with captured_events(hub) as events:
        run(ask())
    (finished,) = events.of(CallFinished)
    assert (finished.outcome, finished.attempts) == ("ok", 1)
    assert "Penworth" not in str(events.all())


def test_a_reset_empties_the_accounts(case):
    """One suite's report holds nothing of the one before."""

    async def ask() -> None:
        async with case.client() as client:
            await client.complete(QUESTION, agent="a", max_tokens=8)
            assert client.get_cost_stats().usage != Usage()
            client.reset_cost()
            assert client.get_cost_stats().completions == 0
            assert not client.get_cost_stats().by_agent

    run(ask())


def test_typed_output_comes_parsed_or_is_refused_at_once(case):
    """A judge needs its scores as data; where that cannot be it has to know before it pays."""
    tool = Tool("score", "Give a score.", {"type": "object", "properties": {"score": {"type": "integer"}}})
    case.script(Reply(arguments={"score": 7}), ok("I would say 7."))

    async def ask() -> None:
        async with case.client() as client:
            if case.server is None:
                with pytest.raises(ConfigurationError, match="typed output"):
                    await client.complete(QUESTION, tool=tool)
                return
            completion = await client.complete(QUESTION, tool=tool)
            assert completion.structured == {"score": 7}
            assert (completion.finish, completion.text) == ("tool_use", "")
            prose = await client.complete(QUESTION, tool=tool)
            assert prose.structured is None
            assert prose.text == "I would say 7."
            assert client.most(ChatRequest.of(QUESTION, tool=tool)) > client.most(ChatRequest.of(QUESTION))

    run(ask())
