"""Whether scores still come as they did at the calibration: a test that may be looked at after every score.

Between order statistics of n old scores, exchangeable new ones fall as balls do into a Pólya urn: into the
b-th of the bins next with probability (a_b + c_b) / (n + 1 + t), where a_b are the gaps between the ranks and
c_b the t new scores so far. That is exact for every n and every distribution, the error of having seen n
scores only included; scores are the finest that is told apart by bins.

A gambler who bets on other probabilities has a capital that is a martingale while scores are exchangeable: it
ever exceeds 1/level with probability of at most level (Ville), however long one looks. That is a conformal
test martingale (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2nd ed., ch. 8) on
binned ranks. The bets are tilts of location, tails and spread; a jumper moves a small share of the capital
from bet to bet, so that a change that comes late is found too (Vovk et al., arXiv 2102.10439).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InputError

__all__ = ["ShiftTest"]

_Floats = NDArray[np.float64]
_JUMPS: Final = np.array([1e-4, 1e-3, 1e-2])
_IDLE: Final = 0.5
_TAIL: Final = 0.1


class ShiftTest:
    """The capital of bets against exchangeability.

    Args:
        gaps: (B,) a_b, positive whole numbers that sum to n + 1.

    Attributes:
        seen: t, the scores so far.
        log_capital: ln of the capital; 0 at the start.
        highest: its largest value ever.
    """

    def __init__(self, gaps: Sequence[int]) -> None:
        if len(gaps) < 2 or min(gaps) < 1:
            raise ValueError("a test takes two bins at least, each with a chance")
        self._gaps = np.asarray(gaps, dtype=np.float64)
        self._counts = np.zeros(len(gaps))
        self._bets, self._prior = _bets(self._gaps)
        self._shares = np.tile(self._prior / len(_JUMPS), (len(_JUMPS), 1))
        self.seen = 0
        self.log_capital = 0.0
        self.highest = 0.0

    def update(self, place: int) -> float:
        """Take the bin of the next score and return ln of the capital."""
        chances = self._gaps + self._counts
        chances /= chances.sum()
        totals = self._shares.sum(axis=1, keepdims=True)
        shares = (1.0 - _JUMPS[:, None]) * self._shares + _JUMPS[:, None] * totals * self._prior
        shares *= self._bets[:, place] / (self._bets @ chances)
        total = float(shares.sum())
        self._shares = shares / total
        self.log_capital += math.log(total)
        self.highest = max(self.highest, self.log_capital)
        self._counts[place] += 1.0
        self.seen += 1
        return self.log_capital

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return {
            "counts": [int(count) for count in self._counts],
            "shares": self._shares.tolist(),
            "log_capital": self.log_capital,
            "highest": self.highest,
        }

    @classmethod
    def of_dict(cls, gaps: Sequence[int], data: Mapping[str, Any]) -> Self:
        """Return the test that `to_dict` described.

        Raises:
            InputError: the data are no state of a test with these bins.
        """
        test = cls(gaps)
        try:
            counts = np.asarray(data["counts"], dtype=np.float64)
            shares = np.asarray(data["shares"], dtype=np.float64)
            capital, highest = float(data["log_capital"]), float(data["highest"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"no state of a test of shifts: {error}") from error
        sound = counts.shape == test._counts.shape and shares.shape == test._shares.shape
        if not (
            sound
            and bool(
                (counts >= 0.0).all() and (counts == np.floor(counts)).all() and np.isfinite(counts).all()
            )
            and bool((shares >= 0.0).all() and math.isclose(float(shares.sum()), 1.0, rel_tol=1e-6))
            and math.isfinite(capital)
            and highest >= max(capital, 0.0)
        ):
            raise InputError("no state of a test of shifts: numbers out of range")
        test._counts, test._shares = counts, shares
        test.log_capital, test.highest, test.seen = capital, highest, int(counts.sum())
        return test


def _bets(gaps: _Floats) -> tuple[_Floats, _Floats]:
    """Return (K, B) weights of the bins for each bet, the idle one first, and (K,) shares to begin with."""
    upper = np.cumsum(gaps) / gaps.sum()
    middle = upper - gaps / gaps.sum() / 2.0
    location = 2.0 * middle - 1.0
    spread = 2.0 * np.abs(location) - 1.0
    high, low = (upper > 1.0 - _TAIL).astype(np.float64), (middle < _TAIL).astype(np.float64)
    tilts = [size * location for size in (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)]
    tilts += [size * spread for size in (-1.0, -0.5, 0.5, 1.0)]
    tilts += [size * tail for tail in (high, low) for size in (0.5, 1.0, 2.0)]
    weights = np.exp(np.array([np.zeros(len(gaps)), *tilts]))
    prior = np.full(len(weights), (1.0 - _IDLE) / len(tilts))
    prior[0] = _IDLE
    return weights, prior
