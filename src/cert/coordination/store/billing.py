"""Whether a call that ended without an answer may be billed all the same."""

from __future__ import annotations

import asyncio

from cert.core.errors import (
    BudgetExceededError,
    CertError,
    CircuitOpenError,
    ConfigurationError,
    DeadlineExceededError,
    DependencyMissingError,
    InputError,
    OverloadedError,
    RateLimitedError,
    RetriesExhaustedError,
)
from cert.core.resilience import surely_unbilled

__all__ = ["may_be_billed", "why_lost"]

# Our own refusals: nothing was sent by the attempt that they end. One before it is their cause.
_REFUSALS = (
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    DependencyMissingError,
    InputError,
    OverloadedError,
    RateLimitedError,
)


def may_be_billed(error: BaseException) -> bool:
    """Say whether a failed call may cost money; of several attempts, by the last that was sent."""
    if isinstance(error, _REFUSALS):
        return error.__cause__ is not None and may_be_billed(error.__cause__)
    if isinstance(error, RetriesExhaustedError) and error.__cause__ is not None:
        return may_be_billed(error.__cause__)
    if isinstance(error, DeadlineExceededError) and error.context.get("attempts") == 0:
        return False
    return not surely_unbilled(error)


def why_lost(error: BaseException) -> str | None:
    """Return the reason to write down for a call that may be billed, ``None`` where it is not."""
    if not may_be_billed(error):
        return None
    if isinstance(error, CertError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
