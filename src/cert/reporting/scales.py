"""From numbers to places on a chart, in per cent of its width: it fits any screen without a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Scale", "differences", "linear", "ratios"]

_RATIOS: Final = (0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)
_APART: Final = 9.0  # per cent between two labels


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis.

    Attributes:
        low, high: its ends.
        ticks: places in per cent with their labels.
        logarithmic: equal steps are equal factors.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return the place of a number in per cent; beyond the ends, the end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(100.0 * share, 2)

    def holds(self, value: float) -> bool:
        """Whether a number is within the ends."""
        return self.low <= value <= self.high


def ratios(values: Iterable[float]) -> Scale:
    """Return a logarithmic axis that shows all ratios, as far as from 1/5 to 5, and always 1."""
    known = [value for value in values if math.isfinite(value) and value > 0.0]
    low = min(0.8, max(0.2, min(known, default=0.8)))
    high = max(1.25, min(5.0, max(known, default=1.25)))
    low, high = low / 1.06, high * 1.06
    scale = Scale(low, high, (), logarithmic=True)
    wanted = sorted(_RATIOS, key=lambda value: (value != 1.0, value not in (0.5, 2.0), abs(math.log(value))))
    ticks = _apart([(scale.at(value), f"{value:g}") for value in wanted if scale.holds(value)])
    return Scale(low, high, ticks, logarithmic=True)


def differences(values: Iterable[float]) -> Scale:
    """Return an axis of differences that holds 0 and all that are given."""
    known = [value for value in values if math.isfinite(value)]
    return linear([*known, 0.0], lambda value: f"{value:+g}".replace("-", "−") if value else "0")


def linear(values: Sequence[float], label: Callable[[float], str]) -> Scale:
    """Return an axis that holds all numbers, with round ticks.

    Args:
        values: one or more.
        label: writes a tick.
    """
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    low, high = low - room, high + room
    step = _round_step((high - low) / 5.0)
    first, last = math.ceil(low / step), math.floor(high / step)
    scale = Scale(low, high, ())
    numbers = [round(place * step, 12) + 0.0 for place in range(first, last + 1)]
    return Scale(low, high, tuple((scale.at(value), label(value)) for value in numbers))


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= least * 0.999)


def _apart(ticks: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Return those that leave room for one another, the first ones first."""
    kept: list[tuple[float, str]] = []
    for place, label in ticks:
        if all(abs(place - other) >= _APART for other, _ in kept):
            kept.append((place, label))
    return tuple(sorted(kept))
