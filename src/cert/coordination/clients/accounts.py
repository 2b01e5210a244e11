"""What was spent, by whom and in which hour: exact, and apart from the limit on it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from cert.coordination.chat import Usage
from cert.coordination.clients.prices import now
from cert.core.money import dollars

__all__ = ["CostAccounts", "CostStats"]

_HOURS_KEPT = 7 * 24
_NAMES_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CostStats:
    """Accounts since their beginning or the last reset; money is in exact dollars.

    Attributes:
        total: of all completions.
        by_agent: the same for each agent, with ``None`` for calls on nobody's account; beyond the first
            thousand names all together as ``other``.
        by_hour: the same for each hour of the last seven days that had any, by its beginning in UTC
            (``2026-11-25T22:00Z``).
        completions: their number.
        usage: their tokens.
        usage_by_agent: the same for each agent.
        unanswered: attempts that came to nothing and may have been billed: time-outs, broken connections,
            cancellations, errors of the server.
        at_most: ``total`` and the most that those could cost.
        since: when the accounts begin, in UTC.
        price: where prices were read.
    """

    total: Decimal
    by_agent: Mapping[str | None, Decimal]
    by_hour: Mapping[str, Decimal]
    completions: int
    usage: Usage
    usage_by_agent: Mapping[str | None, Usage]
    unanswered: int
    at_most: Decimal
    since: datetime
    price: str


class CostAccounts:
    """Books completions; may be used from any thread.

    Args:
        price: where prices were read.
        time: the wall clock, in UTC.
    """

    def __init__(self, price: str, time: Callable[[], datetime] = now) -> None:
        self._price = price
        self._time = time
        self._lock = threading.Lock()
        self.reset()

    def book(self, agent: str | None, usage: Usage, micro_dollars: int) -> None:
        """Book a completion."""
        hour = f"{self._time():%Y-%m-%dT%H}:00Z"
        with self._lock:
            if agent not in self._by_agent and len(self._by_agent) >= _NAMES_KEPT:
                agent = "other"
            self._completions += 1
            self._by_agent[agent] += micro_dollars
            self._usage[agent] = self._usage.get(agent, Usage()) + usage
            self._by_hour[hour] = self._by_hour.get(hour, 0) + micro_dollars
            while len(self._by_hour) > _HOURS_KEPT:
                del self._by_hour[min(self._by_hour)]

    def book_unanswered(self, most_micro_dollars: int) -> None:
        """Book an attempt that may have been billed, at the most that it could cost."""
        with self._lock:
            self._unanswered += 1
            self._unanswered_most += most_micro_dollars

    def stats(self) -> CostStats:
        """Return the accounts as they stand."""
        with self._lock:
            total = self._by_agent.total()
            return CostStats(
                total=dollars(total),
                by_agent=MappingProxyType({agent: dollars(spent) for agent, spent in self._by_agent.items()}),
                by_hour=MappingProxyType({hour: dollars(spent) for hour, spent in self._by_hour.items()}),
                completions=self._completions,
                usage=sum(self._usage.values(), Usage()),
                usage_by_agent=MappingProxyType(dict(self._usage)),
                unanswered=self._unanswered,
                at_most=dollars(total + self._unanswered_most),
                since=self._since,
                price=self._price,
            )

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._since = self._time()
            self._by_agent: Counter[str | None] = Counter()
            self._by_hour: dict[str, int] = {}
            self._usage: dict[str | None, Usage] = {}
            self._completions = self._unanswered = self._unanswered_most = 0
