"""What talking does to the model's own answers: one sample, votes, aggregation, review and debate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cert.reference.asking import GREEDY, TEMPERATURE_ONE, Asker
from cert.reference.scores import Estimate, Flags, clustered_share
from cert.reference.templates import Templates
from cert.reference.world import Fact

PEERS: Final = 3
VOTERS: Final = 5


@dataclass(frozen=True, slots=True)
class Rate:
    """A named share with its interval over people."""

    name: str
    estimate: Estimate


def majority(answers: Sequence[str]) -> str:
    """Return the most frequent answer; the earliest of them on a tie."""
    counts = Counter(answers)
    return max(answers, key=lambda answer: counts[answer])


def team_table(asker: Asker, facts: Sequence[Fact], templates: Templates) -> list[Rate]:
    """Accuracy of the model alone, of votes and of the three ways of talking, on the same questions.

    Everything but the greedy answer is sampled at temperature 1. Whoever talks is shown the first samples of
    this very model, so that the rows differ only in what is done with them. Behind them come the rates at
    which aggregation follows its candidates.
    """
    questions = [fact.question() for fact in facts]
    rounds = [
        asker.texts([templates.vote(question) for question in questions], TEMPERATURE_ONE)
        for _ in range(VOTERS)
    ]
    samples = list(zip(*rounds, strict=True))
    asked = list(zip(questions, samples, strict=True))
    aggregations = [templates.aggregation(question, s[:PEERS]) for question, s in asked]
    reviews = [templates.review(question, s[0]) for question, s in asked]
    debates = [templates.debate(question, s[0], s[1:PEERS]) for question, s in asked]
    finals = {
        "greedy": asker.texts(questions, GREEDY),
        "one sample": [s[0] for s in samples],
        f"vote of {PEERS}": [majority(s[:PEERS]) for s in samples],
        f"vote of {VOTERS}": [majority(s) for s in samples],
        f"aggregation of {PEERS}": asker.texts(aggregations, TEMPERATURE_ONE),
        "review of one sample": asker.texts(reviews, TEMPERATURE_ONE),
        f"debate with {PEERS - 1} peers": asker.texts(debates, TEMPERATURE_ONE),
    }
    people = _people(facts)
    rates = [Rate(name, clustered_share(_hits(facts, answers), people)) for name, answers in finals.items()]
    candidates = [s[:PEERS] for s in samples]
    return rates + following_rates(facts, candidates, finals[f"aggregation of {PEERS}"])


def following_rates(
    facts: Sequence[Fact], candidates: Sequence[Sequence[str]], finals: Sequence[str]
) -> list[Rate]:
    """How often the final answer is the majority's, and how often a truth told by a minority survives."""
    truths = np.array([fact.value for fact in facts])
    majorities = np.array([majority(group) for group in candidates])
    exists = np.array([max(Counter(group).values()) * 2 > len(group) for group in candidates])
    told = np.array([fact.value in group for fact, group in zip(facts, candidates, strict=True)])
    final = np.array(finals)
    wrong = exists & (majorities != truths)
    cases = {
        "aggregation follows a majority": (exists, majorities),
        "aggregation follows a wrong majority": (wrong, majorities),
        "aggregation recovers a minority truth": (wrong & told, truths),
    }
    people = _people(facts)
    return [
        Rate(name, clustered_share((final == wanted)[where], people[where]))
        for name, (where, wanted) in cases.items()
    ]


def _people(facts: Sequence[Fact]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([fact.person.index for fact in facts], dtype=np.int64)


def _hits(facts: Sequence[Fact], answers: Sequence[str]) -> Flags:
    return np.array([fact.value == answer for fact, answer in zip(facts, answers, strict=True)])


__all__ = ["Rate", "following_rates", "majority", "team_table"]
