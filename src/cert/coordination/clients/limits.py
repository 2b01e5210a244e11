"""The limits that a client makes for itself where none are given to share."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from cert.coordination.clients.arrivals import ArrivalLimiter
from cert.core.budget import Budget
from cert.core.circuit_breaker import Breaker, BreakerPolicy, CircuitBreaker
from cert.core.clock import SYSTEM_CLOCK, Clock
from cert.core.errors import ConfigurationError
from cert.core.events import EventHub
from cert.core.money import MOST_MICRO_DOLLARS
from cert.core.rate_limit import RateLimiter
from cert.core.resilience import Budget as AnyBudget
from cert.core.resilience import Limiter, ResiliencePolicy

__all__ = ["CHAT_POLICY", "Dollars", "Protection", "micro_dollar_limit"]

Dollars: TypeAlias = Decimal | int | float | str

# An attempt is a whole answer; the deadline holds what waits for 50 requests a minute.
CHAT_POLICY = ResiliencePolicy(deadline_seconds=600.0, attempt_seconds=120.0)


# Errors come faster than answers: of many calls at once, the first to be done are those that failed, and a
# few in a row show nothing of a server that answers all others.
_BREAKER = BreakerPolicy(minimum_calls=60, failures_in_a_row=20)


class Protection:
    """What stands between a client and its server.

    Args:
        name: of limits and breaker, for events; from a small fixed set.
        requests_per_minute, tokens_per_minute: the rates; ``None`` is no limit.
        max_cost_per_hour, max_cost_total: dollars; ``None`` is no limit. A float is taken as it is written.
        policy: deadline, time of an attempt, retries.
        limiter: in place of the two rates, such as one that replicas share.
        budget: in place of the two limits on dollars.
        breaker: in place of this client's own.
        clock: for tests.
        hub: told of calls.

    Raises:
        ConfigurationError: a limit that cannot be right.
    """

    def __init__(
        self,
        name: str,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        max_cost_per_hour: Dollars | None = None,
        max_cost_total: Dollars | None = None,
        policy: ResiliencePolicy | None = None,
        limiter: Limiter | None = None,
        budget: AnyBudget | None = None,
        breaker: Breaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
        hub: EventHub | None = None,
    ) -> None:
        self.name, self.clock, self.hub = name, clock, hub
        self.policy = policy or CHAT_POLICY
        self.limiter, self.budget = limiter, budget
        self.breaker = breaker or CircuitBreaker(name, _BREAKER, clock=clock, hub=hub)
        if limiter is None and (requests_per_minute, tokens_per_minute) != (None, None):
            rates = RateLimiter(requests_per_minute, tokens_per_minute, name=name, clock=clock, hub=hub)
            self.limiter = rates
            if requests_per_minute is not None:
                self.limiter = ArrivalLimiter(rates, requests_per_minute, clock)
        if budget is None and (max_cost_per_hour, max_cost_total) != (None, None):
            per_hour = micro_dollar_limit("max_cost_per_hour", max_cost_per_hour)
            total = micro_dollar_limit("max_cost_total", max_cost_total)
            self.budget = Budget(per_hour, total, name=name, clock=clock, hub=hub)


def micro_dollar_limit(name: str, amount: Dollars | None) -> int | None:
    """Return a limit in whole micro-dollars, rounded down so that it is never above what was said.

    Raises:
        ConfigurationError: it is no number of dollars above zero.
    """
    if amount is None:
        return None
    try:
        # Through its shortest decimal form: 0.1 means a tenth, not the double next to it.
        exact = Decimal(str(amount)) if not isinstance(amount, bool) else Decimal("NaN")
    except InvalidOperation:
        exact = Decimal("NaN")
    if not exact.is_finite() or not 1 <= (limit := int(exact * 1_000_000)) <= MOST_MICRO_DOLLARS:
        raise ConfigurationError(
            f"{name} is {amount!r}; it must be dollars, from 0.000001 to 10^9, or None for no limit",
            context={"setting": name},
        )
    return limit
