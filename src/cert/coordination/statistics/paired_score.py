"""Score tests of paired binary outcomes, inverted to intervals: of the difference and of the ratio.

Of n pairs, a are right in both arms, b ("gained") only in the first, c ("lost") only in the second. The
variance is that of the hypothesis, not of the sample, so that no discordant pair does not mean no doubt.
Counts may be fractions: those of an effective sample.

Tango, Statistics in Medicine 17, 891–908 (1998), for the difference; Nam and Blackwelder, Statistics in
Medicine 21, 689–699 (2002), for the ratio. At no effect both are McNemar's (b − c)/√(b + c).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from cert.coordination.statistics.betting import stakes_for
from cert.coordination.statistics.distributions import t_quantile, two_sided_p
from cert.coordination.statistics.roots import root

__all__ = ["PairedScore"]

_LARGEST_RATIO: Final = 1.0e6
_FEW: Final = 5.0


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
        """Return the interval of P(first right) / P(second right), in [0, ∞].

        Where an arm is right in fewer than five pairs the statistic is far from normal, and the interval is
        made as wide as the one by betting; but not across 1, of which the difference speaks.
        """
        low, high = self._ratio_by_score(level)
        if min(self.both + self.gained, self.both + self.lost) >= _FEW:
            return low, high
        below, above = self._ratio_by_betting(level)
        return (
            min(low, max(below, 1.0) if low > 1.0 else below),
            max(high, min(above, 1.0) if high < 1.0 else above),
        )

    def _ratio_by_score(self, level: float) -> tuple[float, float]:
        critical = t_quantile((1.0 + level) / 2.0, self.freedom)
        middle = self._odds()
        low = root(lambda r: self.ratio_statistic(_ratio(r)) - critical, 0.0, middle)
        high = root(lambda r: self.ratio_statistic(_ratio(r)) + critical, middle, 1.0)
        return _end(low), _end(high)

    def _ratio_by_betting(self, level: float) -> tuple[float, float]:
        """Return the interval of `betting`, from the table instead of the pairs."""
        price = math.log(2.0 / (1.0 - level))
        middle = self._odds()
        low = root(
            lambda r: _capital(self.both, self.gained, self.lost, _ratio(r), self.n) - price, 0.0, middle
        )
        high = root(
            lambda r: price - _capital(self.both, self.lost, self.gained, _inverse(r), self.n), middle, 1.0
        )
        return _end(low), _end(high)

    def _odds(self) -> float:
        """Return the estimate γ as γ/(1 + γ); 1 for a second arm that is never right."""
        above, below = self.both + self.gained, self.both + self.lost
        return above / (above + below) if below > 0.0 else 1.0

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


def _capital(both: float, gained: float, lost: float, ratio: float, n: float) -> float:
    """Return ln of the mixed capital of bets on C/ratio − S."""
    if ratio <= 0.0:
        return math.inf if both + gained > 0.0 else -math.inf
    if math.isinf(ratio):
        return 0.0
    logs = [
        both * math.log1p(stake * (1.0 / ratio - 1.0))
        + gained * math.log1p(stake / ratio)
        + lost * math.log1p(-stake)
        for stake in stakes_for(math.ceil(n)).tolist()
    ]
    top = max(logs)
    return top + math.log(sum(math.exp(each - top) for each in logs) / len(logs))


def _inverse(odds: float) -> float:
    return (1.0 - odds) / odds if odds > 0.0 else math.inf


def _ratio(odds: float) -> float:
    return odds / (1.0 - odds) if odds < 1.0 else math.inf


def _end(odds: float) -> float:
    ratio = _ratio(odds)
    return math.inf if ratio > _LARGEST_RATIO else ratio


def _quotient(gap: float, variance: float) -> float:
    if variance <= 0.0:
        return 0.0 if abs(gap) < 1e-12 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)
