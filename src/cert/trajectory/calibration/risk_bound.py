"""A lower confidence bound on a rate that holds after every label at once, by betting.

Whoever stakes the share θ of the capital on each event at the fair price of rate m has the capital
Π (1 + θ(x_i/m − 1)), a non-negative supermartingale while the rate is at most m (Waudby-Smith and Ramdas,
arXiv 2010.09686): it ever exceeds 1/level with probability of at most level. Rates m at which the capital did
are refused; the smallest that was not is the bound. The capital is a mixture over θ, so that it depends on
how many labels and events there were, and on nothing else.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

__all__ = ["by_luck", "log_capital", "lower_bound"]

_STAKES: Final = np.geomspace(2e-3, 0.98, 48)
_HALVINGS: Final = 60


def log_capital(events: int, labels: int, rate: float) -> float:
    """Return ln of the capital against "the rate is at most ``rate``", which is in (0, 1)."""
    won = np.log1p(_STAKES * (1.0 / rate - 1.0))
    logs = events * won + (labels - events) * np.log1p(-_STAKES)
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


def lower_bound(events: int, labels: int, level: float) -> float:
    """Return the lower bound of the rate of events: wrong at any time at all with probability ≤ ``level``."""
    if not events:
        return 0.0
    price, low, high = -math.log(level), 0.0, events / labels
    for _ in range(_HALVINGS):  # the capital falls with the rate, and is at most 1 at the share itself
        middle = (low + high) / 2.0
        if middle <= 0.0 or log_capital(events, labels, middle) >= price:
            low = middle
        else:
            high = middle
    return low


def by_luck(beta_a: int, beta_b: int, rate: float) -> float:
    """Return P(Beta(a, b) ≥ rate): how often a calibration alone, with nothing changed, gives such a rate.

    For whole a and b it is P(Binomial(a + b − 1, rate) ≤ a − 1).
    """
    if rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    n = beta_a + beta_b - 1
    hits = np.arange(beta_a, dtype=np.float64)
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    places = hits.astype(np.int64)
    logs = factorials[n] - factorials[places] - factorials[n - places]
    logs += hits * math.log(rate) + (n - hits) * math.log1p(-rate)
    return float(min(1.0, np.exp(logs).sum()))
