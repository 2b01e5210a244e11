"""A detector of a drop in mean score, calibrated to a stated rate of false alarms.

CUSUM (Page, 1954): s ← max(0, s + μ̂ − x − drop/2), an alarm at s > h. Three things make the rate of false
alarms differ from the textbook's: μ̂ is estimated, scores are not Gaussian, and what is stated is a
probability over a horizon, not a mean run length. So h is found by a bootstrap of all of it: each run draws a
reference sample from the reference sample, estimates μ̂ from it, and watches scores drawn from the reference
sample for the whole horizon. The quantile over the runs of the largest s, in units of the variance of the
run's own reference sample, is h in units of the variance of the real one (h grows with it, as ln(…)·σ²/drop).

The rate holds on average over reference samples, for scores that are independent. A reference sample that is
luckier than the system gives more false alarms than stated; a larger one helps against that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cert.coordination.statistics.pairs import Floats
from cert.core.errors import InputError

__all__ = ["DropDetector", "DropState"]

_RUNS: Final = 4000
_RESERVE: Final = 0.2
_SMALLEST_REFERENCE: Final = 30


@dataclass(frozen=True, slots=True)
class DropState:
    """Where a detector stands; JSON-ready by `as_dict`.

    Attributes:
        statistic: s, in units of score.
        seen: scores until now.
        missing: judgements that were missing: they are counted and skipped.
        quiet_at: scores seen when s was last 0: the drop, if there is one, began about there.
        alarm_at: scores seen at the first alarm, ``None`` without one. An alarm stays until a new state.
    """

    statistic: float = 0.0
    seen: int = 0
    missing: int = 0
    quiet_at: int = 0
    alarm_at: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> DropState:
        """Return the state that `as_dict` described.

        Raises:
            InputError: the data are no such state.
        """
        try:
            state = cls(**data)
            sound = math.isfinite(state.statistic) and state.statistic >= 0.0
            counts = (state.seen, state.missing, state.quiet_at, state.alarm_at or 0)
            sound = sound and all(type(count) is int and count >= 0 for count in counts)
        except TypeError as error:
            raise InputError(f"no state of a drift detector: {error}") from error
        if not sound or max(state.quiet_at, state.alarm_at or 0) > state.seen:
            raise InputError("no state of a drift detector: numbers out of range")
        return state


@dataclass(frozen=True, slots=True)
class DropDetector:
    """The numbers of a calibrated detector.

    Attributes:
        mean: μ̂ of the reference sample.
        drop: that it is made for; half of it is the slack.
        threshold: h, in units of score.
        reference: scores in the reference sample.
        horizon, false_alarms: P(any alarm in the first ``horizon`` scores of an unchanged system).
    """

    mean: float
    drop: float
    threshold: float
    reference: int
    horizon: int
    false_alarms: float

    @classmethod
    def calibrate(
        cls,
        reference: npt.ArrayLike,
        drop: float = 0.08,
        horizon: int = 1000,
        false_alarms: float = 0.05,
        seed: int = 0,
    ) -> DropDetector:
        """Calibrate on scores of the system while it is known to be well.

        Args:
            reference: (m,) scores in [0, 1], NaN where missing; m of 30 at least, better 200.
            drop: of the mean, that is to be found.
            horizon: scores over which false alarms are counted.
            false_alarms: the probability of any of them.
            seed: of the bootstrap.

        Raises:
            InputError: too few scores, scores that are all or nearly all equal (there is nothing to calibrate
                on), or a value out of range.
        """
        scores = _reference(reference)
        if not (0.0 < drop < 1.0 and 0.0 < false_alarms < 1.0 and horizon > 0):
            raise InputError("drop and false alarms are in (0, 1), the horizon is above 0")
        rng = np.random.default_rng(seed)
        drawn = scores[rng.integers(0, len(scores), (_RUNS, len(scores)))]
        means, variances = drawn.mean(axis=1), drawn.var(axis=1)
        peaks = np.zeros(_RUNS)
        statistic = np.zeros(_RUNS)
        for _ in range(horizon):
            drawn = scores[rng.integers(0, len(scores), _RUNS)]
            statistic = np.maximum(0.0, statistic + means - drawn - drop / 2.0)
            np.maximum(peaks, statistic, out=peaks)
        with np.errstate(divide="ignore"):
            relative = np.where(peaks > 0.0, peaks, 0.0) / variances
        # The runs' binomial error, and a fifth in reserve, as the sample's shape is not the true one.
        share = (1.0 - _RESERVE) * false_alarms - math.sqrt(false_alarms * (1.0 - false_alarms) / _RUNS)
        threshold = float(
            np.quantile(relative, 1.0 - max(share, 1.0 / _RUNS), method="higher") * scores.var()
        )
        if not math.isfinite(threshold):
            raise InputError("the scores of the reference sample hardly vary: it takes more of them")
        return cls(float(scores.mean()), drop, threshold, len(scores), horizon, false_alarms)

    def update(self, state: DropState, score: float | None) -> DropState:
        """Return the state after one more score in [0, 1]; ``None`` or NaN is missing.

        Raises:
            InputError: the score is outside [0, 1].
        """
        if score is None or math.isnan(score):
            return replace(state, missing=state.missing + 1)
        if not 0.0 <= score <= 1.0:
            raise InputError(f"a score is in [0, 1], not {score}")
        seen = state.seen + 1
        statistic = max(0.0, state.statistic + self.mean - score - self.drop / 2.0)
        alarm = state.alarm_at
        if alarm is None and statistic > self.threshold:
            alarm = seen
        quiet = seen if statistic == 0.0 else state.quiet_at
        return DropState(statistic, seen, state.missing, quiet, alarm)

    def power_curve(
        self,
        reference: npt.ArrayLike,
        drops: Sequence[float],
        within: int = 150,
        runs: int = 2000,
        seed: int = 0,
    ) -> dict[float, float]:
        """Return, for each drop, the share of runs with an alarm within so many scores after it.

        The scores are those of the reference sample, each lower by the drop; right and wrong ones (0 and 1)
        are made wrong instead as often as it takes. The drop comes when s is 0, the worst moment.
        """
        scores = _reference(reference)
        rng = np.random.default_rng(seed)
        return {drop: self._found(scores, drop, (runs, within), rng) for drop in drops}

    def _found(self, scores: Floats, drop: float, shape: tuple[int, int], rng: np.random.Generator) -> float:
        drawn = scores[rng.integers(0, len(scores), shape)]
        if np.isin(scores, (0.0, 1.0)).all():
            drawn = drawn * (rng.random(shape) >= drop / scores.mean())
        else:
            drawn = drawn - drop
        sums = np.cumsum(self.mean - drawn - self.drop / 2.0, axis=1)
        # s_t = S_t − min(0, min_{i≤t} S_i), the recursion written out.
        statistic = sums - np.minimum(0.0, np.minimum.accumulate(sums, axis=1))
        return float((statistic > self.threshold).any(axis=1).mean())


def _reference(values: npt.ArrayLike) -> Floats:
    scores = np.asarray(values, dtype=np.float64).reshape(-1)
    scores = scores[~np.isnan(scores)]
    if len(scores) < _SMALLEST_REFERENCE:
        raise InputError(f"a reference sample has {_SMALLEST_REFERENCE} scores at least, not {len(scores)}")
    if ((scores < 0.0) | (scores > 1.0)).any():
        raise InputError("a score is in [0, 1], or NaN where it is missing")
    if np.ptp(scores) == 0.0:
        raise InputError(
            "the scores of the reference sample are all equal: nothing can be calibrated on them"
        )
    return scores
