"""How far a suite is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

__all__ = ["Progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Told after each measurement of one system on one task.

    Attributes:
        done: measurements so far.
        total: of all that are planned.
        system, task_id: of the last one.
        spent: dollars paid so far, by this process.
        saved: dollars that answers in the store would have cost.
    """

    done: int
    total: int
    system: str
    task_id: str
    spent: Decimal
    saved: Decimal
