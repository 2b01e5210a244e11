"""Who it was that changed, the system or its judge: a rule with a stated rate of error.

Let J be the judge's shift on the anchors with its interval [j₋, j₊], d the drop that the detector is made
for, and R the change of the scores from the reference phase to *after* the alarm. (Scores before it are those
that the detector chose to alarm at: they overstate the fall.) What the judge did to the anchors it does to
the system's answers, so that the system's own change is R − J, with an interval by MOVER (Zou and Donner,
2008). When the detector has alarmed:

1. The judge moved if 0 is outside [j₋, j₊].
2. The system fell if j₋ > −d/2, since d/2 is the detector's slack and a judge that got stricter by less
   doesn't set it off; or if the interval of R − J is below 0.
3. Both, or the one of them that did; but *judge* only if the interval of R − J is above −d, so that no fall
   of the size that is watched for hides behind the judge's.
4. All else is unclear.

Without an alarm of the detector a judge that moved is an alarm of its own: one that got milder hides a fall.

All intervals have the level 1 − a/c, with a the rate of false judge alarms over the c planned checks. So,
over those checks: a judge that did not change is named (*judge*, *both*) with probability a at most; a system
that did not change is named after a fall of the judge by d/2 or more with probability 1.5 a at most; and
*judge* alone is said of a system that fell by d with a at most. Errors of the detector itself are apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from cert.coordination.drift.anchors import Shift
from cert.coordination.statistics.distributions import t_quantile
from cert.coordination.types import Interval

__all__ = ["FEWEST_AFTER", "Finding", "Kind", "Moments", "score_change", "told_apart"]

Kind: TypeAlias = Literal["system", "judge", "both", "unclear"]

FEWEST_AFTER: Final = 30


@dataclass(frozen=True, slots=True)
class Moments:
    """Scores, added up."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, score: float) -> Moments:
        return Moments(self.n + 1, self.total + score, self.squares + score * score)

    @property
    def mean(self) -> float:
        """NaN without a score."""
        return self.total / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """With n − 1; NaN below two scores."""
        if self.n < 2:
            return math.nan
        return max(0.0, self.squares - self.total**2 / self.n) / (self.n - 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        kind: who changed; ``None`` where nothing did.
        reason: why it is unclear, else ``None``.
        change: of the system's own, R − J; ``None`` where it is not measured.
        interval: of it.
    """

    kind: Kind | None
    reason: str | None = None
    change: float | None = None
    interval: Interval | None = None


def score_change(reference: Sequence[float], after: Moments, level: float) -> tuple[float, Interval]:
    """Return the mean after less that of the reference, with Welch's interval; two scores each at least."""
    parts = float(np.var(reference, ddof=1)) / len(reference), after.variance / after.n
    value = after.mean - float(np.mean(reference))
    spread = parts[0] + parts[1]
    freedom = spread**2 / (parts[0] ** 2 / (len(reference) - 1) + parts[1] ** 2 / (after.n - 1))
    half = t_quantile((1.0 + level) / 2.0, freedom) * math.sqrt(spread)
    return value, Interval(value - half, value + half, level, "Welch")


def told_apart(
    drop: float, reference: Sequence[float], after: Moments, shift: Shift | None, *, fell: bool
) -> Finding:
    """Tell apart who changed.

    Args:
        drop: that the detector is made for.
        reference: the scores of the reference phase.
        after: those since the detector's alarm.
        shift: of the judge; ``None`` is not measured.
        fell: whether the detector has alarmed.
    """
    if shift is None:
        return Finding("unclear" if fell else None, "too few anchors could be scored")
    if not fell:
        return Finding("judge" if shift.moved else None)
    change, interval = _of_the_system(reference, after, shift)
    system = shift.interval.low > -drop / 2.0 or (interval is not None and interval.high < 0.0)
    if system:
        return Finding("both" if shift.moved else "system", None, change, interval)
    if interval is None:
        needed = f"{FEWEST_AFTER} scores after the alarm are needed, and there are {after.n}"
        return Finding("unclear", needed)
    if shift.moved and interval.low > -drop:
        return Finding("judge", None, change, interval)
    return Finding("unclear", "anchors and scores are too few for how much they vary", change, interval)


def _of_the_system(
    reference: Sequence[float], after: Moments, shift: Shift
) -> tuple[float | None, Interval | None]:
    if after.n < FEWEST_AFTER:
        return None, None
    of_judge = shift.interval
    value, of_scores = score_change(reference, after, of_judge.level)
    change = value - shift.value
    low = change - math.hypot(value - of_scores.low, of_judge.high - shift.value)
    high = change + math.hypot(of_scores.high - value, shift.value - of_judge.low)
    return change, Interval(low, high, of_judge.level, "MOVER")
