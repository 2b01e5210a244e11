"""Steps in one round trip: the work of each as if alone, in order, and none after one that did not go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import fakeredis
import pytest

from cert.core.errors import StoreError
from cert.core.redis_scripts import RedisScripts, Script
from cert.core.redis_steps import Step, take, take_async

# Answers with the number it was given; a negative one does not go on.
NOTE = Script(
    "redis.call('RPUSH', KEYS[1], ARGV[1]) return {tonumber(ARGV[1]), 'noted', ''}", goes_on="answer[1] >= 0"
)
LONG = 1_795_647_757_432_153  # a time in microseconds: more digits than Lua's own tostring() keeps


class Note(Step[list[Any]]):
    script = NOTE

    def __init__(self, key: str, number: int, *, rides: bool = True, may: bool = True) -> None:
        self.keys = [key]
        self.number = number
        self._rides = rides
        self._may = may
        self.passed = 0
        self.answer: list[Any] = []
        self.error: BaseException | None = None

    @property
    def rides(self) -> bool:
        return self._rides

    def begin(self) -> bool:
        self.pending = self._may
        return self._may

    def arguments(self) -> list[str | int]:
        return [self.number]

    def answered(self, answer: list[Any]) -> None:
        self.answer = [part.decode() if isinstance(part, bytes) else part for part in answer]

    def failed(self, error: BaseException) -> None:
        self.error = error

    def passed_over(self) -> None:
        self.passed += 1

    def result(self) -> list[Any]:
        return self.answer


class Counted(RedisScripts):
    trips = 0

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        self.trips += 1
        return super().run(script, keys, arguments)


@pytest.fixture
def client() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.fixture
def redis(client: fakeredis.FakeRedis) -> Counted:
    return Counted(client=client)


def test_all_go_in_one_round_trip_and_answer_as_each_would_alone(redis: Counted, client: Any) -> None:
    """A number that loses its last digits on the way would be another time, or another amount."""
    steps = [Note("list", LONG), Note("list", 0), Note("list", 7)]
    take(redis, steps)
    assert redis.trips == 1
    assert client.lrange("list", 0, -1) == [b"%d" % LONG, b"0", b"7"]
    alone = Note("list", LONG)
    take(redis, [alone])
    assert [int(step.answer[0]) for step in (*steps, alone)] == [LONG, 0, 7, LONG]
    assert steps[0].answer[1:] == alone.answer[1:] == ["noted", ""]


def test_nothing_is_done_after_a_step_that_did_not_go_through(redis: Counted, client: Any) -> None:
    """A call that the rate limit lets wait would hold dollars, and the one probe."""
    first, second, third = (Note("list", number) for number in (-1, 2, 3))
    take(redis, [first, second, third])
    assert client.lrange("list", 0, -1) == [b"-1"]
    assert [step.pending for step in (first, second, third)] == [False, True, True]
    assert (second.passed, second.error) == (1, None)
    take(redis, [first, second, third])  # what is answered is not asked again
    assert client.lrange("list", 0, -1) == [b"-1", b"2", b"3"]


def test_a_step_that_fails_in_redis_fails_alone(redis: Counted, client: Any) -> None:
    """Trouble with the keys of one part would be taken for an outage of all."""
    client.set("text", "not a list")
    first, second, third = Note("list", 1), Note("text", 2), Note("list", 3)
    take(redis, [first, second, third])
    assert first.answer[1] == "noted"
    assert isinstance(second.error, StoreError)
    assert (third.pending, third.error) == (True, None)


def test_a_full_redis_is_told_as_such_by_the_step_it_refuses(redis: Counted) -> None:
    """Operators would look for a broken Redis, where it only needs memory."""
    steps = [Note("list", 1), Note("list", 2)]
    redis.run = lambda *_: ["!OOM command not allowed when used memory > 'maxmemory'."]  # type: ignore[method-assign]
    take(redis, steps)
    assert isinstance(steps[0].error, StoreError)
    assert steps[0].error.context["reason"] == "full"


def test_when_redis_is_gone_every_step_that_was_sent_knows(redis: Counted) -> None:
    """One that thinks it was not asked would not give back what Redis may have done for it."""
    redis.run = _gone  # type: ignore[assignment, method-assign]
    sent, left = [Note("list", 1), Note("list", 2)], Note("list", 3, rides=False)
    take(redis, [*sent, left])
    assert all(isinstance(step.error, StoreError) and not step.pending for step in sent)
    assert (left.error, left.pending) == (None, True)


def _gone(*_: object) -> list[Any]:
    raise StoreError("gone")


def test_a_cancelled_trip_is_told_to_every_step() -> None:
    """Dollars that Redis has set aside for a cancelled call would stay so."""

    class Slow(RedisScripts):
        async def run_async(self, *_: object) -> list[Any]:
            await asyncio.sleep(60)
            return []

    steps = [Note("list", 1), Note("list", 2)]

    async def scenario() -> None:
        task = asyncio.create_task(take_async(Slow(async_client=object()), steps))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert all(isinstance(step.error, asyncio.CancelledError) for step in steps)


def test_a_degraded_part_neither_asks_nor_rides(redis: Counted, client: Any) -> None:
    """Each call would wait for a Redis that is known to be gone."""
    first = Note("list", 1, may=False)
    take(redis, [first, Note("list", 2)])
    assert redis.trips == 0
    second, third = Note("list", 2), Note("list", 3, rides=False)
    take(redis, [first, second, third])
    assert client.lrange("list", 0, -1) == [b"2"]
    assert third.pending
    assert third.passed == 0
