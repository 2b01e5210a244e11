"""Timings of stages: what the metrics and the report of an analysis say about where its time went."""

from __future__ import annotations

import time

import pytest

from cert.core.stages import Stages


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_stages_add_up_in_the_order_of_first_entry():
    """A stage that runs once a token is one number; a reader finds the stages as they happened."""
    clock = Clock()
    stages = Stages(clock)
    with stages.time("prefill"):
        clock.now += 2.0
        with stages.time("tokenize"):
            clock.now += 1.0
    for _ in range(3):
        with stages.time("decode"):
            clock.now += 0.5
    stages.add("reduce", 4.0)
    assert stages.result() == (("prefill", 3.0), ("tokenize", 1.0), ("decode", 1.5), ("reduce", 4.0))


def test_a_stage_that_raises_is_timed_and_the_error_passes():
    """The slow stage is often the one that failed."""
    clock = Clock()
    stages = Stages(clock)

    def fail() -> None:
        clock.now += 2.0
        raise KeyError

    with pytest.raises(KeyError), stages.time("load"):
        fail()
    assert stages.result() == (("load", 2.0),)


def test_timing_a_stage_is_cheap():
    """It runs once a token in the loop of a generation: 20 µs would show."""
    stages = Stages()
    started = time.perf_counter()
    for _ in range(10_000):
        with stages.time("decode"):
            pass
    assert (time.perf_counter() - started) / 10_000 < 20e-6
