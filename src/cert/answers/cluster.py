"""Answers put together by what they say, with as few comparisons as the rule needs.

The work is written once, as a generator that yields the pairs to be compared next and is sent the decisions;
a synchronous and an asynchronous loop drive it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from cert.answers.equivalence import AsyncEquivalence, Equivalence, Pair, checked
from cert.answers.normalize import same_text_key
from cert.core.errors import ConfigurationError, InputError

__all__ = ["Clustering", "Linkage", "cluster", "cluster_async"]

Linkage: TypeAlias = Literal["first_member", "connected"]


@dataclass(frozen=True, slots=True)
class Clustering:
    """Which of n answers say the same.

    Attributes:
        finest: the cluster of each answer if what was left undecided is different; clusters are numbered
            0, 1, … in the order of their first members.
        coarsest: the same if what was left undecided is the same.
        n_comparisons: pairs that the equivalence was asked about.
        undecided: indices of the pairs of answers on which it was asked and did not decide.
        rule: the equivalence's name.
        linkage: how clusters were made of pairs.

    Where the equivalence is a true one, the partition that it would give if it decided everything is not
    finer than ``finest`` and not coarser than ``coarsest``, so that its entropy lies between theirs. With
    the linkage ``connected`` this holds for every symmetric rule.
    """

    finest: tuple[int, ...]
    coarsest: tuple[int, ...]
    n_comparisons: int
    undecided: tuple[tuple[int, int], ...]
    rule: str
    linkage: Linkage

    @property
    def labels(self) -> tuple[int, ...] | None:
        """The cluster of each answer; ``None`` (not measured) if undecided pairs leave it open."""
        return self.finest if self.finest == self.coarsest else None

    @property
    def n_clusters(self) -> int | None:
        """Number of clusters; ``None`` if undecided pairs leave it open."""
        return None if self.labels is None else len(set(self.labels))


def cluster(
    question: str, answers: Sequence[str], equivalence: Equivalence, linkage: Linkage = "first_member"
) -> Clustering:
    """Cluster the answers to a question.

    Texts that read the same are one from the start. ``first_member`` compares each answer with the first
    member of each cluster until one is the same (Farquhar et al., Nature 630, 2024; Kuhn et al., arXiv
    2302.09664): for a true equivalence the result is the same in every order of the answers; for a rule that
    is not transitive it depends on the order. ``connected`` joins what a chain of "same" connects, and
    compares all pairs but those that are connected already: independent of the order for every symmetric
    rule, and one wrong "same" joins two clusters. Each pair is asked about once, the earlier answer first.

    Args:
        question: what was answered; may be empty.
        answers: n answers, n ≥ 0.
        equivalence: the rule. The pairs of a round come in one call: at most one round a cluster for
            ``first_member``, one a distinct text for ``connected``.
        linkage: how clusters are made of pairs.

    Raises:
        InputError: the answers are one string, or one of them is no string or too long.
        ConfigurationError: there is no such linkage.
        CertError: what the equivalence raises.
    """
    work = _work(answers, equivalence.name, linkage)
    try:
        pairs = next(work)
        while True:
            pairs = work.send(checked(equivalence.same(question, pairs), len(pairs), equivalence.name))
    except StopIteration as done:
        result: Clustering = done.value
        return result


async def cluster_async(
    question: str, answers: Sequence[str], equivalence: AsyncEquivalence, linkage: Linkage = "first_member"
) -> Clustering:
    """Cluster the answers to a question by a rule that waits for a network, as `cluster` does."""
    work = _work(answers, equivalence.name, linkage)
    decisions: Sequence[bool | None] | None = None
    while True:
        try:
            pairs = next(work) if decisions is None else work.send(decisions)
        except StopIteration as done:
            result: Clustering = done.value
            return result
        decisions = await equivalence.same_async(question, pairs)
        checked(decisions, len(pairs), equivalence.name)


_Decisions: TypeAlias = dict[tuple[int, int], bool | None]
_Work: TypeAlias = Generator[list[Pair], Sequence[bool | None], Clustering]
_Linking: TypeAlias = Generator[list[tuple[int, int]], Sequence[bool | None], _Decisions]


def _work(answers: Sequence[str], rule: str, linkage: Linkage) -> _Work:
    if isinstance(answers, str):
        raise InputError("the answers must be a list of strings, not one string")
    if linkage not in _LINKAGES:
        raise ConfigurationError(f"unknown linkage {linkage!r}", hint=", ".join(_LINKAGES))
    firsts: dict[str, int] = {}
    first = [firsts.setdefault(same_text_key(answer), i) for i, answer in enumerate(answers)]
    linking = _LINKAGES[linkage](sorted(firsts.values()))
    try:
        pairs = next(linking)
        while True:
            pairs = linking.send((yield [(answers[a], answers[b]) for a, b in pairs]))
    except StopIteration as done:
        decisions: _Decisions = done.value
    same = [pair for pair, decision in decisions.items() if decision]
    undecided = [pair for pair, decision in decisions.items() if decision is None]
    finest = _components(first, same)
    if linkage == "first_member":
        # Two clusters whose members were found different are so, whatever other members left undecided.
        apart = {(finest[a], finest[b]) for (a, b), decision in decisions.items() if decision is False}
        open_ = [(a, b) for a, b in undecided if not {(finest[a], finest[b]), (finest[b], finest[a])} & apart]
    else:
        open_ = undecided
    coarsest = _components(first, [*same, *open_])
    return Clustering(finest, coarsest, len(decisions), tuple(undecided), rule, linkage)


def _first_member(answers: list[int]) -> _Linking:
    """Compare, round by round, the first answer without a cluster to the others without one."""
    decisions: _Decisions = {}
    while len(answers) > 1:
        pairs = [(answers[0], other) for other in answers[1:]]
        decisions.update(zip(pairs, (yield pairs), strict=True))
        answers = [other for pair, other in zip(pairs, answers[1:], strict=True) if not decisions[pair]]
    return decisions


def _connected(answers: list[int]) -> _Linking:
    """Compare each answer of a component to all outside of those found so far, breadth first."""
    decisions: _Decisions = {}
    outside = list(answers)
    while outside:
        component = [outside.pop(0)]
        for member in component:  # it grows meanwhile
            if not outside:
                break
            pairs = [(min(member, other), max(member, other)) for other in outside]
            decisions.update(zip(pairs, (yield pairs), strict=True))
            found = [other for pair, other in zip(pairs, outside, strict=True) if decisions[pair]]
            component.extend(found)
            outside = [other for other in outside if other not in found]
    return decisions


_LINKAGES: Final[Mapping[str, Callable[[list[int]], _Linking]]] = MappingProxyType(
    {"first_member": _first_member, "connected": _connected}
)


def _components(first: list[int], joined: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Number the components of the answers, each tied to the first with its text and by the joined pairs."""
    parent = list(range(len(first)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for a, b in [*enumerate(first), *joined]:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    numbers: dict[int, int] = {}
    return tuple(numbers.setdefault(root(i), len(numbers)) for i in range(len(first)))
