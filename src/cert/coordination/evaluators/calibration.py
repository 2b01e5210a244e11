"""A share of good answers corrected for the errors of the judge, by labels of people. Pure.

A judge that calls q1 of the right answers right and q0 of the wrong ones wrong reports
p = θ·q1 + (1 − θ)(1 − q0) where θ is right: 20 % right answers look like 34 % to a judge with q0 = 0.8,
q1 = 0.9. Differences between two arms shrink by the factor q0 + q1 − 1, and where the judge errs on one arm
otherwise than on the other they are biased too: so every arm has labels of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from cert.coordination.types import Interval
from cert.core.errors import InputError

__all__ = ["CalibratedShare", "calibrated_share"]

_METHOD = "Rogan-Gladen, adjusted as in arXiv 2511.21140"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedShare:
    """The share of right answers of one arm.

    Attributes:
        raw: as the judge reports it.
        corrected: for the judge's errors, in [0, 1]; ``None`` (not measured) where the judge cannot be told
            from one that guesses.
        interval: of the corrected share, from the judgements and the labels; [0, 1] where it is not measured.
        specificity: share of the wrong answers that the judge calls wrong, q0.
        sensitivity: share of the right answers that the judge calls right, q1.
        n: answers judged.
        n_wrong, n_right: labelled ones.
    """

    raw: float
    corrected: float | None
    interval: Interval
    specificity: float
    sensitivity: float
    n: int
    n_wrong: int
    n_right: int


def calibrated_share(
    judged: npt.ArrayLike,
    labelled_judged: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    level: float = 0.95,
) -> CalibratedShare:
    """Estimate the share of right answers of one arm from a judge and some labels of people.

    The estimate is θ = (p + q0 − 1)/(q0 + q1 − 1) (Rogan and Gladen, Am. J. Epidemiol. 107, 1978). The
    interval has the uncertainty of p, q0 and q1, each moved a little towards one half first, as Lee et al.
    have it (arXiv 2511.21140). It supposes that the judge errs on the labelled answers as on the others of
    the arm, given that they are right or wrong; so label a random part of each arm's own answers, or
    choose by label alone. An answer may be in both sets only if it is left out of one.

    Args:
        judged: (n,) verdicts on answers without a label: true, false, or NaN where missing, which is left
            out.
        labelled_judged: (m,) the judge's verdicts on labelled answers, the same.
        labels: (m,) what people say of them, true or false.
        level: of the interval.

    Raises:
        InputError: other values, sets of different size, no verdict, or no label of one of the two kinds.
    """
    verdicts = _verdicts(judged)
    shown, truth = np.asarray(labelled_judged, np.float64), np.asarray(labels, np.float64)
    if shown.shape != truth.shape or shown.ndim != 1:
        raise InputError("labels and the verdicts on the same answers are two lists of one length")
    there = ~np.isnan(shown)
    right, wrong = _verdicts(shown[there & (truth == 1)]), _verdicts(shown[there & (truth == 0)])
    if not np.isin(truth, (0, 1)).all():
        raise InputError("a label is true or false")
    if not 0.0 < level < 1.0:
        raise InputError(f"a level is between 0 and 1, not {level}")
    if not (len(verdicts) and len(right) and len(wrong)):
        raise InputError("a correction needs a verdict, and a label of both kinds")
    p, q0, q1 = float(verdicts.mean()), float(1.0 - wrong.mean()), float(right.mean())
    interval = _interval(p, q0, q1, len(verdicts), len(wrong), len(right), level)
    return CalibratedShare(
        raw=p,
        corrected=None if interval is None else _clipped((p + q0 - 1.0) / (q0 + q1 - 1.0)),
        interval=interval or Interval(0.0, 1.0, level, f"{_METHOD}: the judge may be guessing"),
        specificity=q0,
        sensitivity=q1,
        n=len(verdicts),
        n_wrong=len(wrong),
        n_right=len(right),
    )


def _interval(
    p: float, q0: float, q1: float, n: float, m0: float, m1: float, level: float
) -> Interval | None:
    z = NormalDist().inv_cdf(0.5 + level / 2)
    tells_apart = q0 + q1 - 1.0
    p, n = (n * p + z**2 / 2) / (n + z**2), n + z**2
    q0, m0 = (m0 * q0 + 1.0) / (m0 + 2.0), m0 + 2.0
    q1, m1 = (m1 * q1 + 1.0) / (m1 + 2.0), m1 + 2.0
    of_p, of_q0, of_q1 = p * (1 - p) / n, q0 * (1 - q0) / m0, q1 * (1 - q1) / m1
    youden = q0 + q1 - 1.0
    # Divided by something that may be 0, the estimate may be anything.
    if tells_apart <= 0.0 or youden <= z * math.sqrt(of_q0 + of_q1):
        return None
    theta = (p + q0 - 1.0) / youden
    centre = theta + 2 * z**2 * (theta * of_q1 - (1 - theta) * of_q0)
    error = math.sqrt(of_p + (1 - theta) ** 2 * of_q0 + theta**2 * of_q1) / youden
    return Interval(_clipped(centre - z * error), _clipped(centre + z * error), level, _METHOD)


def _verdicts(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    found = np.asarray(values, np.float64)
    found = found[~np.isnan(found)]
    if found.ndim != 1 or not np.isin(found, (0, 1)).all():
        raise InputError("verdicts are a list of true, false and NaN")
    return found


def _clipped(share: float) -> float:
    return min(1.0, max(0.0, share))
