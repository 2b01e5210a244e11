"""When a device has no memory for a batch: smaller batches, then the CPU, and later the device again."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from cert.backends.batch import BatchRunner, NoMemoryError
from cert.backends.quantization import quantization_of
from cert.backends.rows import Row, ScoreRow
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import OutOfMemoryError
from cert.core.events import ComponentDegraded, EventHub, OutOfMemoryMet

__all__ = ["MemoryFallback"]

R = TypeVar("R", Row, ScoreRow)

# Seconds on the CPU until the device is tried again.
_AWAY = 60.0


class MemoryFallback:
    """Runs batches, giving ground when memory ends and taking it back later.

    A batch that does not fit is halved until its parts do. A single row that does not fit moves the model
    to the CPU, where everything runs until the device is tried again. Each time is told as an
    `OutOfMemoryMet` event, and the stay on the CPU as a degraded component.
    """

    def __init__(
        self, runner: BatchRunner, *, hub: EventHub, clock: Clock = SYSTEM_CLOCK, away: float = _AWAY
    ) -> None:
        self._runner = runner
        self._model: Any = runner.model
        self._home = str(runner.model.device)
        self._hub = hub
        self._clock = clock
        self._away = away
        self._back_at: float | None = None

    def run(self, rows: Sequence[R], attempt: Callable[[Sequence[R]], None]) -> None:
        """Settle the futures of rows with one key by ``attempt``, which raises `NoMemoryError` or settles."""
        if self._back_at is not None and self._clock.monotonic() >= self._back_at:
            self._go_home()
        self._run(rows, attempt)

    def close(self) -> None:
        """The model is let go of: it is not away from its device any more."""
        if self._back_at is not None:
            self._back_at = None
            self._degraded(active=False)

    def _run(self, rows: Sequence[R], attempt: Callable[[Sequence[R]], None]) -> None:
        try:
            attempt(rows)
            return
        except NoMemoryError as error:
            reason = str(error)
        # Only here: while the error was there, its frames held what fills the memory.
        _free()
        if len(rows) > 1:
            self._tell("smaller_batch")
            half = len(rows) // 2
            self._run(rows[:half], attempt)
            self._run(rows[half:], attempt)
        elif self._leave():
            self._tell("cpu")
            self._run(rows, attempt)
        else:
            self._tell("failed")
            rows[0].future.set_exception(self._no_memory(reason))

    def _leave(self) -> bool:
        # An 8-bit layer keeps tensors of its own, which a move of the model leaves where they are.
        stays = self._model.device.type == "cpu" or quantization_of(self._model) is not None
        if self._back_at is not None or stays or not self._move("cpu"):
            return False
        self._back_at = self._clock.monotonic() + self._away
        self._degraded(active=True)
        return True

    def _go_home(self) -> None:
        if self._move(self._home):
            self._back_at = None
            self._degraded(active=False)
        else:
            self._back_at = self._clock.monotonic() + self._away

    def _move(self, device: str) -> bool:
        before = str(self._model.device)
        try:
            self._model.to(device)
        # Quantised weights cannot be moved (ValueError), and the other device may be full as well.
        except (RuntimeError, ValueError, MemoryError):
            with contextlib.suppress(RuntimeError, ValueError, MemoryError):
                self._model.to(before)  # a part of it may have been moved
            return False
        finally:
            _free()
        return True

    def _tell(self, action: str) -> None:
        device = self._home if action == "cpu" else str(self._model.device)
        self._hub.emit(OutOfMemoryMet(model=self._runner.identity.name, device=device, action=action))

    def _degraded(self, *, active: bool) -> None:
        self._hub.emit(ComponentDegraded(component="model_device", mode="cpu", active=active))

    def _no_memory(self, reason: str) -> OutOfMemoryError:
        name = self._runner.identity.name
        return OutOfMemoryError(
            f"no memory on {self._model.device} for one request to model '{name}': {reason}",
            hint="shorten the prompt, allow fewer new tokens, or load 8-bit or 4-bit weights",
            context={"model": name, "device": str(self._model.device)},
        )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
