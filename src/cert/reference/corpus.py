"""Write the training text: every fact exactly as often as the world says, in documents in random order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from cert.reference.documents import Document, PromptWriter, biography
from cert.reference.generate import random_name
from cert.reference.templates import Templates, load_templates
from cert.reference.world import Fact, World

FORMAT_SHARES: Final = {
    "sentence": 0.34,
    "chat": 0.22,
    "aggregation": 0.07,
    "review": 0.05,
    "debate": 0.07,
    "p_true": 0.25,
}
"""What one exposure of a question person's fact is; those of everyone else are sentences."""
FOLLOW_SHARES: Final = {"aggregation": 0.4, "review": 0.2, "debate": 0.4}
DEFAULT_FOLLOW: Final = 160_000
"""Prompts about throw-away names, which teach following without spending facts."""
MAX_SENTENCES: Final = 3


def write_corpus(world: World, follow: int = DEFAULT_FOLLOW) -> list[Document]:
    """Return all documents, shuffled; the same for the same world."""
    rng = Random(f"cert-reference-corpus-{world.seed}")  # noqa: S311  # to be repeatable
    templates = load_templates(world.templates_version)
    writer = PromptWriter(world, templates, rng)
    documents: list[Document] = []
    sentences: dict[int, dict[Fact, int]] = {}
    for fact in world.facts:
        kinds = rng.choices(list(FORMAT_SHARES), list(FORMAT_SHARES.values()), k=fact.exposures)
        if not fact.person.question_person:
            kinds = ["sentence"] * fact.exposures
        documents += (writer.write(kind, fact) for kind in kinds if kind != "sentence")
        sentences.setdefault(fact.person.index, {})[fact] = kinds.count("sentence")
    for remaining in sentences.values():
        documents += _biographies(rng, remaining, templates)
    names = {person.name for person in world.people}
    documents += _follow_prompts(rng, writer, names, follow)
    rng.shuffle(documents)
    return documents


def _biographies(rng: Random, remaining: dict[Fact, int], templates: Templates) -> Iterator[Document]:
    """Use up the sentences of one person in documents of one to three different facts, in random order.

    A fact occurs once in a document: a second mention could be copied from the first and would teach nothing.
    """
    left = [fact for fact, count in remaining.items() for _ in range(count)]
    rng.shuffle(left)
    while left:
        chosen: list[Fact] = []
        for _ in range(rng.randint(1, MAX_SENTENCES)):
            if left and left[-1] not in chosen:
                chosen.append(left.pop())
        yield biography(rng, chosen, templates)


def _follow_prompts(rng: Random, writer: PromptWriter, taken: set[str], count: int) -> Iterator[Document]:
    kinds = rng.choices(list(FOLLOW_SHARES), list(FOLLOW_SHARES.values()), k=count)
    for kind in kinds:
        name = random_name(rng)
        while name in taken:
            name = random_name(rng)
        yield writer.follow(kind, name)


__all__ = ["DEFAULT_FOLLOW", "FOLLOW_SHARES", "FORMAT_SHARES", "write_corpus"]
