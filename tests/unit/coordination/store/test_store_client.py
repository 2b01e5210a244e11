"""Each answer is paid for once: by tasks that ask together, by those that come later, and under failures."""

import asyncio
import contextlib
import dataclasses
from typing import Any

import pytest

from cert.coordination.chat import ChatClient, ChatRequest, Message, Tool, Usage
from cert.coordination.scripted import ScriptedChat
from cert.coordination.store import CachedChatClient, open_store
from cert.core.errors import (
    BudgetExceededError,
    CircuitOpenError,
    DeadlineExceededError,
    RetriesExhaustedError,
    StoreError,
    UpstreamConnectionError,
    UpstreamRateLimitError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)


def request(text: str = "Why?", **options: Any) -> ChatRequest:
    return ChatRequest(messages=(Message("user", text),), **options)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@contextlib.asynccontextmanager
async def cached(chat: ScriptedChat, target: Any = None, **options: Any):
    client = CachedChatClient(chat, target, **options)
    try:
        yield client
    finally:
        await client.aclose()


def test_the_second_time_costs_nothing(target):
    """What a repeated run saves is the point of it all."""

    async def run():
        chat = ScriptedChat("because of that", otherwise="something else")
        async with cached(chat, target) as client:
            first, second = [await client.complete("Why?", max_tokens=9) for _ in range(2)]
            assert second == dataclasses.replace(first, from_cache=True)
            assert first.paid_micro_dollars == first.cost_micro_dollars > 0
            assert second.paid_micro_dollars == 0
            assert second.cost == first.cost
            stats = await client.stats()
            assert (stats.hits, stats.misses, stats.entries) == (1, 1, 1)
            assert stats.saved == stats.spent == first.cost
            assert await client.has(request(max_tokens=9))
            assert not await client.has(request())

    asyncio.run(run())


def test_two_draws_of_one_request_are_two_answers(target):
    """A cache that hands out one sample as several fakes zero variance."""

    async def run():
        async with cached(ScriptedChat("a", "b", otherwise="c"), target) as client:
            told = [(await client.complete(request(draw=draw))).text for draw in ("1", "2", "1")]
            assert told == ["a", "b", "a"]

    asyncio.run(run())


def test_all_of_a_completion_is_kept_but_its_tokens(target):
    """A judge's arguments, a refusal, odd characters: what comes back is what was paid for."""
    tool = Tool("judge", "Judge.", {"type": "object"})

    async def run():
        whole = dataclasses.replace(
            await ScriptedChat("x").complete("x"),
            text="null \x00, half a pair \ud800, ü",
            usage=Usage(1, 2, 3, 4),
            finish="refusal",
            attempts=3,
            structured={"score": 7, "nested": {"list": [1, None, 2.5]}},
            latency_seconds=0.1,
        )
        async with cached(ScriptedChat(whole), target) as client:
            await client.complete(request(tool=tool))
            again = await client.complete(request(tool=tool))
            assert again == dataclasses.replace(whole, from_cache=True)
            assert again.generation is None

    asyncio.run(run())


def test_two_hundred_tasks_with_twenty_questions_make_twenty_calls(target):
    """Agents that ask the same at the same moment must not pay ten times."""

    async def run():
        chat = ScriptedChat(otherwise="answer", latency=0.05)
        async with cached(chat, target) as client:
            told = await asyncio.gather(*(client.complete(f"question {n % 20}") for n in range(200)))
            assert len(chat.requests) == 20
            assert sum(one.paid_micro_dollars for one in told) == sum(
                one.cost_micro_dollars for one in told[:20]
            )
            stats = await client.stats()
            assert (stats.misses, stats.shared + stats.hits) == (20, 180)
            assert stats.hit_rate == 0.9

    asyncio.run(run())


def test_two_clients_on_one_store_share_what_they_are_at_work_on(target):
    """An orchestrator and a baseline with clients of their own ask the same: one call."""

    async def run():
        async with open_store(target) as store:
            chats = [ScriptedChat(otherwise="answer", latency=0.1) for _ in range(2)]
            clients = [CachedChatClient(chat, store) for chat in chats]
            told = await asyncio.gather(*(client.complete("Why?") for client in clients))
            assert sum(len(chat.requests) for chat in chats) == 1
            assert sorted(one.from_cache for one in told) == [False, True]

    asyncio.run(run())


def test_a_failure_is_not_kept(target):
    """One bad minute of a server must not answer for ever."""

    async def run():
        chat = ScriptedChat(UpstreamRateLimitError("slow down"), "fine")
        async with cached(chat, target) as client:
            with pytest.raises(UpstreamRateLimitError):
                await client.complete("Why?")
            assert (await client.complete("Why?")).text == "fine"
            assert (await client.store.lost()).calls == ()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (UpstreamTimeoutError("t"), "upstream_timeout"),
        (UpstreamConnectionError("c"), "upstream_connection"),
        (UpstreamConnectionError("c", context={"sent": False}), None),
        (UpstreamRejectedError("r", context={"status": 400}), None),
        (BudgetExceededError("b"), None),
        (CircuitOpenError("o"), None),
        (caused(CircuitOpenError("o"), UpstreamTimeoutError("t")), "circuit_open"),
        (caused(RetriesExhaustedError("r"), UpstreamRateLimitError("s")), None),
        (caused(RetriesExhaustedError("r"), UpstreamTimeoutError("t")), "retries_exhausted"),
        (DeadlineExceededError("d", context={"attempts": 0}), None),
        (DeadlineExceededError("d", context={"attempts": 1}), "deadline_exceeded"),
        (ZeroDivisionError(), "error"),
    ],
)
def test_a_failed_call_is_lost_where_it_may_be_billed(error, why):
    """Too many lost calls frighten, too few lie about the bill."""

    async def run():
        async with cached(ScriptedChat(error)) as client:
            with pytest.raises(type(error)):
                await client.complete("Why?", max_tokens=5)
            lost = await client.store.lost()
            assert [one.why for one in lost.calls] == ([] if why is None else [why])
            assert lost.most_micro_dollars == (0 if why is None else client.most(request(max_tokens=5)))

    asyncio.run(run())


def test_the_leader_may_go_and_the_others_get_the_answer(target):
    """One impatient caller must neither fail the others nor make them pay again."""

    async def run():
        chat = ScriptedChat(otherwise="answer", latency=0.1)
        async with cached(chat, target) as client:
            asking = [asyncio.create_task(client.complete("Why?")) for _ in range(5)]
            await asyncio.sleep(0.05)
            asking[0].cancel()
            await asyncio.wait(asking)
            assert asking[0].cancelled()
            assert [one.result().text for one in asking[1:]] == ["answer"] * 4
            assert len(chat.requests) == 1

    asyncio.run(run())


def test_when_all_have_gone_the_call_is_stopped_and_may_be_lost(target):
    """A call that nobody waits for costs no more than it has already, and that is told."""

    async def run():
        chat = ScriptedChat(otherwise="answer", latency=5)
        async with cached(chat, target) as client:
            asking = [asyncio.create_task(client.complete("Why?")) for _ in range(3)]
            while not chat.requests:
                await asyncio.sleep(0.005)
            for one in asking:
                one.cancel()
            await asyncio.wait(asking)
            assert [lost.why for lost in (await client.store.lost()).calls] == ["cancelled"]
            assert chat._at_once == 0
            assert not await client.store.busy((await client.store.lost()).calls[0].call.key)

    asyncio.run(run())


def test_a_caller_who_goes_at_any_moment_blocks_nobody(target):
    """A lease that is left behind would make all others wait until it expires, and pass for a lost call."""

    async def run():
        chat = ScriptedChat(otherwise="answer", latency=0.001)
        async with cached(chat, target) as client:
            await client.complete("first")
            for number in range(40):
                asking = asyncio.create_task(client.complete(f"question {number}"))
                await asyncio.sleep(number * 0.00025)
                asking.cancel()
                await asyncio.wait({asking})
                assert (await client.store.lost()).under_way == 0

    asyncio.run(run())


def test_an_answer_that_arrives_with_the_cancellation_is_kept(target):
    """It is paid: throwing it away would pay for it again."""

    async def run():
        arrived = asyncio.Event()

        async def stubborn(_: ChatRequest) -> str:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                arrived.set()
            return "just in time"

        chat = ScriptedChat(stubborn)
        async with cached(chat, target) as client:
            asking = asyncio.create_task(client.complete("Why?"))
            while not chat.requests:
                await asyncio.sleep(0.005)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert arrived.is_set()
            assert (await client.complete("Why?")).text == "just in time"
            assert (await client.store.lost()).calls == ()

    asyncio.run(run())


def test_a_short_time_out_is_the_callers_own(target):
    """Who can wait gets the answer, though the one who asked first could not."""

    async def run():
        asked, joined = asyncio.Event(), asyncio.Event()

        async def too_late(_request):
            asked.set()
            await joined.wait()
            raise DeadlineExceededError("too late", context={"attempts": 1})

        chat = ScriptedChat(too_late, otherwise="answer")
        async with cached(chat, target) as client:
            hurried = asyncio.create_task(client.complete("Why?", timeout=30))
            await asked.wait()
            patient = asyncio.create_task(client.complete("Why?"))
            while next(iter(client._flights._flights.values())).waiting < 2:
                await asyncio.sleep(0.001)
            joined.set()
            with pytest.raises(DeadlineExceededError):
                await hurried
            assert (await patient).text == "answer"

    asyncio.run(run())


def test_waiting_for_another_process_ends_with_the_time_out(target):
    """A call with a deadline must not hang on somebody else's."""

    async def run():
        async with open_store(target) as store:
            client = CachedChatClient(ScriptedChat("never"), store)
            assert await store.claim(client._call(request())) is not None
            with pytest.raises(DeadlineExceededError):
                await client.complete("Why?", timeout=0.1)
            assert client._flights._flights == {}

    asyncio.run(run())


def test_a_server_that_hangs_ends_with_the_time_out():
    """A client inside that does not keep to its time must not keep the caller."""

    async def run():
        async with cached(ScriptedChat("late", latency=60)) as client:
            with pytest.raises(DeadlineExceededError):
                await client.complete("Why?", timeout=0.05)
            assert [lost.why for lost in (await client.store.lost()).calls] == ["cancelled"]

    asyncio.run(run())


def test_a_store_that_cannot_be_used_stops_the_spending(tmp_path):
    """Paying for what cannot be kept is paying twice."""
    broken = tmp_path / "answers.db"
    broken.write_bytes(b"no database")

    async def run():
        chat = ScriptedChat(otherwise="answer")
        client = CachedChatClient(chat, broken)
        with pytest.raises(StoreError):
            await client.complete("Why?")
        assert chat.requests == []

    asyncio.run(run())


def test_scopes_do_not_share_answers(target):
    """Two experiments in one store stay two."""

    async def run():
        async with open_store(target) as store:
            chat = ScriptedChat("a", "b")
            one, other = (
                CachedChatClient(chat, store, scope="one"),
                CachedChatClient(chat, store, scope="two"),
            )
            assert (await one.complete("Why?")).text == "a"
            assert (await other.complete("Why?")).text == "b"
            assert (await one.stats()).misses == (await other.stats()).misses == 1

    asyncio.run(run())


def test_it_stands_in_for_the_client_inside():
    """Whatever takes a client takes this one: prices and identity are the same."""
    chat = ScriptedChat("a", prices=(3, 15))
    client: ChatClient = CachedChatClient(chat)
    usage = Usage(10, 10)
    assert client.identity == chat.identity
    assert client.cost(usage) == chat.cost(usage)
    assert client.weight(usage) == chat.weight(usage)
    assert client.most(request()) == chat.most(request())
    assert getattr(client, "supports_tools", None) is True
