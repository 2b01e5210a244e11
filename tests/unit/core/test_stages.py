"""Timings of stages: what the metrics and the report of an analysis say about where its time went."""

from __future__ import annotations

import itertools

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


def test_a_stage_costs_two_looks_at_the_clock_and_keeps_nothing_of_its_entries():
    """It runs once a token in the loop of a generation: more, or a record of each, would show."""
    looks = itertools.count()
    stages = Stages(clock=lambda: float(next(looks)))
    for _ in range(10_000):
        with stages.time("decode"):
            pass
    assert next(looks) == 20_000
    assert stages.result() == (("decode", 10_000.0),)
