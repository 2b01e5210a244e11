"""Where the time of one piece of work went, by stage."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Stages"]


class Stages:
    """Adds up the seconds of named stages; one instance belongs to one piece of work on one thread.

    A stage that is entered again adds to its time. A stage inside another counts in both, so that the sum
    may be more than the whole. Costs about a microsecond a stage.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}

    def time(self, name: str) -> _Timing:
        """Return a context manager whose block counts as the stage, also when it raises."""
        return _Timing(self, name, self._clock)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def result(self) -> tuple[tuple[str, float], ...]:
        """Return (stage, seconds) in the order of first entry, as ``GenerationFinished.stages`` takes it."""
        return tuple(self._seconds.items())


class _Timing:
    __slots__ = ("_clock", "_name", "_stages", "_start")

    def __init__(self, stages: Stages, name: str, clock: Callable[[], float]) -> None:
        self._stages = stages
        self._name = name
        self._clock = clock

    def __enter__(self) -> None:
        # Entered now, so that an outer stage is listed before what it contains.
        self._stages.add(self._name, 0.0)
        self._start = self._clock()

    def __exit__(self, *_: object) -> None:
        self._stages.add(self._name, self._clock() - self._start)
