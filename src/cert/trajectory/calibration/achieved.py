"""What a gate achieved on answers that played no part in its making, with intervals that allow for units.

A rate counts as the promises do: it is that of an answer drawn at random of a unit drawn at random, so each
of a unit's m answers counts 1/m. Its interval is that of Clopper and Pearson at the effective number of
answers, as Korn and Graubard (1998) have it for clustered samples: the variance over units gives how many
independent answers the rate is worth, with Student's allowance for few units. With one answer a unit it is
the plain exact interval. Where the rate is 0 or 1 the data say nothing of that effect, and units are counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import DependencyMissingError
from cert.trajectory.calibration.certificate_parts import Achieved, Rate
from cert.trajectory.calibration.goals.types import Goal, Threshold

__all__ = ["achieved_on", "clustered_rate", "thresholds_of"]

_TAIL: Final = 0.025
_PROMISED: Final[dict[Goal, str]] = {
    "false-flags": "flagged_given_correct",
    "misses": "passed_given_wrong",
    "selective-risk": "wrong_given_passed",
    "undetected-errors": "wrong_and_passed",
    "streaming": "flagged_given_correct",
}
Flags = NDArray[np.bool_]


def achieved_on(
    goal: Goal,
    thresholds: NDArray[np.float64],
    scores: NDArray[np.float64],
    correct: Flags,
    units: NDArray[np.int64],
    groups: Sequence[str] | None = None,
) -> Achieved:
    """Return what thresholds did on answers with known truth.

    Args:
        goal: which rate was promised.
        thresholds: (n,) λ of each answer; NaN where its group has none.
        scores: (n,) larger is worse, NaN is not measured.
        correct: (n,) whether each is right.
        units: (n,) what each is about.
        groups: (n,) the group of each, for the promised rate in each of them.

    Raises:
        DependencyMissingError: without scipy.
    """
    passed = scores <= thresholds
    everyone = np.ones_like(correct)
    hits: Mapping[str, tuple[Flags, Flags]] = {
        "passed": (passed, everyone),
        "flagged_given_correct": (~passed & correct, correct),
        "passed_given_wrong": (passed & ~correct, ~correct),
        "wrong_given_passed": (passed & ~correct, passed),
        "wrong_and_passed": (passed & ~correct, everyone),
    }
    rates = {name: clustered_rate(hit, of, units) for name, (hit, of) in hits.items()}
    by_group: dict[str, Rate] = {}
    if groups is not None:
        named = np.asarray(groups, dtype=object)
        hit, of = hits[_PROMISED[goal]]
        for name in sorted(set(groups)):
            own = named == name
            by_group[name] = clustered_rate(hit[own], of[own], units[own])
    return Achieved(
        n=len(correct),
        n_units=len(np.unique(units)),
        n_wrong=int((~correct).sum()),
        not_measured=int(np.isnan(scores).sum()),
        promised=rates[_PROMISED[goal]],
        rates=rates,
        by_group=by_group,
    )


def thresholds_of(
    one: Threshold | None, by_group: Mapping[str, Threshold] | None, groups: Sequence[str] | None, n: int
) -> NDArray[np.float64]:
    """Return λ of each of n answers; NaN where its group has none."""
    if one is not None:
        return np.full(n, one.value)
    found = [(by_group or {}).get(group) for group in groups or ()]
    return np.array([math.nan if t is None else t.value for t in found], dtype=np.float64)


def clustered_rate(hits: Flags, of: Flags, units: NDArray[np.int64]) -> Rate:
    """Return a rate with its 95 % interval; NaN where there is nothing that it is a rate of.

    Args:
        hits: (n,) what is counted, all of it among ``of``.
        of: (n,) what the rate is of.
        units: (n,) the unit of each; each of the m answers of a unit counts 1/m.

    Raises:
        DependencyMissingError: without scipy.
    """
    _, member, sizes = np.unique(units, return_inverse=True, return_counts=True)
    above = np.bincount(member, weights=hits) / sizes
    below = np.bincount(member, weights=of) / sizes
    n, n_units = int(of.sum()), int((below > 0).sum())
    if n == 0:
        return Rate(math.nan, math.nan, math.nan, 0, 0)
    # Sums of many shares can come out a little above what they are shares of.
    rate = min(1.0, math.fsum(above) / math.fsum(below))
    lower, upper = _interval(rate, _effective(rate, above, below, n, n_units))
    return Rate(rate, min(lower, rate), max(upper, rate), n, n_units)


def _effective(
    rate: float, above: NDArray[np.float64], below: NDArray[np.float64], n: int, n_units: int
) -> float:
    """Return how many independent answers a rate is worth."""
    spread = float(((above - rate * below) ** 2).sum() / below.sum() ** 2)
    if not 0.0 < rate < 1.0 or spread <= 0.0 or n_units < 2:
        return float(n_units)
    worth = rate * (1.0 - rate) / spread
    quantile = _special().stdtrit(np.array([n - 1.0, n_units - 1.0]), 1.0 - _TAIL)
    return float(min(n, worth * (quantile[0] / quantile[1]) ** 2))


def _interval(rate: float, n: float) -> tuple[float, float]:
    inverse = _special().betaincinv
    hits = rate * n
    lower = float(inverse(hits, n - hits + 1.0, _TAIL)) if rate > 0.0 else 0.0
    upper = float(inverse(hits + 1.0, n - hits, 1.0 - _TAIL)) if rate < 1.0 else 1.0
    return lower, upper


def _special() -> ModuleType:
    try:
        from scipy import special  # optional, and `import cert.trajectory` is light
    except ImportError as error:
        raise DependencyMissingError(
            "intervals of what a gate achieved need scipy", hint="pip install 'cert-framework[calibration]'"
        ) from error
    return special  # type: ignore[no-any-return]
