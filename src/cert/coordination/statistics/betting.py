"""Confidence intervals of bounded means by betting: valid at every sample size, whatever the distribution.

Waudby-Smith and Ramdas, arXiv 2010.09686. If x_1, x_2, … in [0, 1] have mean m, a gambler who stakes the
share θ of the capital on each x_i at the fair price has the capital Π (1 + θ(x_i/m − 1)), a non-negative
martingale that starts at 1 and ever exceeds 1/α with probability α at most (Ville). Means at which the
capital got large are refused. The capital here is a mixture over θ (Robbins; Orabona and Jun, arXiv
2110.14099), for these reasons: it does not depend on the order of the tasks; it falls with m, so that the
means not refused are an interval; at the sample mean it is at most 1, so that the interval contains it; and
it may be looked at after every task.

With x = (d + 1)/2 for a difference d this is a test of the mean difference. With the stake on C/γ − S in
place of x/m − 1 it is one of the ratio γ, and at γ = 1 both are the same test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from cert.coordination.statistics.pairs import Floats
from cert.coordination.statistics.roots import root

__all__ = ["SEQUENTIAL_STAKES", "BettingPairs", "log_capital", "stakes_for"]

_LARGEST_STAKE: Final = 0.98
_STAKES: Final = 12
SEQUENTIAL_STAKES: Final[Floats] = np.geomspace(0.02, _LARGEST_STAKE, 24)


def stakes_for(units: int) -> Floats:
    """Return stakes among which the best for n units lies: √(2 ln(2/α)/n)·m/σ for σ from its largest down."""
    return np.geomspace(min(0.9, 1.4 / math.sqrt(max(units, 1))), _LARGEST_STAKE, _STAKES)


def log_capital(gains: Floats, stakes: Floats) -> float:
    """Return ln of the mean over θ of Π_i (1 + θ g_i), with fair gains g_i ≥ −1."""
    logs = np.log1p(stakes[:, None] * gains).sum(axis=1)
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


@dataclass(frozen=True, slots=True, eq=False)
class BettingPairs:
    """Bets on the difference and the ratio of two arms.

    Attributes:
        coordinated, baseline: (G,) means of the independent units.
        weights: (G,) in (0, 1], the units' sizes as shares of the largest.
        stakes: the shares θ of the capital that are mixed.
    """

    coordinated: Floats
    baseline: Floats
    weights: Floats
    stakes: Floats

    name = "betting"

    def difference(self, level: float) -> tuple[float, float]:
        """Return the interval of the mean difference, in [−1, 1]."""
        price = math.log(2.0 / (1.0 - level))
        value = float(np.average(self.coordinated - self.baseline, weights=self.weights))
        return (
            root(lambda d: self._for_more(d) - price, -1.0, value),
            root(lambda d: price - self._for_less(d), value, 1.0),
        )

    def ratio(self, level: float) -> tuple[float, float]:
        """Return the interval of the ratio of means, in [0, ∞]."""
        price = math.log(2.0 / (1.0 - level))
        above = float(np.average(self.coordinated, weights=self.weights))
        below = float(np.average(self.baseline, weights=self.weights))
        middle = above / (above + below) if above + below > 0.0 else 0.5

        def more(odds: float) -> float:
            if odds <= 0.0:
                return math.inf if above > 0.0 else -math.inf
            return self._capital(self.coordinated * (1.0 - odds) / odds - self.baseline) - price

        def less(odds: float) -> float:
            if odds >= 1.0:
                return -math.inf if below > 0.0 else math.inf
            return price - self._capital(self.baseline * odds / (1.0 - odds) - self.coordinated)

        low = root(more, 0.0, middle if below > 0.0 else 1.0)
        high = root(less, middle, 1.0) if below > 0.0 else 1.0
        return low / (1.0 - low) if low < 1.0 else math.inf, high / (1.0 - high) if high < 1.0 else math.inf

    def p_value(self, null: float) -> float:
        """Return the two-sided p of a difference that is ``null``: 2 / the larger capital, at most 1."""
        return min(1.0, 2.0 * math.exp(-max(self._for_more(null), self._for_less(null))))

    def _for_more(self, null: float) -> float:
        if null <= -1.0:
            return math.inf if (self.coordinated - self.baseline > -1.0).any() else -math.inf
        return self._capital((self.coordinated - self.baseline - null) / (1.0 + null))

    def _for_less(self, null: float) -> float:
        if null >= 1.0:
            return math.inf if (self.coordinated - self.baseline < 1.0).any() else -math.inf
        return self._capital((null - self.coordinated + self.baseline) / (1.0 - null))

    def _capital(self, gains: Floats) -> float:
        return log_capital(np.maximum(gains * self.weights, -1.0), self.stakes)
