"""Events of the core as log lines."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from cert.core.events import (
    BudgetBegun,
    BudgetRefused,
    BudgetSettled,
    CacheAsked,
    CallFinished,
    CircuitChanged,
    ComponentDegraded,
    DriftFound,
    Event,
    GateShifted,
    GenerationFinished,
    HealthChanged,
    JudgementFinished,
    Observer,
    OutOfMemoryMet,
    PromiseVoid,
    RateLimitWaited,
    RetryScheduled,
)
from cert.observability.lines import iso_time
from cert.observability.logging import get_logger

__all__ = ["log_observer"]

# Taken by the line itself.
_NUMBERS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
_RESERVED = frozenset({"event", "level", "logger", "timestamp", "pid", "exc_info", "stack_info"})


def log_observer(logger: Any = None) -> Observer:
    """Return an observer for `EventHub.observe` that writes one line an event.

    The line's name is the event's; its fields are the event's; its time is when the event happened. What goes
    as it should is told at ``info``, what happens with each single call at ``debug``, and what somebody
    should look at above that.

    Args:
        logger: a structlog logger; by default that of ``cert.events``.
    """
    target = logger if logger is not None else get_logger("cert.events")
    enabled = getattr(target, "isEnabledFor", lambda _: True)

    def observe(event: Event) -> None:
        level = level_of(event)
        if not enabled(_NUMBERS[level]):
            return
        fields = {
            f"{field.name}_" if field.name in _RESERVED else field.name: getattr(event, field.name)
            for field in dataclasses.fields(event)
            if field.name != "at"
        }
        getattr(target, level)(event.name, timestamp=iso_time(event.at), **fields)

    return observe


def level_of(event: Event) -> str:
    """Return the level of an event's line."""
    match event:
        case CallFinished(outcome="ok") | BudgetSettled() | CacheAsked() | RateLimitWaited():
            return "debug"
        case GenerationFinished(cached=True):  # told when it was made; a repeat is a call like any other
            return "debug"
        case JudgementFinished(outcome="ok"):
            return "debug"
        case ComponentDegraded(active=True) | HealthChanged(after="unhealthy") | CircuitChanged(after="open"):
            return "error"
        case PromiseVoid():
            return "error"
        case BudgetBegun() | BudgetRefused() | CallFinished() | OutOfMemoryMet() | RetryScheduled():
            return "warning"
        case DriftFound() | GateShifted() | HealthChanged(after="degraded") | JudgementFinished():
            return "warning"
        case _:
            return "info"
