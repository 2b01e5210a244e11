"""How long a server asks to wait, read from the headers of its answer.

``Retry-After`` is a number of seconds or an HTTP date (RFC 9110, 10.2.3 and 5.6.7); ``retry-after-ms`` is the
finer form that several model servers add.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["parse_http_date", "parse_retry_after"]


def parse_retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that an answer asks to wait, 0 or more, or ``None`` where it does not say.

    A date counts from the answer's own ``Date``, so that a wrong clock on either side does no harm.

    Args:
        headers: of the answer; upper and lower case are the same.
        now: wall-clock seconds since 1970 that a date counts from where the answer has no ``Date``.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    milliseconds = _number(lowered.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = lowered.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    until = parse_http_date(value)
    if until is None:
        return None
    sent = parse_http_date(lowered.get("date"))
    since = sent if sent is not None else (time.time() if now is None else now)
    return max(0.0, until - since)


def parse_http_date(value: str | None) -> float | None:
    """Return an HTTP date, in any of its three formats, as seconds since 1970; ``None`` if it is none."""
    try:
        date = parsedate_to_datetime(value or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    # OverflowError: a year that no clock knows.
    except (TypeError, ValueError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
