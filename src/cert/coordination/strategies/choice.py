"""Which of several answers is taken: the majority of those that say the same, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from cert.answers.cluster import Clustering
from cert.coordination.alike import AnyEquivalence, WrittenAlike, cluster_answers
from cert.core.errors import ConfigurationError

__all__ = ["Choice", "Chooser", "MajorityChooser", "Ties"]

Ties: TypeAlias = Literal["first", "none"]


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer that was taken, or why none was.

    Attributes:
        index: of the answer; ``None`` where none was taken.
        missing: ``tie``, ``undecided``, else ``None``.
    """

    index: int | None
    missing: str | None = None


class Chooser(Protocol):
    """Takes one of several answers."""

    @property
    def name(self) -> str:
        """The rule, with all that changes its choices, for records."""
        ...

    async def choose(self, task: str, answers: Sequence[str], /) -> Choice:
        """Return the choice among one answer or more, in the order of the agents."""
        ...


@dataclass(frozen=True, slots=True)
class MajorityChooser:
    """The answer that most agents gave, by its first wording (self-consistency, arXiv 2203.11171).

    A plurality is enough. Pairs that the rule leaves undecided do not matter if the same answers win however
    they are decided; else there is no choice, and no guess.

    Attributes:
        equivalence: whether two answers say the same. The default tells what the writing tells. Where every
            other wording is another answer (names, letters), use
            ``MatcherEquivalence(NormalizedMatcher())``, which always decides.
        ties: ``first`` takes, of the largest groups, the one whose first member comes first in the order of
            the agents. Agents that are alike are in a random order, so that this is a draw by lot which comes
            out the same in every run, and a vote of three different answers is worth as much as one agent;
            of unlike agents it prefers the first. ``none`` takes none.

    Raises:
        ConfigurationError: ties are neither.
    """

    equivalence: AnyEquivalence = field(default_factory=WrittenAlike)
    ties: Ties = "first"

    def __post_init__(self) -> None:
        if self.ties not in {"first", "none"}:
            raise ConfigurationError(f"ties are 'first' or 'none', not {self.ties!r}")

    @property
    def name(self) -> str:
        """The rule and what becomes of ties."""
        return f"majority({self.equivalence.name}, ties={self.ties})"

    async def choose(self, task: str, answers: Sequence[str], /) -> Choice:
        """Return the choice.

        Raises:
            CertError: what the equivalence raises.
        """
        clustering = await cluster_answers(task, answers, self.equivalence)
        if clustering.labels is None:
            winner = _certain_winner(clustering)
            return Choice(winner, None if winner is not None else "undecided")
        sizes = Counter(clustering.labels)
        largest = [label for label, size in sizes.items() if size == max(sizes.values())]
        if len(largest) > 1 and self.ties == "none":
            return Choice(None, "tie")
        return Choice(clustering.labels.index(min(largest)))


def _certain_winner(clustering: Clustering) -> int | None:
    """Return the first answer of the cluster that stays the largest however open pairs are decided."""
    sizes = Counter(clustering.finest)
    winner = max(sizes, key=lambda label: sizes[label])
    first = clustering.finest.index(winner)
    # Of the others, at most those of one coarse cluster can come together.
    rivals = Counter(
        coarse for fine, coarse in zip(clustering.finest, clustering.coarsest, strict=True) if fine != winner
    )
    return first if sizes[winner] > max(rivals.values(), default=0) else None
