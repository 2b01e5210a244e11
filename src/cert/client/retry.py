"""When a call is tried again: what a service refused before it did anything, and what may be done twice."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["RetryPolicy"]

_REFUSED = frozenset({429, 503})
_BROKEN = frozenset({502, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long.

    Attributes:
        attempts: in all; 1 never tries again.
        first_seconds: longest first wait; it doubles, and each wait is drawn between 0 and its longest.
        most_seconds: longest wait, a service's own ``Retry-After`` included: one that asks for more is
            believed by giving up.
    """

    attempts: int = 4
    first_seconds: float = 0.5
    most_seconds: float = 20.0

    def __post_init__(self) -> None:
        waits = (self.first_seconds, self.most_seconds)
        if self.attempts < 1 or not all(math.isfinite(wait) and wait >= 0 for wait in waits):
            raise ValueError("attempts are at least 1, and waits are seconds")

    def wait(
        self, attempt: int, status: int | None, retry_after: str | None, *, repeatable: bool
    ) -> float | None:
        """Return the seconds to wait before another try, or ``None``: do not.

        Args:
            attempt: how many were made.
            status: of the answer; ``None`` where the connection failed.
            retry_after: the header, if there was one.
            repeatable: whether doing it twice does no harm.
        """
        refused = status in _REFUSED  # nothing was done yet
        if attempt >= self.attempts or not (
            refused or (repeatable and (status is None or status in _BROKEN))
        ):
            return None
        drawn = random.uniform(0.0, min(self.most_seconds, self.first_seconds * 2 ** (attempt - 1)))  # noqa: S311  # jitter
        if retry_after is None or not retry_after.strip().isdigit():
            return drawn
        asked = float(retry_after)
        return None if asked > self.most_seconds else asked + min(drawn, 1.0)
