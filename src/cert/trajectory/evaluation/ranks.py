"""Scores sorted once, and counted again and again: what every measure of ranks is computed from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InputError

__all__ = ["Counts", "Flags", "Floats", "Ranking"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


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

    def counts(self, weights: Floats | None = None) -> Counts:
        """Return how often each score occurs.

        Args:
            weights: (R, n) or (n,): how often each answer counts; all once without them.
        """
        cell, cells = self.place + self.blocks * self.wrong, 2 * self.blocks
        rows = [None] if weights is None else np.atleast_2d(weights)
        table = np.stack([np.bincount(cell, row, minlength=cells) for row in rows]).astype(np.float64)
        return Counts(table[:, self.blocks :], table[:, : self.blocks])
