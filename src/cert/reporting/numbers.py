"""How reports write numbers."""

from __future__ import annotations

import math

__all__ = ["NOT_MEASURED", "interval", "number", "probability"]

NOT_MEASURED = "not measured"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """Four significant digits; powers of ten for the very small and very large."""
    if value is None or math.isnan(value):
        return NOT_MEASURED
    if math.isinf(value):
        return "beyond 10³⁰⁸" if value > 0 else "below −10³⁰⁸"
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        text = _scientific(size)
    elif size >= 1000:
        text = f"{size:,.0f}"
    else:
        text = f"{size:.4g}"
    return f"−{text}" if value < 0 else text


def probability(p: float | None) -> str:
    """A percentage, or a power of ten below one in a thousand."""
    if p is None or math.isnan(p):
        return NOT_MEASURED
    if p > 0.9995:
        return "> 99.9 %"
    if p >= 0.1:
        return f"{100 * p:.1f} %"
    if p >= 0.001:
        return f"{100 * p:.2g} %"
    return _scientific(p) if p > 0.0 else "0"


def interval(lower: float, upper: float) -> str:
    """One number where the bounds meet, else both."""
    if math.isnan(lower) or lower == upper:
        return number(lower)
    if math.isnan(upper):
        return f"at least {number(lower)}"
    return f"{number(lower)} to {number(upper)}"


def _scientific(size: float) -> str:
    mantissa, exponent = f"{size:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
