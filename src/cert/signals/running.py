"""Reductions that go on from block to block, in strict order: their bits do not depend on block sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunningReduction", "WindowMean"]

FloatArray = NDArray[np.float64]


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

    An infinite value would spoil every later difference, so infinite values are counted apart and make
    just the windows that hold them infinite.
    """

    size: int
    _sums: FloatArray = field(default_factory=lambda: np.zeros(1))
    _infinite: FloatArray = field(default_factory=lambda: np.zeros(1))

    def update(self, values: FloatArray) -> FloatArray:
        """Take the next values and return the mean of the window that ends at each."""
        infinite = np.isinf(values)
        sums = _extended(self._sums, np.where(infinite, 0.0, values))
        counts = _extended(self._infinite, infinite.astype(np.float64))
        stop = np.arange(len(self._sums), len(sums))
        result = np.full(len(values), np.nan)
        filled = stop >= self.size
        stop = stop[filled]
        start = stop - self.size
        window = (sums[stop] - sums[start]) / self.size
        result[filled] = np.where(counts[stop] > counts[start], np.inf, window)
        self._sums, self._infinite = sums[-self.size - 1 :], counts[-self.size - 1 :]
        return result


def _extended(sums: FloatArray, values: FloatArray) -> FloatArray:
    """Append the running sums of further values; ``sums[i]`` is the sum of the first i values kept."""
    return np.concatenate((sums[:-1], np.add.accumulate(np.concatenate((sums[-1:], values)))))
