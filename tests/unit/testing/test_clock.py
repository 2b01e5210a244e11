"""The clock that tests move."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.core.errors import InputError
from cert.testing import FakeClock


def test_time_stands_still_until_it_is_moved():
    """A test that depends on real time passing by is flaky."""
    clock = FakeClock(start=5.0)
    assert clock.monotonic() == clock.monotonic() == 5.0
    clock.advance(2.5)
    assert clock.monotonic() == 7.5
    clock.sleep(0.5)
    assert clock.monotonic() == 8.0


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_it_never_goes_back(seconds: float):
    """A test that moves a monotonic clock back proves nothing about the real one."""
    clock = FakeClock()
    for move in (clock.advance, clock.sleep):
        with pytest.raises(InputError):
            move(seconds)
    with pytest.raises(InputError):
        asyncio.run(clock.sleep_async(seconds))
    with pytest.raises(InputError):
        FakeClock(seconds)


def test_a_sleeper_wakes_when_its_time_has_come_and_not_before():
    """Waits that end early or never make every test built on them wrong."""

    async def scenario() -> None:
        clock = FakeClock()
        task = asyncio.create_task(clock.sleep_async(10))
        await clock.settle()
        assert clock.sleeping == 1
        clock.advance(9.999)
        await clock.settle()
        assert not task.done()
        clock.advance(0.001)
        await clock.settle()
        assert task.done()
        assert clock.sleeping == 0

    asyncio.run(scenario())


@given(st.lists(st.integers(1, 20), max_size=8))
def test_sleepers_wake_by_time_and_then_by_arrival(waits: list[int]):
    """Fairness cannot be tested on a clock that wakes sleepers in another order."""

    async def scenario() -> list[int]:
        clock, woken = FakeClock(), list[int]()

        async def sleeper(index: int, seconds: int) -> None:
            await clock.sleep_async(seconds)
            woken.append(index)

        tasks = [asyncio.create_task(sleeper(*pair)) for pair in enumerate(waits)]
        await clock.settle()
        clock.advance(20)
        await asyncio.gather(*tasks)
        return woken

    assert asyncio.run(scenario()) == sorted(range(len(waits)), key=lambda index: waits[index])


def test_each_sleeper_reads_its_own_time_when_the_clock_moves_in_steps():
    """A loop that sleeps one second ten times has to see ten different seconds within one move."""

    async def scenario() -> list[float]:
        clock, readings = FakeClock(), list[float]()

        async def ticking() -> None:
            for _ in range(10):
                await clock.sleep_async(1)
                readings.append(clock.monotonic())

        task = asyncio.create_task(ticking())
        await clock.advance_async(4.5)
        assert clock.monotonic() == 4.5
        assert not task.done()
        await clock.advance_async(5.5)
        await task
        return readings

    assert asyncio.run(scenario()) == [float(second) for second in range(1, 11)]


def test_a_cancelled_sleeper_is_forgotten():
    """A cancelled wait must neither raise in the test nor count as still waiting."""

    async def scenario() -> None:
        clock = FakeClock()
        task = asyncio.create_task(clock.sleep_async(1))
        other = asyncio.create_task(clock.sleep_async(2))
        await clock.settle()
        task.cancel()
        await clock.settle()
        assert clock.sleeping == 1
        await clock.advance_async(3)
        assert task.cancelled()
        assert other.done()

    asyncio.run(scenario())


def test_another_thread_may_move_it():
    """Sync and async shells of one limiter are tested together, on one clock."""

    async def scenario() -> None:
        clock = FakeClock()
        task = asyncio.create_task(clock.sleep_async(1))
        await clock.settle()
        thread = threading.Thread(target=clock.sleep, args=(1,))
        thread.start()
        await asyncio.wait_for(task, 5)
        thread.join()
        assert clock.monotonic() == 1.0

    asyncio.run(scenario())


def test_a_zero_wait_gives_others_a_turn():
    """Code that yields with a sleep of zero must not hang on a clock that stands still."""
    asyncio.run(asyncio.wait_for(FakeClock().sleep_async(0), 5))
