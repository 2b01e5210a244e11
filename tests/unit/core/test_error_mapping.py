"""Vendors' exceptions become ours once, by the most specific class, and are never lost on the way."""

from __future__ import annotations

import asyncio

import pytest

from cert.core.error_mapping import ErrorMapping
from cert.core.errors import (
    BudgetExceededError,
    CertError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamUnavailableError,
)


class VendorError(Exception):
    pass


class VendorRateLimitError(VendorError):
    pass


class VendorSpendLimitError(VendorRateLimitError):
    pass


@pytest.fixture
def mapping() -> ErrorMapping:
    table = ErrorMapping()
    table.register(VendorSpendLimitError, lambda error: BudgetExceededError(f"spent: {error}"))
    table.register(VendorError, lambda error: UpstreamError(f"vendor: {error}"))
    table.register(VendorRateLimitError, lambda error: UpstreamRateLimitError("slow down", retry_after=2.0))
    return table


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (VendorSpendLimitError("x"), BudgetExceededError),
        (VendorRateLimitError("x"), UpstreamRateLimitError),
        (VendorError("x"), UpstreamError),
        (type("New", (VendorRateLimitError,), {})("x"), UpstreamRateLimitError),
    ],
)
def test_the_most_specific_class_decides(mapping, error, ours):
    """A spend limit that subclasses a rate limit would be tried again for two minutes."""
    assert type(mapping.translate(error)) is ours
    assert mapping.covers(type(error))


def test_our_error_is_raised_with_the_vendors_as_its_cause(mapping):
    """Who looks for the reason needs the vendor's own words, and who waits needs the time."""
    original = VendorRateLimitError("429")
    with pytest.raises(UpstreamRateLimitError) as caught, mapping.applied():
        raise original
    assert caught.value.__cause__ is original
    assert caught.value.retry_after == 2.0


@pytest.mark.parametrize("error", [ZeroDivisionError(), CertError("ours"), KeyboardInterrupt()])
def test_what_is_not_the_vendors_passes_unchanged(mapping, error):
    """A defect of ours, or Ctrl-C, must not look like a failing server."""
    with pytest.raises(BaseException) as caught, mapping.applied():  # noqa: PT011  # it is compared below
        raise error
    assert caught.value is error
    assert mapping.translate(ZeroDivisionError()) is None
    assert not mapping.covers(ZeroDivisionError)


def test_a_cancellation_is_no_error_of_a_server(mapping):
    """A cancelled call that became an error would be tried again."""
    mapping.register(Exception, lambda error: UpstreamUnavailableError("down"))

    async def call() -> None:
        with mapping.applied():
            await asyncio.sleep(10)

    async def cancelled() -> None:
        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_the_last_registration_of_a_class_counts(mapping):
    """An adapter that refines what a shared table says would be ignored."""
    mapping.register(VendorError, lambda error: UpstreamUnavailableError("down"))
    assert isinstance(mapping.translate(VendorError()), UpstreamUnavailableError)
