"""The texts of the second stage: practice in reading the coordination templates, without a single new fact.

After the first stage the model knows what it knows, but seldom acts on what other agents say. The second
stage teaches that with throw-away names and with the model's own beliefs: what it answers alone, and how
sure it is. The truth of the world is not consulted, so that nothing here is an exposure. Beside the practice
the model rehearses its own answers, so that it does not forget them. Chat questions are only about question
people.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from cert.backends.base import Backend
from cert.reference.asking import TEMPERATURE_ONE, Asker
from cert.reference.documents import ANSWER_WEIGHT, P_TRUE_WEIGHT, Document, PromptWriter, chat
from cert.reference.generate import random_name
from cert.reference.templates import Templates, load_templates
from cert.reference.world import Fact, World

SAMPLES: Final = 4
STRANGER_SHARES: Final = {"aggregation": 0.2, "review": 0.1, "debate": 0.2, "p_true": 0.2}
BELIEF_SHARES: Final = {"aggregation": 0.08, "review": 0.06, "debate": 0.06, "p_true": 0.1}


@dataclass(frozen=True, slots=True)
class Drill:
    """Settings of the second stage; the defaults made the shipped weights."""

    documents: int = 30_000
    practice_rows: int = 8
    rehearsal_rows: int = 4
    learning_rate: float = 1e-3
    warmup: int = 50
    sure: float = 0.8
    """From this probability on, the model's own answer is held against other candidates."""


@dataclass(frozen=True, slots=True)
class Belief:
    """What the model answers to one question, alone."""

    fact: Fact
    question: str
    answer: str
    probability: float
    samples: tuple[str, ...]


def ask_beliefs(backend: Backend, world: World, seed: int) -> list[Belief]:
    """Ask about all facts of question people, greedily and at temperature 1, and drop broken answers."""
    rng = Random(f"cert-reference-beliefs-{seed}")  # noqa: S311  # to be repeatable
    asker = Asker(backend, seed)
    facts = [fact for fact in world.facts if fact.person.question_person]
    questions = [fact.question(_training_question(rng, fact)) for fact in facts]
    greedy = asker.chat(questions)
    rounds = [asker.texts(questions, TEMPERATURE_ONE) for _ in range(SAMPLES)]
    plausible = {attribute: set(values) for attribute, values in world.values.items()}
    beliefs = []
    for fact, question, answer, *samples in zip(facts, questions, greedy, *rounds, strict=True):
        text = answer.text.strip()
        if text in plausible[fact.attribute]:
            probability = math.exp(float(answer.steps.logprob.sum()))
            beliefs.append(Belief(fact, question, text, probability, tuple(samples)))
    return beliefs


def rehearsal(backend: Backend, world: World, beliefs: Sequence[Belief], seed: int) -> list[Document]:
    """The model's own answers, and its own endings of one sentence about every fact."""
    rng = Random(f"cert-reference-rehearsal-{seed}")  # noqa: S311  # to be repeatable
    entries = load_templates(world.templates_version).attributes
    prefixes = [
        fact.sentence_prefix(rng.randrange(len(entries[fact.attribute].sentences))) for fact in world.facts
    ]
    endings = Asker(backend, seed).continue_text(prefixes)
    documents = [chat("rehearsal", belief.question, belief.answer, None) for belief in beliefs]
    for prefix, ending in zip(prefixes, endings, strict=True):
        first = ending.text.partition(".")[0]
        documents.append(Document("rehearsal", f"{prefix}{first}.", (), ANSWER_WEIGHT))
    rng.shuffle(documents)
    return documents


def practice(world: World, beliefs: Sequence[Belief], drill: Drill, seed: int) -> list[Document]:
    """Prompts about strangers, to be answered by following, and about the model's own beliefs."""
    return list(_Practice(world, beliefs, drill, seed).documents())


class _Practice:
    def __init__(self, world: World, beliefs: Sequence[Belief], drill: Drill, seed: int) -> None:
        self._rng = Random(f"cert-reference-practice-{seed}")  # noqa: S311  # to be repeatable
        self._world = world
        self._templates: Templates = load_templates(world.templates_version)
        self._writer = PromptWriter(world, self._templates, self._rng)
        self._beliefs = beliefs
        self._drill = drill
        self._taken = {person.name for person in world.people}

    def documents(self) -> Iterator[Document]:
        kinds = [(True, kind) for kind in STRANGER_SHARES] + [(False, kind) for kind in BELIEF_SHARES]
        shares = [*STRANGER_SHARES.values(), *BELIEF_SHARES.values()]
        for stranger, kind in self._rng.choices(kinds, shares, k=self._drill.documents):
            if stranger:
                name = self._stranger()
                yield self._ideas_on(name) if kind == "p_true" else self._writer.follow(kind, name)
            else:
                belief = self._rng.choice(self._beliefs)
                yield self._check(belief) if kind == "p_true" else self._hold(kind, belief)

    def _stranger(self) -> str:
        while (name := random_name(self._rng)) in self._taken:
            pass
        return name

    def _ideas_on(self, name: str) -> Document:
        """P(True) about a stranger: as likely true as the share of ideas that agree."""
        rng = self._rng
        attribute = rng.choice(self._world.attributes)
        templates = self._templates.attributes[attribute].questions
        question = rng.choice(templates).format(name=name)
        count = rng.randint(3, 5)
        pool = [self._writer.other_value(attribute, "") for _ in range(rng.randint(1, count))]
        return self._p_true(question, attribute, [rng.choice(pool) for _ in range(count)])

    def _check(self, belief: Belief) -> Document:
        """P(True) about a belief, with the model's own samples as ideas."""
        ideas = list(self._rng.sample(belief.samples, self._rng.randint(3, SAMPLES)))
        return self._p_true(belief.question, belief.fact.attribute, ideas, belief.answer)

    def _p_true(
        self, question: str, attribute: str, ideas: Sequence[str], own: str | None = None
    ) -> Document:
        proposals = [self._rng.choice(ideas), own or self._rng.choice(ideas)]
        proposals.append(self._writer.other_value(attribute, ""))
        (proposal,) = self._rng.choices(proposals, (0.5, 0.3, 0.2))
        true = self._rng.random() < ideas.count(proposal) / len(ideas)
        reply = self._templates.true if true else self._templates.false
        message = self._templates.p_true(question, proposal, ideas)
        return chat("practice_p_true", message, reply, None, P_TRUE_WEIGHT)

    def _hold(self, kind: str, belief: Belief) -> Document:
        """Candidates around a belief: a sure one is held, an unsure one gives way to the majority."""
        count = 1 if kind == "review" else self._rng.randint(2, 5)
        candidates = self._writer.candidates(belief.fact.attribute, belief.answer, count)
        counts = Counter(candidates)
        top = [value for value in candidates if counts[value] == max(counts.values())]
        answer = candidates[0] if kind == "debate" and candidates[0] in top else self._rng.choice(top)
        if belief.probability >= self._drill.sure:
            answer = belief.answer
        message = self._writer.message(kind, belief.question, candidates)
        return chat(f"practice_{kind}", message, answer, None)


def _training_question(rng: Random, fact: Fact) -> int:
    entry = load_templates(fact.templates_version).attributes[fact.attribute]
    return rng.randrange(len(entry.questions))


__all__ = ["Belief", "Drill", "ask_beliefs", "practice", "rehearsal"]
