"""Reductions that go on from block to block, in strict order: their bits do not depend on block sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunningReduction", "WindowMean"]

FloatArray = NDArray[np.float64]

# Nats; no mean of log-probabilities that means anything comes near.
_HUGE = 1.0e9


@dataclass(slots=True)
class RunningReduction:
    """A running sum or maximum; numpy's pairwise ``sum`` would depend on how many values come at once.

    Attributes:
        accumulate: a ufunc's ``accumulate``, which works strictly from left to right.
        last: the value so far, first the neutral one.
    """

    accumulate: Callable[[FloatArray], FloatArray]
    last: float

    def update(self, values: FloatArray) -> FloatArray:
        """Take the next values, at least one, and return the running result at each."""
        with np.errstate(over="ignore", invalid="ignore"):
            result = self.accumulate(np.concatenate(([self.last], values)))[1:]
        self.last = float(result[-1])
        return result


@dataclass(slots=True)
class WindowMean:
    """Mean of the last ``size`` values from differences of running sums; NaN until there are so many.

    NaN and infinity would spoil every later difference, and so would a value so large that adding it
    loses the others (masked logits of −3.4e38 lead to such). They are counted apart and make just the
    windows that hold them NaN or infinite.
    """

    size: int
    _sums: FloatArray = field(default_factory=lambda: np.zeros(1))
    _infinite: FloatArray = field(default_factory=lambda: np.zeros(1))
    _missing: FloatArray = field(default_factory=lambda: np.zeros(1))

    def update(self, values: FloatArray) -> FloatArray:
        """Take the next values and return the mean of the window that ends at each."""
        missing, infinite = np.isnan(values), np.abs(values) > _HUGE
        sums = _extended(self._sums, np.where(missing | infinite, 0.0, values))
        infinite_seen = _extended(self._infinite, infinite.astype(np.float64))
        missing_seen = _extended(self._missing, missing.astype(np.float64))
        stop = np.arange(len(self._sums), len(sums))
        result = np.full(len(values), np.nan)
        filled = stop >= self.size
        stop = stop[filled]
        start = stop - self.size
        window = (sums[stop] - sums[start]) / self.size
        window = np.where(infinite_seen[stop] > infinite_seen[start], np.inf, window)
        result[filled] = np.where(missing_seen[stop] > missing_seen[start], np.nan, window)
        keep = slice(-self.size - 1, None)
        self._sums, self._infinite, self._missing = sums[keep], infinite_seen[keep], missing_seen[keep]
        return result


def _extended(sums: FloatArray, values: FloatArray) -> FloatArray:
    """Append the running sums of further values; ``sums[i]`` is the sum of the first i values kept."""
    return np.concatenate((sums[:-1], np.add.accumulate(np.concatenate((sums[-1:], values)))))
