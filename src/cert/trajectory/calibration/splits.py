"""Splits of labelled answers that keep together what is about the same unit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError, InputError

__all__ = ["one_per_unit", "split_units"]


def split_units(
    units: NDArray[np.int64], shares: Sequence[float], seed: int = 0
) -> tuple[NDArray[np.bool_], ...]:
    """Return a mask of answers for each share, so that no unit is in two of them.

    Which part a unit goes to depends on the set of units and the seed alone, never on the order of the
    answers, on labels or on scores: the parts are exchangeable with each other.

    Args:
        units: (n,) the unit of each answer.
        shares: what share of the *units* each part gets, as a number; at most 1 together. What is left over
            is in no part.
        seed: of the shuffle.

    Raises:
        ConfigurationError: a share that is not above 0, or shares of more than 1 together.
        InputError: too few units for one in each part.
    """
    exact = [_exact(share) for share in shares]
    if not exact or min(exact) <= 0 or sum(exact) > 1:
        raise ConfigurationError(
            f"shares are above 0 and at most 1 together, not {list(shares)}", hint="for example 0.2 and 0.8"
        )
    names, place = np.unique(np.asarray(units), return_inverse=True)
    ends = itertools.accumulate(exact, initial=Fraction())
    edges = [math.floor(end * len(names) + Fraction(1, 2)) for end in ends]
    if any(start == stop for start, stop in itertools.pairwise(edges)):
        raise InputError(
            f"{len(names)} units are too few for {len(exact)} parts of {list(shares)}",
            hint="label answers about more units",
        )
    position = np.empty(len(names), dtype=np.int64)
    position[np.random.default_rng(seed).permutation(len(names))] = np.arange(len(names))
    of_answer = position[place]
    return tuple((start <= of_answer) & (of_answer < stop) for start, stop in itertools.pairwise(edges))


def _exact(share: float) -> Fraction:
    if not math.isfinite(share):
        raise ConfigurationError(f"a share is a number, not {share}")
    return Fraction(repr(float(share)))  # 0.1 means a tenth, not the binary number next to it


def one_per_unit(units: NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """Return a mask that has one answer of each unit, drawn with the same probability from all of it.

    Args:
        units: (n,) the unit of each answer.
        seed: of the draw.
    """
    units = np.asarray(units)
    shuffled = np.random.default_rng(seed).permutation(len(units))
    _, first = np.unique(units[shuffled], return_index=True)
    mask = np.zeros(len(units), dtype=np.bool_)
    mask[shuffled[first]] = True
    return mask
