"""The signals of many finished generations at once: a column a signal, with the bits of one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cert.signals.bounds import in_order
from cert.signals.generation import (
    MAXIMISED,
    SUMMED,
    GenerationSignals,
    SignalOptions,
    bottom_count,
    maximised_rows,
    summed_rows,
    totals,
)
from cert.signals.running import accumulated, countable, window_means
from cert.signals.steps import FloatArray, IntArray, TokenSteps, measure_steps

__all__ = ["SignalColumns", "signal_columns"]

SignalColumns = dict[str, NDArray[np.float64] | NDArray[np.int64]]

# Generations of about the same length share a matrix: at most so many times the shortest, and a few more.
_SPREAD, _SLACK = 1.25, 8
# Values in one matrix, so that what is worked on stays in the processor's cache.
_CELLS = 65_536
# Steps whose signals are worked out together, for the same reason.
_RUN = 4_096


def signal_columns(
    steps: TokenSteps,
    lengths: IntArray,
    options: SignalOptions | None = None,
    *,
    mass: FloatArray | None = None,
) -> SignalColumns:
    """Compute the signals of B finished generations whose steps stand one after the other.

    Every value has the bits that `analyze_steps` gives for the generation alone.

    Args:
        steps: the Σ T_b steps of all generations.
        lengths: (B,) T_b, the tokens of each; 0 is allowed.
        options: what the signals depend on besides the steps.
        mass: (Σ T_b,) is filled with Σ p_(k) of each step, for callers that check it.

    Returns:
        A column of shape (B,) for each field of `GenerationSignals`, NaN where one was not measured.

    Raises:
        ValueError: the lengths do not add up to the number of steps, or one is negative.
    """
    if (lengths < 0).any() or int(lengths.sum()) != len(steps):
        raise ValueError("lengths must be 0 or more and add up to the number of steps")
    options = options or SignalOptions()
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)
    tokens = _Tokens.of(steps, options, np.empty(len(steps)) if mass is None else mass)
    columns: SignalColumns = {
        f.name: np.full(len(lengths), np.nan) for f in fields(GenerationSignals) if f.name != "n_tokens"
    }
    for members in _alike(lengths):
        found = _summaries(tokens, starts[members], lengths[members], options)
        for name, values in found.items():
            columns[name][members] = values
    return {"n_tokens": lengths.astype(np.int64), **columns}


@dataclass(frozen=True, eq=False, slots=True)
class _Tokens:
    """What is summed and maximised of N tokens, with one row more that is neutral.

    Attributes:
        summed: (N + 1, 10), as ``SUMMED`` names the columns.
        maximised: (N + 1, 6), as ``MAXIMISED`` names them but the last.
        first: (N,) p_(1).
    """

    summed: FloatArray
    maximised: FloatArray
    first: FloatArray

    @classmethod
    def of(cls, steps: TokenSteps, options: SignalOptions, mass: FloatArray) -> _Tokens:
        """Compute the signals of steps in runs small enough for the processor's cache."""
        n = len(steps)
        summed, maximised = np.empty((n + 1, len(SUMMED))), np.empty((n + 1, len(MAXIMISED) - 1))
        first = np.empty(n)
        summed[n], maximised[n] = 0.0, -math.inf
        for start in range(0, n, _RUN):
            part = slice(start, min(start + _RUN, n))
            step, mass[part] = measure_steps(steps[part])
            first[part] = step.top_probability
            summed[part] = summed_rows(step, options).T
            maximised[part] = maximised_rows(step).T
        return cls(summed, maximised, first)


def _alike(lengths: IntArray) -> Iterator[NDArray[np.intp]]:
    """Yield the places of generations of about the same length, at least one token, longest last."""
    order = np.argsort(lengths, kind="stable")
    sorted_lengths = lengths[order]
    first = int(np.searchsorted(sorted_lengths, 1))
    while first < len(order):
        longest = int(sorted_lengths[first] * _SPREAD) + _SLACK
        stop = int(np.searchsorted(sorted_lengths, longest, side="right"))
        stop = min(stop, first + max(1, _CELLS // longest))
        yield order[first:stop]
        first = stop


def _summaries(
    tokens: _Tokens, starts: IntArray, lengths: IntArray, options: SignalOptions
) -> dict[str, FloatArray]:
    """Return columns of (B,) generations; a matrix holds a time step a row, so that rows add up in order."""
    place = np.arange(int(lengths.max()))[:, None]
    cells = np.where(place < lengths, starts + place, -1)
    values = tokens.summed.take(cells, axis=0)
    flat = values.reshape(len(place), -1)
    sums = in_order(flat).reshape(values.shape[1:]).T
    last = dict(zip(SUMMED, sums, strict=True))
    confidence = values[:, :, SUMMED.index("confidence")]
    largest = tokens.maximised.take(cells, axis=0).max(axis=0).T
    cusum = _max_cusum(values[:, :, SUMMED.index("cusum_walk")])
    return {
        **totals(lengths, last, dict(zip(MAXIMISED, (*largest, cusum), strict=True))),
        **_groups(np.ascontiguousarray(confidence.T), lengths, last["confidence"] / lengths, options),
        "first_top_probability": tokens.first[starts],
    }


def _max_cusum(steps: FloatArray) -> FloatArray:
    # Behind the end of a generation the walk stays where it is, which is no new maximum.
    walk = accumulated(np.add.accumulate, np.zeros((steps.shape[1], 1)), steps.T)
    with np.errstate(invalid="ignore"):
        return np.asarray((walk - np.minimum.accumulate(walk, axis=1)).max(axis=1))


def _groups(
    confidence: FloatArray, lengths: IntArray, mean: FloatArray, options: SignalOptions
) -> dict[str, FloatArray]:
    """Return what follows from windows of (B, T) confidences; a short generation is one group."""
    size = options.group_window
    count = np.maximum(lengths - size + 1, 1)
    groups = np.full((len(lengths), max(1, confidence.shape[1] - size + 1)), np.inf)
    if confidence.shape[1] >= size:
        seen = accumulated(np.add.accumulate, np.zeros((3, len(lengths), 1)), countable(confidence))
        groups[:] = window_means(seen, size)
    groups[np.arange(groups.shape[1]) >= count[:, None]] = np.inf
    short = lengths < size
    groups[short, 0] = mean[short]
    lowest = groups.min(axis=1)
    few = np.array([bottom_count(n, options) for n in range(int(count.max()) + 1)])[count]
    groups.sort(axis=1)
    bottom = _means(groups, np.zeros_like(few), few)
    bottom[np.isnan(lowest)] = np.nan  # a sort puts NaN last
    last = np.minimum(lengths, options.tail_window)
    return {
        "lowest_group_confidence": lowest,
        "bottom_group_confidence": bottom,
        "tail_confidence": _means(confidence, lengths - last, last),
    }


def _means(values: FloatArray, start: IntArray, count: IntArray) -> FloatArray:
    """Return the mean of ``count`` values of each row from ``start`` on, rows of one count together."""
    means = np.empty(len(values))
    for n in np.unique(count):
        rows = np.flatnonzero(count == n)
        means[rows] = values[rows[:, None], start[rows, None] + np.arange(n)].mean(axis=1)
    return means
