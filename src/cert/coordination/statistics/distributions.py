"""Normal and t distributions, from scipy, which is imported when it is first needed."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType

import numpy as np

from cert.coordination.statistics.pairs import Floats
from cert.core.errors import DependencyMissingError, InputError

__all__ = ["expected_maximum", "normal_cdf", "normal_quantile", "t_quantile", "two_sided_p"]


def normal_cdf(values: Floats) -> Floats:
    """Return Φ of each value."""
    found: Floats = _special().ndtr(values)
    return found


def normal_quantile(probability: float) -> float:
    """Return z with Φ(z) = probability."""
    return float(_special().ndtri(probability))


def t_quantile(probability: float, freedom: float) -> float:
    """Return the quantile of Student's t; infinite degrees of freedom are the normal distribution."""
    if math.isinf(freedom):
        return normal_quantile(probability)
    return float(_special().stdtrit(freedom, probability))


def two_sided_p(statistic: float, freedom: float = math.inf) -> float:
    """Return P(|T| ≥ |statistic|) for Student's t."""
    if math.isinf(freedom):
        return 2.0 * float(_special().ndtr(-abs(statistic)))
    return 2.0 * float(_special().stdtr(freedom, -abs(statistic)))


@cache
def expected_maximum(n: int) -> float:
    """Return c_n, the expected largest of n independent standard normal numbers.

    0, .56, .85, 1.03 for n = 1 to 4; c_n = ∫ x n φ(x) Φ(x)^(n−1) dx, to nine digits by the trapezoidal
    rule, whose error falls faster than any power of the step where a smooth integrand vanishes at both ends.

    Raises:
        InputError: n is below 1.
    """
    if n < 1:
        raise InputError(f"a maximum is of at least 1 number, not of {n}")
    x = np.linspace(-12.0, 12.0, 4801)
    density = np.exp(-(x**2) / 2.0) / math.sqrt(2.0 * math.pi)
    return float(np.sum(x * n * density * _special().ndtr(x) ** (n - 1)) * (x[1] - x[0]))


def _special() -> ModuleType:
    try:
        from scipy import special  # optional, and `import cert.coordination` is light
    except ImportError as error:
        raise DependencyMissingError(
            "intervals and verdicts need scipy",
            hint="pip install 'cert-framework[coordination]'",
        ) from error
    return special  # type: ignore[no-any-return]
