"""What a caller holds of a running generation: its deadline, the word to stop, and who listens to it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from cert.core.errors import ConfigurationError, GenerationCancelledError, GenerationTimeoutError
from cert.signals.steps import TokenSteps

__all__ = ["Control", "Ending", "Follower", "OnBlock", "OnStep", "TokenBlock", "in_listener"]

T = TypeVar("T")

_here = threading.local()


def in_listener() -> bool:
    """Say whether this thread is a backend's, just now in a caller's listener.

    What waits here for another generation of the same backend waits for ever, since it keeps that thread.
    """
    return bool(getattr(_here, "listening", False))


@dataclass(frozen=True, eq=False, slots=True)
class TokenBlock:
    """The next tokens of a generation that is on its way.

    Attributes:
        steps: the records of these tokens.
        texts: what each adds to the text; a token that leaves a character incomplete adds nothing, and
            the one that completes it adds all of it.
    """

    steps: TokenSteps
    texts: tuple[str, ...]


class Follower(Protocol):
    """Decides token by token whether a generation goes on; cheap enough to be asked at each of them.

    Both methods are called on the backend's thread, each token going to one of them once, in order.
    """

    def take(self, values: Sequence[float]) -> bool:
        """Take one token of a full distribution and say whether the generation has to end here.

        Args:
            values: log p(y), the entropy, the self-certainty, log p_(1), …, log p_(K).
        """
        ...

    def update(self, steps: TokenSteps) -> bool:
        """Do the same for tokens as a server sends them, some at once."""
        ...


OnStep: TypeAlias = Callable[[int], object]
OnBlock: TypeAlias = Callable[[TokenBlock], object]
Ending: TypeAlias = Literal["timeout", "cancelled", "early_stop"]


class Control:
    """Ends one generation from outside, from any thread, within one step of it.

    Args:
        timeout: seconds in which everything must be done, waiting included, from now or from `restart` on;
            ``None`` and infinity: no limit.
        on_step: called after each step with the number of steps done.
        on_block: called with the tokens as they come. Like ``on_step`` it is called on the backend's
            thread, must be quick, and ends the generation when it raises: the caller gets what it raised.
        follower: may end the generation at any token, as `stop` does.

    Raises:
        ConfigurationError: a timeout that is not a positive number.
    """

    def __init__(
        self,
        *,
        timeout: float | None = None,
        on_step: OnStep | None = None,
        on_block: OnBlock | None = None,
        follower: Follower | None = None,
    ) -> None:
        if timeout is not None and not timeout > 0.0:
            raise ConfigurationError(f"timeout must be a positive number of seconds, not {timeout}")
        self.timeout = timeout
        self.on_step = None if on_step is None else _marked(on_step)
        self.on_block = None if on_block is None else _marked(on_block)
        self.follower = follower
        self.deadline: float | None = None
        self.restart()
        self._told: Ending | None = None
        # Of the re-entrant kind: the garbage collector may end an abandoned stream anywhere.
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], object]] = []

    def restart(self) -> None:
        """Count the time-out from now on; what came before, such as loading a model, is forgotten."""
        if self.timeout is not None and self.timeout <= threading.TIMEOUT_MAX:
            self.deadline = time.monotonic() + self.timeout

    @property
    def ending(self) -> Ending | None:
        """Why the generation has to end now; ``None`` while it may go on."""
        if self._told is None and self.deadline is not None and time.monotonic() >= self.deadline:
            self._end("timeout")
        return self._told

    def cancel(self) -> None:
        """Give the generation up: it fails with `GenerationCancelledError`."""
        self._end("cancelled")

    def stop(self) -> None:
        """End the generation here and keep what it is: its result has ``finish_reason`` ``early_stop``."""
        self._end("early_stop")

    def on_end(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` once when the word to end is given, now if it was; not at the deadline."""
        with self._lock:
            if self._told is None:
                self._listeners.append(listener)
                return
        listener()

    def remaining(self) -> float | None:
        """Return the seconds to the deadline, 0 when it is over, ``None`` when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def wait(self, future: Future[T]) -> T:
        """Wait for a future of a backend; giving up waiting (an interrupt) gives up the generation too.

        Raises:
            GenerationTimeoutError: the deadline came first, with what was measured as ``partial``.
            GenerationCancelledError: it was cancelled from elsewhere.
            BaseException: what the future failed with.
        """
        try:
            if not _done_within(future, self.remaining()):
                self._give_up_waiting(future)
            return future.result()
        except CancelledError:
            raise self.error() from None
        except BaseException:
            if not future.done():
                self.cancel()
                future.cancel()
            raise
        finally:
            # An error's traceback holds this frame, the frame the future, and the future that error: a
            # circle, and with the callers' frames a model in it.
            del future

    async def wait_async(self, future: Future[T]) -> T:
        """Do what `wait` does while other tasks run; a cancelled task gives up the generation."""
        waiter = asyncio.wrap_future(future)
        try:
            await asyncio.wait((waiter,), timeout=self.remaining())
            if not waiter.done():
                if not future.done():
                    self._give_up_waiting(future)
                await asyncio.wait((waiter,))
            # Whoever withdrew the future, it was not this task that was cancelled.
            if waiter.cancelled():
                raise self.error()
            return waiter.result()
        except asyncio.CancelledError:
            self.cancel()
            waiter.cancel()
            raise
        finally:
            del future, waiter

    def error(self) -> GenerationTimeoutError | GenerationCancelledError:
        """Return the error that tells how this generation was ended."""
        if self.ending != "timeout":
            return GenerationCancelledError("the generation was cancelled")
        return GenerationTimeoutError(
            f"the generation was not done within {self.timeout:g} s and was stopped",
            hint="allow more time, or fewer new tokens",
            context={"timeout_s": self.timeout},
        )

    def _give_up_waiting(self, future: Future[T]) -> None:
        # One that still waits for its turn is withdrawn. One that runs sees the same deadline, ends within
        # a step and says what it has measured.
        self._end("timeout")
        if future.cancel():
            raise self.error()

    def _end(self, ending: Ending) -> None:
        with self._lock:
            if self._told is not None:
                return
            self._told = ending
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()


def _done_within(future: Future[Any], seconds: float | None) -> bool:
    try:
        future.exception(seconds)
    except TimeoutError:
        return future.done()
    return True


def _marked(listener: Callable[[T], object]) -> Callable[[T], object]:
    def heard(told: T) -> object:
        outside, _here.listening = in_listener(), True
        try:
            return listener(told)
        finally:
            _here.listening = outside

    return heard
