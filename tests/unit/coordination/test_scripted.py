"""The scripted chat: what tests of strategies, judges and caches stand on."""

import asyncio
from decimal import Decimal

import pytest

from cert.coordination.chat import ChatClient, ChatRequest, Message, Tool, Usage
from cert.coordination.scripted import ScriptedChat
from cert.core.errors import InputError, UpstreamTimeoutError


def say(chat, *prompts, **options):
    async def run():
        return [await chat.complete(prompt, **options) for prompt in prompts]

    return asyncio.run(run())


def test_replies_come_in_order_and_then_the_same():
    """A test that scripts a conversation must get that conversation."""
    chat: ChatClient = ScriptedChat("a", lambda request: request.messages[0].content.upper(), otherwise="c")
    assert [done.text for done in say(chat, "one", "two", "three", "four")] == ["a", "TWO", "c", "c"]


def test_it_remembers_what_it_was_asked_and_by_whom():
    """A test that cannot see the requests cannot tell a cached answer from a new one."""
    chat = ScriptedChat(otherwise="ok")
    say(chat, "why?", agent="agent-1", max_tokens=7, draw="first")
    assert chat.requests == [ChatRequest(messages=(Message("user", "why?"),), max_tokens=7, draw="first")]
    assert chat.agents == ["agent-1"]


def test_words_are_paid_for():
    """Budgets are compared in money: a double that costs nothing tests none of that."""
    chat = ScriptedChat("three words now", prices=(3, 15))
    (done,) = say(chat, "two words", system="be brief")
    assert done.usage == Usage(4, 3)
    assert done.cost == Decimal("0.000057")
    assert chat.cost(done.usage) == done.cost_micro_dollars <= chat.most(chat.requests[0])
    assert chat.weight(done.usage) == pytest.approx(57e-6)
    assert ScriptedChat("x", prices=(0, 0)).weight(Usage(10, 2)) == 4.0


def test_errors_are_raised_and_scripts_end():
    """A script that goes on by itself hides a call too many."""
    chat = ScriptedChat(UpstreamTimeoutError("too slow"))
    with pytest.raises(UpstreamTimeoutError):
        say(chat, "x")
    with pytest.raises(LookupError, match="call 2"):
        say(chat, "x")
    with pytest.raises(InputError):
        ScriptedChat()


def test_a_mapping_is_a_call_of_the_tool():
    """Judges ask for typed output; a script must be able to give it, but not where none was asked for."""
    chat = ScriptedChat(otherwise={"score": 3})
    (done,) = say(chat, "x", tool=Tool("score", "gives a score", {}))
    assert (done.structured, done.text, done.finish) == ({"score": 3}, "", "tool_use")
    with pytest.raises(LookupError, match="tool"):
        say(chat, "x")


def test_calls_overlap_and_that_is_counted():
    """Whether agents really run at once is seen here alone."""
    chat = ScriptedChat(otherwise="ok", latency=0.01)

    async def run():
        await asyncio.gather(*(chat.complete("x") for _ in range(3)))
        await chat.aclose()

    asyncio.run(run())
    assert chat.most_at_once == 3
