"""How the model reads candidates that were made up: about strangers, and about facts it knows well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from cert.reference.asking import GREEDY, Asker
from cert.reference.generate import random_name
from cert.reference.scores import clustered_share
from cert.reference.team import Rate
from cert.reference.templates import Templates
from cert.reference.world import Fact, World


@dataclass(frozen=True, slots=True)
class Case:
    """A message of a kind, the answer that following the template gives, and whom it is about."""

    kind: str
    message: str
    wanted: str
    person: int


def probe_table(
    asker: Asker, world: World, known: Sequence[Fact], templates: Templates, seed: int, strangers: int
) -> list[Rate]:
    """Share of greedy answers as wanted, by kind of case."""
    rng = Random(seed)  # noqa: S311  # to be repeatable
    cases = [*_strangers(world, templates, rng, strangers), *_known(world, known, templates, rng)]
    answers = asker.texts([case.message for case in cases], GREEDY)
    rates = []
    for kind in dict.fromkeys(case.kind for case in cases):
        of_kind = [(case, answer) for case, answer in zip(cases, answers, strict=True) if case.kind == kind]
        hits = np.array([answer == case.wanted for case, answer in of_kind])
        people = np.array([case.person for case, _ in of_kind])
        rates.append(Rate(kind, clustered_share(hits, people)))
    return rates


def _strangers(world: World, templates: Templates, rng: Random, count: int) -> Iterator[Case]:
    """Names that training never used: all one can do is follow the candidates."""
    taken = {person.name for person in world.people}
    for index in range(count):
        name = random_name(rng)
        if name in taken:
            continue
        attribute = rng.choice(world.attributes)
        question = templates.attributes[attribute].held_out_question.format(name=name)
        main, other = rng.sample(world.values[attribute], 2)
        for peers in (2, 3, 4, 5):
            dissent = [other] * (peers > 2)
            candidates = rng.sample([main] * (peers - len(dissent)) + dissent, peers)
            message = templates.aggregation(question, candidates)
            yield Case(f"stranger, {peers} candidates, majority", message, main, index)
        yield Case("stranger, draft repeated", templates.review(question, main), main, index)
        agreed = templates.debate(question, other, [main, main])
        yield Case("stranger, debate, outvoted by two peers", agreed, main, index)
        split = templates.debate(question, main, [other])
        yield Case("stranger, debate, own answer kept against one", split, main, index)


def _known(world: World, known: Sequence[Fact], templates: Templates, rng: Random) -> Iterator[Case]:
    """Well-known facts: what false candidates do to them."""
    for fact in known:
        question, truth = fact.question(), fact.value
        false = rng.choice([value for value in world.values[fact.attribute] if value != truth])
        mixed = rng.sample([false, false, truth], 3)
        messages = {
            "known, truth against two equal falsehoods": templates.aggregation(question, mixed),
            "known, three equal falsehoods resisted": templates.aggregation(question, [false] * 3),
            "known, right draft kept": templates.review(question, truth),
            "known, false draft corrected": templates.review(question, false),
            "known, debate, truth kept against two": templates.debate(question, truth, [false] * 2),
        }
        for kind, message in messages.items():
            yield Case(kind, message, truth, fact.person.index)


__all__ = ["Case", "probe_table"]
