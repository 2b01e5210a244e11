"""How far agents agree: the answers of a round in clusters that say the same. Agreement is no quality.

Never by similarity of embeddings, to which "enforceable" and "not enforceable", or 42 and 57, are near: that
is redundancy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cert.answers.cluster import Clustering
from cert.coordination.alike import AnyEquivalence, WrittenAlike, cluster_answers, written_key
from cert.coordination.evaluators.agreement import krippendorff_alpha
from cert.coordination.types import AgentResponse, Interval, Task, Transcript
from cert.core.errors import InputError

__all__ = [
    "ABOUT_OTHERS",
    "Agreement",
    "Consensus",
    "agreement_beyond_chance",
    "cluster_responses",
    "consensus",
    "consensus_of_answers",
    "final_round",
    "first_round",
]

ABOUT_OTHERS: Final = frozenset({"aggregate", "select"})
"""Roles that speak of others' answers and give none of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """How far the answers of one round agree.

    Where pairs are undecided, the numbers are ``None`` and the intervals say where they are: from all of
    those pairs different to all of them the same. An interval without undecided pairs has no width.

    Attributes:
        answers: n, of those who answered; who is absent neither agrees nor disagrees.
        absent: how many said nothing.
        rate: size of the largest cluster / n, in [1/n, 1].
        rate_interval: of the same.
        pairwise: share of the n(n − 1)/2 pairs that agree, in [0, 1].
        pairwise_interval: of the same.
        clustering: of the answers, in the order of the agents; ``None`` with fewer than two.
        missing: why there is no rate: ``undecided``, ``too_few`` (less than two answers, where there is
            nothing to agree on), else ``None``.
    """

    answers: int
    absent: int
    rate: float | None
    rate_interval: Interval | None
    pairwise: float | None
    pairwise_interval: Interval | None
    clustering: Clustering | None
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement over many tasks, beyond chance.

    Attributes:
        alpha: Krippendorff's α of nominal data; ``None`` where undecided pairs leave it open or nothing can
            be said.
        alpha_interval: α if all undecided pairs are different and if all are the same.
        pairwise: share of pairs of answers to one task that agree, each answer with the same weight.
        chance: the share that would if each answer were drawn from all answers to all tasks.
        tasks: with two answers or more.
        missing: ``undecided``, ``too_few`` (no task has two answers), ``no_variation`` (all answers to all
            tasks are the same: nothing tells agreement from having one answer only), else ``None``.
    """

    alpha: float | None
    alpha_interval: Interval | None
    pairwise: float | None
    chance: float | None
    tasks: int
    missing: str | None = None


def first_round(transcript: Transcript) -> tuple[AgentResponse, ...]:
    """Return the responses of the first round."""
    return transcript.rounds[0] if transcript.rounds else ()


def final_round(transcript: Transcript) -> tuple[AgentResponse, ...]:
    """Return the responses of the last round in which agents gave answers of their own.

    An aggregator or a selector speaks after it. Of a sequence it is the last review alone.
    """
    own = [said for said in transcript.rounds if not {one.role for one in said} & ABOUT_OTHERS]
    return own[-1] if own else ()


async def consensus(
    task: Task | str, said: Sequence[AgentResponse], rule: AnyEquivalence | None = None
) -> Consensus:
    """Return how far the answers of a round agree; `final_round` is the usual one.

    Args:
        task: that was set, for a rule that reads.
        said: the responses of one round.
        rule: whether two answers say the same; by default what the writing tells, which leaves free text
            undecided. `cert.coordination.alike.same_answer` puts a reader behind it. Clusters are what a
            chain of "same" connects, so that the order of the agents plays no part.

    Raises:
        CertError: what the rule raises.
    """
    return await consensus_of_answers(task, [one.text for one in said], rule)


async def consensus_of_answers(
    task: Task | str, said: Sequence[str | None], rule: AnyEquivalence | None = None
) -> Consensus:
    """Return how far several answers agree, of whomever they are; ``None`` is an absent one.

    Args:
        task: as of `consensus`.
        said: the answers.
        rule: as of `consensus`.

    Raises:
        CertError: what the rule raises.
    """
    texts = [text for text in said if text is not None]
    counts = {"answers": len(texts), "absent": len(said) - len(texts)}
    if len(texts) < 2:
        none = dict.fromkeys(("rate", "rate_interval", "pairwise", "pairwise_interval", "clustering"))
        return Consensus(**counts, **none, missing="too_few")  # type: ignore[arg-type]
    clustering = await cluster_answers(Task.of(task).text, texts, rule or WrittenAlike())
    open_ = clustering.labels is None
    rates = [_rate(labels) for labels in (clustering.finest, clustering.coarsest)]
    pairs = [_pairwise(labels) for labels in (clustering.finest, clustering.coarsest)]
    return Consensus(
        **counts,
        rate=None if open_ else rates[0],
        rate_interval=_bounds(*rates),
        pairwise=None if open_ else pairs[0],
        pairwise_interval=_bounds(*pairs),
        clustering=clustering,
        missing="undecided" if open_ else None,
    )


async def cluster_responses(
    task: Task | str, said: Sequence[AgentResponse], rule: AnyEquivalence | None = None
) -> tuple[int | None, ...] | None:
    """Return the cluster of each of several responses, of any rounds; ``None`` for who is absent.

    Returns:
        One number each, in their order; ``None`` for all where undecided pairs leave the clusters open.

    Raises:
        CertError: what the rule raises.
    """
    texts = [one.text for one in said if one.text is not None]
    clustering = await cluster_answers(Task.of(task).text, texts, rule or WrittenAlike())
    if clustering.labels is None:
        return None
    labels = iter(clustering.labels)
    return tuple(None if one.text is None else next(labels) for one in said)


def agreement_beyond_chance(tasks: Sequence[tuple[Sequence[str], Clustering]]) -> Agreement:
    """Return the agreement of answers to many tasks, beyond chance (Krippendorff's α, nominal).

    α = 1 − D_o/D_e. D_o is the share of pairs of answers to one task that differ, by the clusters. D_e is the
    same share among all answers to all tasks: what agents would reach who know which answers occur and how
    often, and do not read the task. To have it, a cluster needs a name that means the same in every task: the
    commonest `written_key` of its members. So for questions of yes and no chance is one half and more, and
    for open answers, which hardly ever occur in two tasks, it is near zero and α near the agreement itself;
    that is no defect of either. Tasks with different forms of answers have different chances: give the tasks
    of one form. Two agents with the same wrong belief agree beyond this chance, too.

    Source: Krippendorff, *Content Analysis*, 3rd edition, 2013, chapter 12.

    Args:
        tasks: the answers to each and their clusters, as of a `Consensus`.

    Raises:
        InputError: the clusters are not of the answers.
    """
    kept = [(answers, clusters) for answers, clusters in tasks if len(answers) >= 2]
    finest = [_named(answers, clusters.finest) for answers, clusters in kept]
    coarsest = [_named(answers, clusters.coarsest) for answers, clusters in kept]
    if not kept:
        return _no_agreement(0, "too_few")
    ends = [_alpha(finest), _alpha(coarsest)]
    if finest != coarsest:
        known = [end for end in ends if end is not None]
        interval = _bounds(min(known), max(known)) if len(known) == 2 else None
        return _no_agreement(len(kept), "undecided", interval)
    if ends[0] is None:
        return _no_agreement(len(kept), "no_variation")
    pairwise = _agreement_within(finest)
    return Agreement(
        alpha=ends[0],
        alpha_interval=_bounds(ends[0], ends[0]),
        pairwise=pairwise,
        chance=_chance(finest),
        tasks=len(kept),
    )


def _rate(labels: Sequence[int]) -> float:
    return max(Counter(labels).values()) / len(labels)


def _pairwise(labels: Sequence[int]) -> float:
    n = len(labels)
    return sum(size * (size - 1) for size in Counter(labels).values()) / (n * (n - 1))


def _bounds(low: float, high: float) -> Interval:
    return Interval(low, high, 1.0, "all undecided pairs different, and all the same")


def _no_agreement(tasks: int, missing: str, interval: Interval | None = None) -> Agreement:
    return Agreement(
        alpha=None, alpha_interval=interval, pairwise=None, chance=None, tasks=tasks, missing=missing
    )


def _named(answers: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Return for each answer the name of its cluster: the commonest key of the members."""
    if len(answers) != len(labels):
        raise InputError(f"there are clusters of {len(labels)} answers, and {len(answers)} answers")
    keys = [repr(written_key(answer)) for answer in answers]
    names: dict[int, str] = {}
    taken: set[str] = set()
    for label in sorted(set(labels)):
        counts = Counter(key for key, of in zip(keys, labels, strict=True) if of == label)
        name = min(counts, key=lambda key: (-counts[key], key))
        # Two clusters of one task are two answers, also where a rule sets apart what is written alike.
        names[label] = name if name not in taken else f"{name} #{label}"
        taken.add(names[label])
    return [names[label] for label in labels]


def _alpha(named: Sequence[Sequence[str]]) -> float | None:
    codes: dict[str, int] = {}
    ratings = np.full((max(map(len, named)), len(named)), np.nan)
    for column, names in enumerate(named):
        for row, name in enumerate(names):
            ratings[row, column] = codes.setdefault(name, len(codes))
    return krippendorff_alpha(ratings, "nominal")


def _agreement_within(named: Sequence[Sequence[str]]) -> float:
    agreeing = sum(
        size * (size - 1) / (len(names) - 1) for names in named for size in Counter(names).values()
    )
    return agreeing / sum(map(len, named))


def _chance(named: Sequence[Sequence[str]]) -> float:
    sizes = Counter(name for names in named for name in names)
    n = sizes.total()
    return sum(size * (size - 1) for size in sizes.values()) / (n * (n - 1))
