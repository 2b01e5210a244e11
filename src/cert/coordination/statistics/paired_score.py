"""Score tests of paired binary outcomes, inverted to intervals: of the difference and of the ratio.

Of n pairs, a are right in both arms, b ("gained") only in the first, c ("lost") only in the second. The
variance is that of the hypothesis, not of the sample, so that no discordant pair does not mean no doubt.
Counts may be fractions: those of an effective sample.

Tango, Statistics in Medicine 17, 891–908 (1998), for the difference; Nam and Blackwelder, Statistics in
Medicine 21, 689–699 (2002), for the ratio. At no effect both are McNemar's (b − c)/√(b + c).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cert.coordination.statistics.distributions import t_quantile, two_sided_p

__all__ = ["PairedScore", "root"]

_PRECISION: Final = 1.0e-10
_LARGEST_RATIO: Final = 1.0e6


@dataclass(frozen=True, slots=True)
class PairedScore:
    """Score tests of one table of pairs.

    Attributes:
        n, both, gained, lost: n, a, b and c above.
        freedom: degrees of freedom of the reference distribution, where the effective sample is estimated.
    """

    n: float
    both: float
    gained: float
    lost: float
    freedom: float = math.inf

    name = "score"

    def difference(self, level: float) -> tuple[float, float]:
        """Return the interval of P(first right) − P(second right), in [−1, 1]."""
        critical = t_quantile((1.0 + level) / 2.0, self.freedom)
        value = (self.gained - self.lost) / self.n
        return (
            root(lambda d: self.difference_statistic(d) - critical, -1.0, value),
            root(lambda d: self.difference_statistic(d) + critical, value, 1.0),
        )

    def ratio(self, level: float) -> tuple[float, float]:
        """Return the interval of P(first right) / P(second right), in [0, ∞]."""
        critical = t_quantile((1.0 + level) / 2.0, self.freedom)
        above, below = self.both + self.gained, self.both + self.lost
        value = above / below if below > 0.0 else math.inf
        low = root(
            lambda r: self.ratio_statistic(_ratio(r)) - critical, 0.0, value / (1.0 + value) if below else 1.0
        )
        high = root(
            lambda r: self.ratio_statistic(_ratio(r)) + critical, value / (1.0 + value) if below else 1.0, 1.0
        )
        return _end(low), _end(high)

    def p_value(self, null: float) -> float:
        """Return the two-sided p of the hypothesis that the difference is ``null``."""
        return two_sided_p(self.difference_statistic(null), self.freedom)

    def difference_statistic(self, null: float) -> float:
        """Return Tango's statistic, which falls with ``null``."""
        n, b, c = self.n, self.gained, self.lost
        gap = b - c - n * null
        linear = -b - c + (2.0 * n - b + c) * null
        constant = -c * null * (1.0 - null)
        spread = math.sqrt(max(0.0, linear * linear - 8.0 * n * constant))
        lost = max(0.0, (spread - linear) / (4.0 * n))  # the hypothesis' P(only the second is right)
        return _quotient(gap, n * (2.0 * lost + null * (1.0 - null)))

    def ratio_statistic(self, null: float) -> float:
        """Return the statistic of Nam and Blackwelder, which falls with ``null``."""
        n, a, b, c = self.n, self.both, self.gained, self.lost
        if math.isinf(null):
            return -math.inf if a + c > 0.0 else 0.0
        gap = a + b - null * (a + c)
        if null <= 0.0:
            return math.inf if a + b > 0.0 else 0.0
        first, second = (a + b) / n, (a + c) / n
        root_part = math.sqrt((first - null**2 * second) ** 2 + 4.0 * null**2 * (b / n) * (c / n))
        lost = (-first + null**2 * (second + 2.0 * b / n) + root_part) / (2.0 * null * (null + 1.0))
        gained = null * lost - (null - 1.0) * (a + b + c) / n
        return _quotient(gap, n * null * (gained + lost))


def root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function crosses 0 in [low, high], or the end that it does not reach.

    Bisection where the function is infinite, else regula falsi, made to close in from both sides (Illinois).
    """
    above, below = falling(low), falling(high)
    if above <= 0.0:
        return low
    if below > 0.0:
        return high
    kept = 0
    while high - low > _PRECISION:
        middle = _between(low, above, high, below)
        value = falling(middle)
        if value > 0.0:
            low, above = middle, value
            below = below / 2.0 if kept > 0 else below
            kept = 1
        else:
            high, below = middle, value
            above = above / 2.0 if kept < 0 else above
            kept = -1
        if value == 0.0:
            return middle
    return (low + high) / 2.0


def _between(low: float, above: float, high: float, below: float) -> float:
    """Return where the secant crosses 0, a little off the ends so that both of them move."""
    if math.isinf(above) or math.isinf(below) or above == below:
        return (low + high) / 2.0
    guess = low + (high - low) * above / (above - below)
    edge = min(_PRECISION / 2.0, (high - low) / 4.0)
    return min(max(guess, low + edge), high - edge)


def _ratio(odds: float) -> float:
    return odds / (1.0 - odds) if odds < 1.0 else math.inf


def _end(odds: float) -> float:
    ratio = _ratio(odds)
    return math.inf if ratio > _LARGEST_RATIO else ratio


def _quotient(gap: float, variance: float) -> float:
    if variance <= 0.0:
        return 0.0 if abs(gap) < 1e-12 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)
