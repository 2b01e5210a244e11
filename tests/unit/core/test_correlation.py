"""The id of a request: carried where the work goes, and never what a stranger makes of it."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from cert.core.correlation import correlated, correlation_id, new_correlation_id


@pytest.mark.parametrize(
    "foreign", ["", "a b", "a\nb", "a\r\nSet-Cookie: x", "x" * 129, "\x1b[31m", "id;drop", "ıd", "a\n"]
)
def test_an_unsafe_id_from_outside_is_replaced(foreign):
    """It is written to log lines and sent in headers: a line end in it forges both."""
    with correlated(foreign) as chosen:
        assert chosen != foreign
        assert len(chosen) == 32
        assert correlation_id() == chosen


@pytest.mark.parametrize("given", ["req-17", "a.b_c:d-9", "x" * 128])
def test_a_safe_id_is_taken_over(given):
    """The caller could not find its request in our log."""
    with correlated(given):
        assert correlation_id() == given


def test_a_block_inside_keeps_the_id_and_the_end_gives_it_back():
    """The second part of a request would be told as another one; the next request as this one."""
    assert correlation_id() is None
    with correlated("outer"):
        with correlated():
            assert correlation_id() == "outer"
        with correlated("inner"):
            assert correlation_id() == "inner"
        with correlated("not\nsafe"):
            assert correlation_id() == "outer"
        assert correlation_id() == "outer"
    assert correlation_id() is None


def test_ids_are_unlike_each_other():
    """Two requests under one id cannot be told apart."""
    made = {new_correlation_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(identifier) == 32 and int(identifier, 16) >= 0 for identifier in made)


def test_tasks_and_threads_that_carry_the_context_carry_the_id():
    """Lines of a request's own helpers would stand alone."""
    seen = []

    async def work() -> None:
        await asyncio.create_task(note())
        await asyncio.to_thread(lambda: seen.append(correlation_id()))

    async def note() -> None:
        seen.append(correlation_id())

    with correlated("req"):
        asyncio.run(work())
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(lambda: seen.append(correlation_id())))
        thread.start()
        thread.join()
    assert seen == ["req"] * 3
