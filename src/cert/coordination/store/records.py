"""What a store keeps: answers, calls that are out, and calls whose answer was lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, TypeAlias

from cert.core.money import dollars

__all__ = ["CacheStats", "Call", "Kind", "Lease", "LostCall", "LostCalls", "Outcome", "Record"]

Kind: TypeAlias = Literal["completion", "evaluation"]
Outcome: TypeAlias = Literal["hit", "shared", "miss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Something that may cost money and is about to be done.

    Attributes:
        key: of its answer.
        kind: what the answer will be.
        scope: under which it is counted.
        model: that is asked, or the evaluator; for people who read of lost calls.
        most_micro_dollars: what it can cost; ``None`` where nobody knows.
    """

    key: str
    kind: Kind
    scope: str
    model: str
    most_micro_dollars: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An answer as it is kept.

    Attributes:
        value: JSON.
        cost_micro_dollars: what it cost when it was made.
        made_at: seconds since 1970, UTC.
        made_by: the id of the call that made it.
    """

    key: str
    kind: Kind
    scope: str
    model: str
    cost_micro_dollars: int
    made_at: float
    made_by: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to make one call, and the note that it may have been made.

    Attributes:
        id: of this call alone.
        owner: the process, see `cert.coordination.store.processes`.
        started_at: seconds since 1970, UTC.
        expires_at: from then on another may make the call again.
    """

    call: Call
    id: str
    owner: str
    started_at: float
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LostCall:
    """A call that went out and whose answer never came to be kept; it may be billed.

    Attributes:
        why: ``died`` (the process was gone before the answer was kept), ``cancelled``, or the ``code`` of the
            error.
    """

    call: Call
    id: str
    started_at: float
    why: str


@dataclass(frozen=True, slots=True)
class LostCalls:
    """What may have been paid for nothing.

    Attributes:
        calls: the oldest first.
        under_way: calls that are out now; of a process that has just died, on another machine, too.
    """

    calls: tuple[LostCall, ...] = ()
    under_way: int = 0

    @property
    def most_micro_dollars(self) -> int:
        """What they cost at most, each tried once; those without a bound are not in it."""
        return sum(lost.call.most_micro_dollars or 0 for lost in self.calls)

    @property
    def most(self) -> Decimal:
        """The same in exact dollars."""
        return dollars(self.most_micro_dollars)

    @property
    def unbounded(self) -> int:
        """How many of them have no known bound."""
        return sum(lost.call.most_micro_dollars is None for lost in self.calls)

    def __str__(self) -> str:
        count = len(self.calls)
        told = f"possibly billed and lost: {count} call{'s' * (count != 1)}, up to ${self.most}"
        return told + (f", and {self.unbounded} of them with no known bound" if self.unbounded else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What a store has answered in this process, and what that saved.

    Attributes:
        hits: answers that were there.
        shared: answers that somebody else was making at that moment.
        misses: answers that had to be made.
        saved_micro_dollars: what hits and shared answers had cost when they were made.
        spent_micro_dollars: what the misses cost.
        entries: answers in the store, by whomever.
    """

    hits: int = 0
    shared: int = 0
    misses: int = 0
    saved_micro_dollars: int = 0
    spent_micro_dollars: int = 0
    entries: int = field(default=0, compare=False)

    @property
    def asked(self) -> int:
        """How often it was asked with success."""
        return self.hits + self.shared + self.misses

    @property
    def hit_rate(self) -> float | None:
        """The share that cost nothing; ``None`` before the first answer."""
        return (self.hits + self.shared) / self.asked if self.asked else None

    @property
    def saved_share(self) -> float | None:
        """Money saved of the money that it would have cost; ``None`` where that is nothing."""
        whole = self.saved_micro_dollars + self.spent_micro_dollars
        return self.saved_micro_dollars / whole if whole else None

    @property
    def saved(self) -> Decimal:
        """What was saved, in exact dollars."""
        return dollars(self.saved_micro_dollars)

    @property
    def spent(self) -> Decimal:
        """What was spent, in exact dollars."""
        return dollars(self.spent_micro_dollars)
