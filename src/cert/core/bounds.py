"""The numbers that a setting may have; NaN and infinity are none of them."""

from __future__ import annotations

import math

from cert.core.errors import ConfigurationError

__all__ = ["at_least", "positive", "share"]


def positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above zero.

    Raises:
        ConfigurationError: with the setting's name, its value, and what is right.
    """
    if not (_finite(value) and value > 0):
        raise _wrong(name, value, "a finite number above 0")


def at_least(name: str, value: float, lowest: float) -> None:
    """Refuse what is not a finite number of ``lowest`` or more.

    Raises:
        ConfigurationError: with the setting's name, its value, and what is right.
    """
    if not (_finite(value) and value >= lowest):
        raise _wrong(name, value, f"a finite number of {lowest} or more")


def share(name: str, value: float) -> None:
    """Refuse what is not above zero and at most one.

    Raises:
        ConfigurationError: with the setting's name, its value, and what is right.
    """
    if not (_finite(value) and 0 < value <= 1):
        raise _wrong(name, value, "a number above 0 and at most 1")


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, value: object, right: str) -> ConfigurationError:
    return ConfigurationError(f"{name} is {value!r}; it must be {right}", context={"setting": name})
