"""Scores of Inspect as numbers, by the rules of its own ``value_to_float`` (inspect_ai/scorer/_metric.py).

| value | number |
|---|---|
| ``C``, ``P``, ``I``, ``N`` | 1, ½, 0, 0 |
| yes, true; no, false, as text in any case, or JSON's own | 1; 0 |
| a finite number, or text that is one | itself |
| NaN, null | none: Inspect's sign for *not scored* |
| anything else | none, where Inspect warns and takes 0 |

A scorer may bring rules of its own, which a log does not hold.
"""

from __future__ import annotations

import math
from typing import Any, Final

__all__ = ["NOT_A_NUMBER", "NOT_SCORED", "to_number"]

NOT_SCORED: Final = "not scored"
NOT_A_NUMBER: Final = "a value that is no number"
_WORDS: Final = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_LETTERS: Final = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}


def to_number(value: Any) -> float | str:
    """Return the number of a score, on whatever scale, or why there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOT_SCORED
    if isinstance(value, str):
        if value in _LETTERS:
            return _LETTERS[value]
        value = _WORDS.get(value.lower(), value)
    elif not isinstance(value, bool | int | float):
        return NOT_A_NUMBER
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return NOT_A_NUMBER
    return number if math.isfinite(number) else NOT_A_NUMBER
