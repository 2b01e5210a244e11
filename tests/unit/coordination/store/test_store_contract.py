"""What every kind of store has to do, in memory, in a file and in PostgreSQL."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from cert.coordination.store import CompletionStore, LostCalls, open_store
from cert.coordination.store.records import Call, Lease, Record
from cert.core.errors import ConfigurationError, StoreError
from cert.core.events import CacheAsked, EventHub
from cert.testing import captured_events


def call(key: str = "k", most: int | None = 70, scope: str = "", **options: Any) -> Call:
    return Call(key=key, kind="completion", scope=scope, model="m", most_micro_dollars=most, **options)


async def leased(store: CompletionStore, wanted: Call) -> Lease:
    lease = await store.claim(wanted)
    assert isinstance(lease, Lease)
    return lease


async def expired(store: CompletionStore, wanted: Call) -> Lease:
    """The lease of one who gave no sign of life."""
    usual, store.lease_seconds = store.lease_seconds, 0.001
    lease = await leased(store, wanted)
    store.lease_seconds = usual
    await asyncio.sleep(0.01)
    return lease


async def kept(store: CompletionStore, wanted: Call, value: str = "1", cost: int = 5) -> Record:
    return await store.record(await leased(store, wanted), value, cost)


def test_an_answer_goes_through_all_its_states(target):
    """Nobody, one at work, there: whoever asks gets told the right one of the three."""

    async def run():
        async with open_store(target) as store:
            assert await store.find("k") is None
            assert not await store.busy("k")
            lease = await leased(store, call())
            assert await store.claim(call()) is None
            assert await store.busy("k")
            assert await store.find("k") is None
            record = await store.record(lease, '"ü"', 12)
            assert await store.find("k") == await store.claim(call()) == record
            assert not await store.busy("k")
            assert (record.value, record.cost_micro_dollars, record.made_by) == ('"ü"', 12, lease.id)
            assert await store.lost() == LostCalls()

    asyncio.run(run())


def test_a_call_that_failed_may_be_made_again(target):
    """One failure must not block a question for ever."""

    async def run():
        async with open_store(target) as store:
            await store.release(await leased(store, call()))
            assert (await store.lost()).calls == ()
            await store.release(await leased(store, call()), "upstream_timeout")
            await kept(store, call())
            (lost,) = (await store.lost()).calls
            assert (lost.call, lost.why) == (call(), "upstream_timeout")

    asyncio.run(run())


def test_what_may_be_lost_is_told_with_its_price(target):
    """A user who resumes wants to know what the crash cost."""

    async def run():
        async with open_store(target) as store:
            for key, most in (("a", 1_500_000), ("b", 250_000), ("free", 0), ("c", None)):
                await store.release(await leased(store, call(key, most)), "cancelled")
            await leased(store, call("out"))
            lost = await store.lost()
            assert str(lost) == (
                "possibly billed and lost: 3 calls, up to $1.750000, and 1 of them with no known bound"
            )
            assert lost.under_way == 1
            assert await store.forget_lost() == 3
            assert str(await store.lost()) == "possibly billed and lost: 0 calls, up to $0.000000"

    asyncio.run(run())


def test_a_lease_without_a_sign_of_life_is_taken_over_and_may_be_lost(target):
    """A machine that went down must not keep a question from being asked for ever; what it paid is told."""

    async def run():
        async with open_store(target) as store:
            first = await expired(store, call())
            assert not await store.busy("k")
            assert [lost.why for lost in (await store.lost()).calls] == ["died"]
            second = await leased(store, call())
            assert [lost.id for lost in (await store.lost()).calls] == [first.id]
            assert not await store.renew(first)
            assert await store.renew(second)

    asyncio.run(run())


def test_a_sign_of_life_keeps_the_lease(target):
    """A slow answer is paid for once, however long it takes."""

    async def run():
        async with open_store(target) as store:
            lease = await expired(store, call())
            assert await store.renew(lease)
            assert await store.busy("k")
            assert await store.claim(call()) is None

    asyncio.run(run())


def test_an_answer_that_comes_after_the_takeover_is_kept_if_it_is_the_first(target):
    """It was not lost after all, and whoever took over gets it in place of paying."""

    async def run():
        async with open_store(target) as store:
            slow = await expired(store, call())
            fast = await leased(store, call())
            assert (await store.record(slow, '"slow"', 1)).value == '"slow"'
            assert (await store.lost()).calls == ()
            assert (await store.record(fast, '"fast"', 1)).value == '"slow"'

    asyncio.run(run())


def test_an_answer_that_comes_second_changes_nothing_and_stays_lost(target):
    """All who ask see one answer; the other was paid for nothing, which is told."""

    async def run():
        async with open_store(target) as store:
            slow = await expired(store, call())
            await kept(store, call(), '"fast"')
            assert (await store.record(slow, '"slow"', 1)).value == '"fast"'
            assert [lost.id for lost in (await store.lost()).calls] == [slow.id]

    asyncio.run(run())


def test_lost_calls_of_the_dead_can_be_taken_off_the_list(target):
    """Once somebody has seen them they must not come again."""

    async def run():
        async with open_store(target) as store:
            await expired(store, call("a", scope="x"))
            await expired(store, call("b", scope="y"))
            assert await store.forget_lost("x") == 1
            assert [lost.call.key for lost in (await store.lost()).calls] == ["b"]
            assert (await store.lost("x")).calls == ()

    asyncio.run(run())


def test_scopes_are_counted_and_cleared_apart(target):
    """Who clears one experiment must not pay for another again."""

    async def run():
        async with open_store(target) as store:
            for key, scope in (("a", "x"), ("b", "x"), ("c", "y")):
                await kept(store, call(key, scope=scope))
            assert [await store.entries(scope) for scope in ("x", "y", "z", None)] == [2, 1, 0, 3]
            assert await store.entries(kind="evaluation") == 0
            assert await store.clear("x") == 2
            assert await store.entries() == 1
            assert await store.clear() == 1

    asyncio.run(run())


def test_old_answers_can_be_pruned(target):
    """A store that only grows is deleted as a whole some day."""

    async def run():
        async with open_store(target) as store:
            await kept(store, call("old"))
            await asyncio.sleep(0.05)
            between = time.time()
            await asyncio.sleep(0.05)
            await kept(store, call("new"))
            assert await store.prune(timedelta(days=1)) == 0
            assert await store.prune(timedelta(seconds=time.time() - between)) == 1
            assert await store.find("old") is None
            assert await store.find("new") is not None

    asyncio.run(run())


def test_one_of_many_at_once_gets_the_lease(target):
    """Fifty who ask at the same moment pay once."""

    async def run():
        async with open_store(target) as store:
            claims = await asyncio.gather(*(store.claim(call()) for _ in range(50)))
            assert sum(claim is not None for claim in claims) == 1

    asyncio.run(run())


def test_one_store_serves_one_event_loop_after_the_other(target):
    """A notebook and a test suite call asyncio.run more than once with the same measurer."""
    store = open_store(target)

    async def run():
        if await store.find("k") is None:
            await kept(store, call())
        entries = await store.entries()
        await store.aclose()
        return entries

    assert [asyncio.run(run()), asyncio.run(run())] == [1, 1]


def test_a_cancelled_caller_leaves_the_store_usable(target):
    """Ctrl-C in the middle of a write must not cost a connection or an answer."""

    async def run():
        async with open_store(target) as store:
            for after in (0, 0.001, 0.005):
                asking = asyncio.create_task(store.claim(call(str(after))))
                await asyncio.sleep(after)
                asking.cancel()
                await asyncio.wait({asking})
            await kept(store, call("last"))
            assert await store.entries() == 1

    asyncio.run(run())


def test_hits_and_misses_are_told_of(target):
    """The hit rate of the dashboards is made of these events."""

    async def run():
        async with open_store(target, hub=hub) as store:
            store.count(call(), "miss", 7)
            store.count(call(scope="x"), "hit", 7)
            return await store.stats(), await store.stats("x"), store.scopes()

    hub = EventHub()
    with captured_events(hub) as events:
        whole, part, scopes = asyncio.run(run())
    told = [(event.cache, event.outcome) for event in events.of(CacheAsked)]
    assert told == [("completions", "miss"), ("completions", "hit")]
    assert (whole.hits, whole.misses, whole.hit_rate, whole.saved_share) == (1, 1, 0.5, 0.5)
    assert (part.hit_rate, part.saved_micro_dollars, part.spent_micro_dollars) == (1.0, 7, 0)
    assert scopes == ("", "x")


@pytest.mark.parametrize("wrong", ["mysql://user:secret@host/db", "redis://:secret@h/0", "sqlite://", "://"])
def test_a_store_that_is_none_is_refused_without_its_password(wrong):
    """A URL in an error message ends up in a log."""
    with pytest.raises(ConfigurationError) as failure:
        open_store(wrong)
    assert "secret" not in str(failure.value.to_dict())


def test_a_password_is_in_no_name_and_no_error():
    """The name of a store is printed in reports."""
    store = open_store("postgresql://user:secret@127.0.0.1:9/db", timeout=1)
    assert "secret" not in store.name
    with pytest.raises(StoreError, match="failed") as failure:
        asyncio.run(store.find("k"))
    assert "secret" not in str(failure.value.to_dict())
    assert failure.value.retryable
    asyncio.run(store.aclose())
