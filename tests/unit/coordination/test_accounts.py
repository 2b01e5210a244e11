"""Accounts: exact sums by agent and hour, what nobody knows apart, and a reset that lifts no limit."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from cert.coordination.chat import Usage
from cert.coordination.clients.accounts import CostAccounts
from cert.coordination.clients.limits import micro_dollar_limit
from cert.core.errors import ConfigurationError


class WallClock:
    def __init__(self) -> None:
        self.at = datetime(2026, 11, 25, 22, 59, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


def test_money_is_kept_by_agent_and_by_hour():
    """Who spends what, and when, is the first question about a bill."""
    clock = WallClock()
    accounts = CostAccounts("test", clock)
    accounts.book("critic", Usage(10, 5), 1)
    accounts.book("writer", Usage(20, 5), 10_000_002)
    clock.at += timedelta(minutes=2)
    accounts.book(None, Usage(1, 1), 3)
    stats = accounts.stats()
    assert stats.total == Decimal("10.000006")
    assert dict(stats.by_agent) == {
        "critic": Decimal("0.000001"),
        "writer": Decimal("10.000002"),
        None: Decimal("0.000003"),
    }
    assert dict(stats.by_hour) == {
        "2026-11-25T22:00Z": Decimal("10.000003"),
        "2026-11-25T23:00Z": Decimal("0.000003"),
    }
    assert (stats.completions, stats.usage) == (3, Usage(31, 11))
    assert stats.usage_by_agent["writer"] == Usage(20, 5)
    assert stats.price == "test"


def test_what_may_have_been_billed_stands_apart():
    """Counting it as cost would invent money; leaving it out would hide some."""
    accounts = CostAccounts("test")
    accounts.book("a", Usage(1, 1), 5)
    accounts.book_unanswered(100)
    stats = accounts.stats()
    assert (stats.total, stats.at_most, stats.unanswered) == (Decimal("0.000005"), Decimal("0.000105"), 1)


def test_a_reset_begins_anew():
    """A report of one run holds nothing of the run before."""
    clock = WallClock()
    accounts = CostAccounts("test", clock)
    accounts.book("a", Usage(1, 1), 5)
    accounts.book_unanswered(7)
    clock.at += timedelta(hours=1)
    accounts.reset()
    stats = accounts.stats()
    assert not any((stats.total, stats.at_most, stats.completions, stats.unanswered))
    assert not stats.by_agent
    assert not stats.by_hour
    assert stats.since == clock.at


def test_old_hours_are_forgotten():
    """A service that runs for months must not grow by the hour."""
    clock = WallClock()
    accounts = CostAccounts("test", clock)
    for _ in range(200):
        accounts.book("a", Usage(1, 1), 1)
        clock.at += timedelta(hours=1)
    stats = accounts.stats()
    assert len(stats.by_hour) == 168
    assert stats.total == Decimal("0.0002")
    assert f"{clock.at - timedelta(hours=1):%Y-%m-%dT%H}:00Z" in stats.by_hour


def test_names_without_end_are_kept_together():
    """A program that makes up a name for each call must not fill the memory, nor lose money from the sum."""
    accounts = CostAccounts("test")
    for number in range(1500):
        accounts.book(f"agent {number}", Usage(1, 0), 1)
    stats = accounts.stats()
    assert len(stats.by_agent) == 1001
    assert stats.by_agent["other"] == Decimal("0.0005")
    assert sum(stats.by_agent.values()) == stats.total


def test_no_booking_is_lost_between_threads():
    """Two event loops may share one client."""
    accounts = CostAccounts("test")

    def work() -> None:
        for _ in range(2000):
            accounts.book("a", Usage(1, 0), 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accounts.stats().total == Decimal("0.008")


@pytest.mark.parametrize(
    ("amount", "micro"),
    [(10.0, 10_000_000), (0.1, 100_000), (Decimal("0.0000019"), 1), ("2.5", 2_500_000), (None, None)],
)
def test_a_limit_in_dollars_means_what_is_written(amount, micro):
    """0.1 is a tenth of a dollar, and a limit is never rounded up."""
    assert micro_dollar_limit("max_cost_per_hour", amount) == micro


@pytest.mark.parametrize("amount", [0, -1, float("nan"), float("inf"), "much", True, 0.0000001, 10**10])
def test_a_limit_that_is_none_is_refused(amount):
    """A limit of nothing, or of no number, is a mistake and not a wish for no limit."""
    with pytest.raises(ConfigurationError, match="max_cost_per_hour"):
        micro_dollar_limit("max_cost_per_hour", amount)
