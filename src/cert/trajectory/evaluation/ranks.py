"""Scores sorted once, and counted again and again: what every measure of ranks is computed from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InputError

__all__ = ["Counts", "Flags", "Floats", "Packed", "Ranking"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_EXACT_BITS: Final = 53


@dataclass(frozen=True, eq=False, slots=True)
class Counts:
    """How often each score occurs among wrong and among right answers, under R weightings.

    Attributes:
        bad, good: (R, B) weight of the wrong and of the right answers at each of B scores, ascending.
    """

    bad: Floats
    good: Floats

    @property
    def size(self) -> Floats:
        """The weight of all answers, (R, B)."""
        return self.bad + self.good


@dataclass(frozen=True, eq=False, slots=True)
class Packed:
    """R weightings of n answers by whole numbers, several in one double, so that one pass counts them all.

    Attributes:
        columns: (P, n) each Σ_j weight_j · 2^(j · bits): sums of it are exact below 2⁵³.
        bits: those of the largest sum of weights.
        rows: R.
    """

    columns: Floats
    bits: int
    rows: int

    @classmethod
    def of(cls, weights: Floats) -> Self:
        """Pack weights (R, n): whole numbers, at least 0."""
        bits = max(1, int(weights.sum(axis=1).max(initial=0.0)).bit_length())
        each = max(1, _EXACT_BITS // bits)
        firsts = range(0, len(weights), each)
        columns = np.empty((len(firsts), weights.shape[1]))
        for column, first in zip(columns, firsts, strict=True):
            np.dot(
                2.0 ** (bits * np.arange(len(weights[first : first + each]))),
                weights[first : first + each],
                out=column,
            )
        return cls(columns, bits, len(weights))

    def take(self, kept: Flags) -> Self:
        """Return the same of the answers that are kept."""
        return replace(self, columns=self.columns[:, kept])

    def unpacked(self, sums: NDArray[Any]) -> Floats:
        """Return the sums of each weighting, (R, cells), of those of the columns, (P, cells)."""
        whole, mask = sums.astype(np.int64), (1 << self.bits) - 1
        each = max(1, _EXACT_BITS // self.bits)
        parts = [(whole >> (self.bits * place)) & mask for place in range(each)]
        found: Floats = np.stack(parts, axis=1).reshape(each * len(whole), whole.shape[1]).astype(np.float64)
        return found[: self.rows]


@dataclass(frozen=True, eq=False, slots=True)
class Ranking:
    """n scores, larger is worse, as B blocks of equal ones.

    Attributes:
        place: (n,) the block of each answer; blocks are in ascending order of the score.
        wrong: (n,) whether each answer is wrong.
        first: (B,) the least score of each block.
        exact: whether answers in one block have one score; else blocks hold neighbours.
    """

    place: NDArray[np.int64]
    wrong: Flags
    first: Floats
    exact: bool

    @classmethod
    def of(cls, score: Floats, wrong: Flags) -> Self:
        """Sort scores.

        Args:
            score: (n,) may be infinite, and must not be NaN.
            wrong: (n,) labels.

        Raises:
            InputError: a score that is NaN, or labels that are no booleans or not as many.
        """
        score, wrong = np.asarray(score, dtype=np.float64), np.asarray(wrong)
        if wrong.dtype != np.bool_ or score.ndim != 1 or score.shape != wrong.shape:
            raise InputError("scores and labels are two columns of one length, and labels are booleans")
        if np.isnan(score).any():
            raise InputError("a score is NaN", hint="leave out what was not measured, and count it")
        first, place = np.unique(score, return_inverse=True)
        return cls(place, wrong, first, True)

    def merged(self, most: int) -> Self:
        """Return the same with at most so many blocks.

        Neighbours are put together so that blocks hold about equally many answers; equal scores always stay
        together. Those in one block count as equal from there on.
        """
        if self.blocks <= most:
            return self
        size = np.bincount(self.place, minlength=self.blocks)
        middle = np.cumsum(size) - size / 2
        goal = np.floor(middle * most / len(self))
        _, start, block = np.unique(goal, return_index=True, return_inverse=True)
        return replace(self, place=block[self.place], first=self.first[start], exact=False)

    def __len__(self) -> int:
        return len(self.place)

    @property
    def blocks(self) -> int:
        """B."""
        return len(self.first)

    def counts(self, weights: Floats | Packed | None = None) -> Counts:
        """Return how often each score occurs.

        Args:
            weights: (R, n) or (n,): how often each answer counts; all once without them.
        """
        cell, cells = self.place + self.blocks * self.wrong, 2 * self.blocks
        if isinstance(weights, Packed):
            sums = np.stack([np.bincount(cell, column, minlength=cells) for column in weights.columns])
            table = weights.unpacked(sums)
            return Counts(table[:, self.blocks :], table[:, : self.blocks])
        rows = [None] if weights is None else np.atleast_2d(weights)
        table = np.stack([np.bincount(cell, row, minlength=cells) for row in rows]).astype(np.float64)
        return Counts(table[:, self.blocks :], table[:, : self.blocks])
