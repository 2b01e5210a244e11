"""Reductions that go on from block to block, in strict order: their bits do not depend on block sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunningReduction", "WindowMean", "accumulated"]

FloatArray = NDArray[np.float64]

# Nats; no mean of log-probabilities that means anything comes near.
_HUGE = 1.0e9


@dataclass(slots=True)
class RunningReduction:
    """Running sums or maxima of R rows; numpy's pairwise ``sum`` would depend on how many come at once.

    Attributes:
        accumulate: a ufunc's ``accumulate``, which works strictly from left to right.
        last: (R,) the values so far, first the neutral ones.
    """

    accumulate: Callable[..., FloatArray]
    last: FloatArray

    def update(self, rows: FloatArray) -> FloatArray:
        """Take the next values, (R, T) with T at least 1, and return the running results at each."""
        result = accumulated(self.accumulate, self.last[:, None], rows)[:, 1:]
        self.last = result[:, -1].copy()
        return result


def accumulated(accumulate: Callable[..., FloatArray], first: FloatArray, values: FloatArray) -> FloatArray:
    """Return the running results along the last axis of ``first`` and then ``values``."""
    row = np.concatenate((first, values), axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return accumulate(row, axis=-1, out=row)


@dataclass(slots=True)
class WindowMean:
    """Mean of the last ``size`` values from differences of running sums; NaN until there are so many.

    NaN and infinity would spoil every later difference, and so would a value so large that adding it
    loses the others (masked logits of −3.4e38 lead to such). They are counted apart and make just the
    windows that hold them NaN or infinite.
    """

    size: int
    _seen: FloatArray = field(default_factory=lambda: np.zeros((3, 1)))

    def update(self, values: FloatArray) -> FloatArray:
        """Take the next values and return the mean of the window that ends at each."""
        rows = accumulated(np.add.accumulate, self._seen[:, -1:], countable(values))
        seen = np.concatenate((self._seen[:, :-1], rows), axis=1)
        means = window_means(seen, self.size)
        self._seen = seen[:, -self.size :].copy()
        return np.concatenate((np.full(len(values) - len(means), np.nan), means))


def countable(values: FloatArray) -> FloatArray:
    """Return three rows to be summed: the values that can be, how many are too large, how many missing."""
    rows = np.empty((3, *values.shape))
    np.isnan(values, out=rows[2])
    np.greater(np.abs(values), _HUGE, out=rows[1])
    rows[0] = np.where((rows[1] + rows[2]) > 0.0, 0.0, values)
    return rows


def window_means(seen: FloatArray, size: int) -> FloatArray:
    """Return the means of all windows of ``size`` values from running sums of `countable` rows.

    Args:
        seen: (3, …, T + 1) running sums, those of no values first.
        size: W, the values in a window.

    Returns:
        (…, T + 1 − size) means, of the window that ends at value ``size`` first; none where T < size.
    """
    total, infinite, missing = seen[..., size:] - seen[..., : max(0, seen.shape[-1] - size)]
    means = np.where(infinite > 0.0, np.inf, total / size)
    return np.where(missing > 0.0, np.nan, means)
