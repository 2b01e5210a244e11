"""What the procedures work on: checked columns, exact rates, and what each answer counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError, InputError

__all__ = ["Answers", "exact_rate", "just_below"]


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """n labelled answers, each of which counts 1/m where its unit has m answers.

    So every unit counts 1, and a rate over answers that count like this is that of *an answer drawn at random
    of a unit drawn at random*. Where all units have the same number of answers it is the plain rate.

    Attributes:
        scores: (n,) larger is worse, NaN is not measured.
        correct: (n,) whether each is right.
        units: (n,) the unit of each, numbered from 0.
        counts: (n,) what each answer counts, as a whole number of `whole`-ths: int64, or Python's integers
            where those of 64 bits are too short.
        whole: what a unit counts: the smallest number that every unit's size divides.
        n_units: how many units there are.
    """

    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    units: NDArray[np.int64]
    counts: NDArray[Any]
    whole: int
    n_units: int

    @classmethod
    def of(cls, scores: NDArray[Any], correct: NDArray[Any], units: NDArray[Any]) -> Answers:
        """Return the answers of columns.

        Raises:
            InputError: columns of different lengths, labels that are no booleans, units that are no integers.
        """
        scores = np.asarray(scores, dtype=np.float64)
        correct, units = np.asarray(correct), np.asarray(units)
        if correct.dtype != np.bool_:
            raise InputError(f"labels are true or false, not {correct.dtype}")
        if not np.issubdtype(units.dtype, np.integer):
            raise InputError(f"units are named by integers, not {units.dtype}")
        if scores.ndim != 1 or not scores.shape == correct.shape == units.shape:
            shapes = f"{scores.shape}, {correct.shape} and {units.shape}"
            raise InputError(f"scores, labels and units are columns of one length, not {shapes}")
        _, number, sizes = np.unique(units, return_inverse=True, return_counts=True)
        whole = math.lcm(*(int(size) for size in np.unique(sizes)))
        fits = whole * (len(sizes) + 1) < 2**62
        each = np.array([whole // int(size) for size in sizes], dtype=np.int64 if fits else object)
        return cls(scores, correct, number.astype(np.int64), each[number], whole, len(sizes))

    @property
    def single(self) -> bool:
        """Whether every unit has one answer, so that counts are numbers of answers."""
        return self.n_units == len(self.scores)

    def total(self, chosen: NDArray[np.bool_]) -> int:
        """Return what the chosen answers count together, in `whole`-ths."""
        return int(self.counts[chosen].sum())

    def ranked(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return the measured scores of the chosen in rising order, and what they count up to each."""
        measured = chosen & ~np.isnan(self.scores)
        order = np.argsort(self.scores[measured], kind="stable")
        return self.scores[measured][order], np.cumsum(self.counts[measured][order])


def exact_rate(name: str, rate: float | None) -> Fraction:
    """Return the fraction that a rate means as it is written: 0.05 is one twentieth.

    The binary number next to 0.05 is a little larger, and a rank computed from it can be off by one.

    Raises:
        ConfigurationError: it is not between 0 and 1.
    """
    if rate is None or not 0.0 < float(rate) < 1.0:
        raise ConfigurationError(
            f"{name} is a rate between 0 and 1, not {rate}", hint=f"for example {name} 0.05"
        )
    return Fraction(repr(float(rate)))


def just_below(score: float) -> float:
    """Return a number below a score, so close that only numbers too small to be told from 0 are between them.

    Those are left out since a processor that flushes them to zero would compare them as equal to it.
    """
    below = math.nextafter(score, -math.inf)
    tiny = float(np.finfo(np.float64).tiny)
    if 0.0 < abs(below) < tiny:
        return 0.0 if below > 0.0 else -tiny
    return below
