"""Tokens with their signals as they come, to a thread or to a task."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cert.backends.base import Generation, GenerationRequest
from cert.backends.control import Control, TokenBlock
from cert.core.errors import CertError, ConfigurationError, GenerationCancelledError, GenerationTimeoutError
from cert.signals import SignalStream
from cert.trajectory.analysis import energies_of
from cert.trajectory.calibration.alarm import StreamingAlarm, alarm_of
from cert.trajectory.engine import HamiltonianEngine, begin_async, measure_partial
from cert.trajectory.types import ReasoningMetrics, TrajectoryAnalysis, TrajectoryConfig, token_metrics

__all__ = ["AsyncTrajectoryStream", "StreamedToken", "TrajectoryStream"]

_Item = TokenBlock | None


@dataclass(frozen=True, slots=True)
class StreamedToken:
    """One token of a generation that is on its way.

    Attributes:
        text: what it adds to the text. A token that leaves a character incomplete adds nothing; what is
            left at the end comes as a last piece without metrics.
        token_id: its id, ``None`` for such a piece.
        metrics: its signals; the same as in the finished analysis.
        entropy_lower, entropy_upper: bounds of the entropy in nats, equal where it is known.
        alarm: whether the gate has raised its alarm, at this token or before; ``None`` without a gate that
            watches the way.
    """

    text: str
    token_id: int | None
    metrics: ReasoningMetrics | None
    entropy_lower: float
    entropy_upper: float
    alarm: bool | None = None


class _Tokens:
    """Turns blocks into tokens with signals."""

    def __init__(self, config: TrajectoryConfig, alarm: StreamingAlarm | None) -> None:
        self._config = config
        self._alarm = alarm
        self._signals = SignalStream(config.signal_options)
        self._count = 0

    def of(self, block: TokenBlock) -> Iterator[StreamedToken]:
        steps = block.steps
        if not len(steps):
            nan = float("nan")
            raised = None if self._alarm is None else self._alarm.alarm_at is not None
            yield from (StreamedToken(text, None, None, nan, nan, raised) for text in block.texts)
            return
        if self._alarm is not None:
            self._alarm.update(steps)
        step, running = self._signals.update(steps)
        energies = energies_of(step, self._config)
        rows = token_metrics(block.texts, steps, step, running, energies, self._count)
        self._count += len(steps)
        columns = (steps.token_ids, step.entropy_lower, step.entropy_upper)
        for row, *values in zip(rows, *(column.tolist() for column in columns), strict=True):
            yield StreamedToken(row.token, values[0], row, values[1], values[2], self._raised(row.step))

    def _raised(self, token: int) -> bool | None:
        if self._alarm is None:
            return None
        return self._alarm.alarm_at is not None and token >= self._alarm.alarm_at


class _Stream:
    """What both kinds share: the generation and its end.

    Nothing that runs holds the stream itself, so that one that nobody reads any more is given up.
    """

    def __init__(
        self,
        engine: HamiltonianEngine,
        request: GenerationRequest,
        timeout: float | None,
        group: str | None,
        early_stop: bool,
        put: Callable[[_Item], None],
    ) -> None:
        self._exits = contextlib.ExitStack()
        self._future: Future[Generation] | None = None
        self._control = Control(timeout=timeout, on_block=put)
        self._put = put
        self._engine = engine
        self._request = request
        self._tokens = _Tokens(engine.config, _shown_alarm(engine, group))
        self._pending: Iterator[StreamedToken] = iter(())
        self._call = engine.call(request, self._control, use_cache=False, group=group, early_stop=early_stop)
        self._analysis: TrajectoryAnalysis | None = None
        self._error: BaseException | None = None

    def __del__(self) -> None:
        if hasattr(self, "_control"):
            self._give_up()

    @property
    def analysis(self) -> TrajectoryAnalysis:
        """The analysis of the whole, once the stream has come to its end.

        Raises:
            ConfigurationError: it has not.
        """
        if self._analysis is None:
            raise ConfigurationError("the stream has not come to its end", hint="read it to the end first")
        return self._analysis

    def stop(self) -> None:
        """End the generation here; what there is of it is analysed."""
        self._control.stop()

    def _follow(self, future: Future[Generation]) -> None:
        self._future = future
        put = self._put
        future.add_done_callback(lambda _: put(None))

    def _give_up(self) -> None:
        if self._future is not None and not self._future.done():
            self._control.cancel()
            self._future.cancel()
        self._exits.close()

    def _closed(self) -> None:
        self._give_up()
        if self._analysis is None and self._error is None:
            self._error = GenerationCancelledError("the stream was closed")

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, GenerationTimeoutError | GenerationCancelledError):
            measure_partial(error, self._engine, self._call)
        self._error = error
        self._give_up()


def _shown_alarm(engine: HamiltonianEngine, group: str | None) -> StreamingAlarm | None:
    """Return an alarm of the reader's own: that which may end the generation is ahead of what was read."""
    gate = engine.gate
    if gate is None or gate.certificate.goal != "streaming" or gate.threshold_of(group) is None:
        return None
    return alarm_of(gate, group, engine.config.signal_options)


class TrajectoryStream(_Stream):
    """An iterator over the tokens of one generation; made by `HamiltonianMonitor.stream`.

    Leaving the ``with`` block early cancels the generation. After the last token, ``analysis`` has the
    whole.

    Raises:
        GenerationTimeoutError: while iterating, when the time is over; ``partial`` has what was measured.
        CertError: the generation cannot be worked on or failed.
    """

    def __init__(
        self,
        engine: HamiltonianEngine,
        request: GenerationRequest,
        timeout: float | None = None,
        *,
        group: str | None = None,
        early_stop: bool = False,
    ) -> None:
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        super().__init__(engine, request, timeout, group, early_stop, self._queue.put)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamedToken:
        while True:
            if (token := next(self._pending, None)) is not None:
                return token
            if self._analysis is not None:
                raise StopIteration
            if self._error is not None:
                raise self._error
            self._advance()

    def close(self) -> None:
        """Give up a generation that is not done; nothing happens to one that is."""
        self._closed()

    def _advance(self) -> None:
        try:
            future = self._future or self._begin()
            block = self._next_block(future)
            if block is not None:
                self._pending = self._tokens.of(block)
                return
            self._analysis = self._engine.finish(self._control.wait(future), self._call)
            self._exits.close()
        except BaseException as error:
            self._failed(error)
            raise

    def _begin(self) -> Future[Generation]:
        backend = self._exits.enter_context(self._engine.resource.acquire())
        self._control.restart()
        self._follow(future := backend.begin(self._request, self._control))
        return future

    def _next_block(self, future: Future[Generation]) -> _Item:
        try:
            return self._queue.get(timeout=self._control.remaining())
        except queue.Empty:
            # The time is over. What came until the end is told first; then the future is asked again.
            with contextlib.suppress(CertError):
                self._control.wait(future)
            return self._queue.get()


class AsyncTrajectoryStream(_Stream):
    """The same for tasks: an asynchronous iterator; made by `HamiltonianMonitor.stream_async`."""

    def __init__(
        self,
        engine: HamiltonianEngine,
        request: GenerationRequest,
        timeout: float | None = None,
        *,
        group: str | None = None,
        early_stop: bool = False,
    ) -> None:
        self._mail = _Mail()
        super().__init__(engine, request, timeout, group, early_stop, self._mail.put)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamedToken:
        while True:
            if (token := next(self._pending, None)) is not None:
                return token
            if self._analysis is not None:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            await self._advance()

    async def close(self) -> None:
        """Give up a generation that is not done; nothing happens to one that is."""
        self._closed()

    async def _advance(self) -> None:
        try:
            future = self._future or await self._begin()
            block = await self._next_block(future)
            if block is not None:
                self._pending = self._tokens.of(block)
                return
            generation = await self._control.wait_async(future)
            self._analysis = await self._engine.finish_async(generation, self._call)
            self._exits.close()
        except BaseException as error:
            self._failed(error)
            raise

    async def _begin(self) -> Future[Generation]:
        resource = self._engine.resource
        while resource.state != "loaded":
            await asyncio.to_thread(resource.load)
        # Held by the ordinary kind of context, which can be left without an event loop.
        backend = self._exits.enter_context(resource.acquire())
        self._mail.loop = asyncio.get_running_loop()
        self._control.restart()
        self._follow(future := await begin_async(backend, self._request, self._control))
        return future

    async def _next_block(self, future: Future[Generation]) -> _Item:
        try:
            async with asyncio.timeout(self._control.remaining()):
                return await self._mail.queue.get()
        except TimeoutError:
            with contextlib.suppress(CertError):  # as in the other kind
                await self._control.wait_async(future)
            return await self._mail.queue.get()


class _Mail:
    """Brings blocks from the backend's thread to an event loop."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[_Item] = asyncio.Queue()
        self.loop: asyncio.AbstractEventLoop | None = None

    def put(self, block: _Item) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody reads any more
            if self.loop is not None:
                self.loop.call_soon_threadsafe(self.queue.put_nowait, block)
