"""Many prompts at once, each with an outcome of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar, overload

from cert.backends.control import Control, OnStep
from cert.backends.detached import detached
from cert.core.errors import BatchError, CertError, ConfigurationError, OverloadedError
from cert.trajectory.engine import Call
from cert.trajectory.life import MonitorLife
from cert.trajectory.requests import PromptLike, generation_request
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["BatchOutcome", "Batches", "OnDone", "deadline_of", "results_of", "time_left"]

BatchOutcome: TypeAlias = TrajectoryAnalysis | CertError
OnDone: TypeAlias = Callable[[int, BatchOutcome], object]
T = TypeVar("T")


class Batches(MonitorLife):
    """The part of a monitor that takes batches."""

    @overload
    def analyze_batch(
        self,
        prompts: Iterable[PromptLike],
        *,
        timeout: float | None = ...,
        return_exceptions: Literal[False] = ...,
        on_done: OnDone | None = ...,
        **options: Any,
    ) -> list[TrajectoryAnalysis]: ...

    @overload
    def analyze_batch(
        self,
        prompts: Iterable[PromptLike],
        *,
        timeout: float | None = ...,
        return_exceptions: Literal[True],
        on_done: OnDone | None = ...,
        **options: Any,
    ) -> list[BatchOutcome]: ...

    def analyze_batch(
        self,
        prompts: Iterable[PromptLike],
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
        on_done: OnDone | None = None,
        **options: Any,
    ) -> list[TrajectoryAnalysis] | list[BatchOutcome]:
        """Analyse many prompts, in as few batches as the backend can.

        Args:
            prompts: each as `analyze` takes it.
            timeout: seconds for the whole call. What is not done then fails by itself, with what was
                measured of it; what is done is kept.
            return_exceptions: put the error of an item in its place instead of raising `BatchError`.
            on_done: called with the place and the outcome of each item as soon as it is there.
            options: those of `analyze`, for every item.

        Raises:
            BatchError: some items failed, after all were done; ``results`` has every outcome in order.
        """
        prompts = _as_list(prompts)
        deadline_of(timeout)  # refuses what is out of range
        outcomes: list[Any] = [None] * len(prompts)
        if not prompts:
            return outcomes
        with self.resource.acquire():  # loading takes no part of the time
            deadline = deadline_of(timeout)
            calls, places = [], []
            for place, prompt in enumerate(prompts):
                try:
                    calls.append(self._call(prompt, deadline, **options))
                    places.append(place)
                except CertError as error:
                    outcomes[place] = _told(on_done, place, detached(error, noted=False))
            with contextlib.closing(self.engine.run_all(calls)) as finished:
                for index, outcome in finished:
                    outcomes[places[index]] = _told(on_done, places[index], outcome)
        return results_of(outcomes, return_exceptions)

    async def analyze_batch_async(
        self,
        prompts: Iterable[PromptLike],
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
        on_done: OnDone | None = None,
        **options: Any,
    ) -> list[TrajectoryAnalysis] | list[BatchOutcome]:
        """Do what `analyze_batch` does while other tasks run."""
        prompts = _as_list(prompts)
        deadline_of(timeout)
        outcomes: list[Any] = [None] * len(prompts)
        if not prompts:
            return outcomes
        async with self.resource.acquire_async() as backend:
            deadline = deadline_of(timeout)
            slots, room = asyncio.Semaphore(backend.window), _Room()

            async def analyse(place: int) -> None:
                async with slots:
                    try:
                        outcome: BatchOutcome = await room.run(
                            lambda: self.engine.run_async(self._call(prompts[place], deadline, **options))
                        )
                    except CertError as error:
                        outcome = detached(error, noted=False)
                outcomes[place] = _told(on_done, place, outcome)

            try:
                async with asyncio.TaskGroup() as group:
                    for place in range(len(prompts)):
                        group.create_task(analyse(place))
            except BaseExceptionGroup as failures:
                # A defect, or what ``on_done`` raised: the first ended the others, and goes to the caller.
                raise failures.exceptions[0] from None
        return results_of(outcomes, return_exceptions)

    def _call(
        self,
        prompt: PromptLike,
        deadline: float | None,
        *,
        use_cache: bool = True,
        on_step: OnStep | None = None,
        group: str | None = None,
        early_stop: bool = False,
        **options: Any,
    ) -> Call:
        request = generation_request(prompt, self.config, **options)
        control = Control(timeout=time_left(deadline), on_step=on_step)
        return self.engine.call(request, control, use_cache=use_cache, group=group, early_stop=early_stop)


class _Room:
    """Where a queue has no room for all calls of a batch, they wait for one another."""

    def __init__(self) -> None:
        self._flying = 0
        self._waiting: deque[asyncio.Event] = deque()

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            self._flying += 1
            try:
                result = await call()
            except OverloadedError:
                self._flying -= 1
                if not self._flying:  # it is not ours to make room
                    self._wake_one()
                    raise
            except BaseException:
                self._flying -= 1
                self._wake_one()
                raise
            else:
                self._flying -= 1
                self._wake_one()
                return result
            self._waiting.append(landed := asyncio.Event())
            await landed.wait()

    def _wake_one(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()


def _as_list(prompts: object) -> list[Any]:
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        raise ConfigurationError(
            f"a batch is a list of prompts, not {type(prompts).__name__}", hint="analyze() takes one prompt"
        )
    return list(prompts)


# A deadline that is over leaves the rest no time, which is not the same as no limit.
_NO_TIME = 1e-9


def deadline_of(timeout: float | None) -> float | None:
    """Return the moment at which a call that begins now has to be done."""
    Control(timeout=timeout)  # refuses what is out of range
    return None if timeout is None else time.monotonic() + timeout


def time_left(deadline: float | None) -> float | None:
    """Return the seconds to a moment, never 0."""
    return None if deadline is None else max(_NO_TIME, deadline - time.monotonic())


def _told(on_done: OnDone | None, place: int, outcome: BatchOutcome) -> BatchOutcome:
    if on_done is not None:
        on_done(place, outcome)
    return outcome


def results_of(outcomes: list[Any], return_exceptions: bool) -> list[Any]:
    """Return the outcomes.

    Raises:
        BatchError: there is an error among them, and they are not wanted.
    """
    failed = [outcome for outcome in outcomes if isinstance(outcome, CertError)]
    if not failed or return_exceptions:
        return outcomes
    error = BatchError(
        f"{len(failed)} of {len(outcomes)} items failed; the first: {failed[0].message}",
        hint="look at .results, or call with return_exceptions=True",
        context={"failed": len(failed), "items": len(outcomes), "codes": sorted({e.code for e in failed})},
    )
    error.results = outcomes
    raise error from failed[0]
