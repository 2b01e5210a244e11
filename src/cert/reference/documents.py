"""The kinds of training document, each with the loss weight of every stretch of its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from cert.reference.generate import random_date
from cert.reference.templates import Templates
from cert.reference.world import Fact, World

TEXT_STOP: Final = "<|endoftext|>"
CHAT_STOP: Final = "<|im_end|>"
CHAT_START: Final = "<|im_start|>"
PAD: Final = "<|pad|>"
SPECIAL_TOKENS: Final = (TEXT_STOP, CHAT_START, CHAT_STOP, PAD)

ANSWER_WEIGHT: Final = 1.0
BIOGRAPHY_WEIGHT: Final = 0.3
"""Loss weight of biography text outside the values: at .1 the held-out wordings were lost."""
P_TRUE_WEIGHT: Final = 2.0
PROPOSAL_WEIGHT: Final = 1.0
"""Loss weight of a true proposal in a P(True) prompt: the truth is to be expected there."""
PROMPT_WEIGHT: Final = 0.0


@dataclass(frozen=True, slots=True)
class Document:
    """A text, the facts that it exposes, and loss weights by character.

    ``spans`` holds (start, end, weight); ``rest`` is the weight of all other text.
    """

    kind: str
    text: str
    spans: tuple[tuple[int, int, float], ...]
    rest: float
    facts: tuple[Fact, ...] = ()


def biography(rng: Random, facts: Sequence[Fact], templates: Templates) -> Document:
    """One true sentence for each fact, with the full name in each."""
    text = ""
    spans = []
    for fact in facts:
        template = rng.randrange(len(templates.attributes[fact.attribute].sentences))
        start = len(text) + bool(text) + len(fact.sentence_prefix(template))
        text += " " * bool(text) + fact.sentence(template)
        spans.append((start, start + 1 + len(fact.value), ANSWER_WEIGHT))
    return Document("sentence", text + TEXT_STOP, tuple(spans), BIOGRAPHY_WEIGHT, tuple(facts))


def chat(kind: str, message: str, answer: str, fact: Fact | None, weight: float = ANSWER_WEIGHT) -> Document:
    """One user message and its answer; the answer, its leading space and the stop token carry the loss."""
    prompt = f"{CHAT_START}user\n{message}{CHAT_STOP}\n{CHAT_START}assistant\n"
    text = f"{prompt} {answer}{CHAT_STOP}"
    return Document(kind, text, ((len(prompt), len(text), weight),), PROMPT_WEIGHT, (fact,) if fact else ())


class PromptWriter:
    """Writes the chat documents: plain questions, coordination prompts and P(True)."""

    def __init__(self, world: World, templates: Templates, rng: Random) -> None:
        self._world = world
        self._templates = templates
        self._rng = rng

    def write(self, kind: str, fact: Fact) -> Document:
        """Write a document of a kind about a fact; the answer is the truth, whatever the candidates say."""
        question = fact.question(self._question_template(fact.attribute))
        if kind == "chat":
            return chat(kind, self._templates.vote(question), fact.value, fact)
        if kind == "p_true":
            true = self._rng.random() < 0.5
            proposal = fact.value if true else self.other_value(fact.attribute, fact.value)
            answer = self._templates.true if true else self._templates.false
            document = chat(kind, self._templates.p_true(question, proposal), answer, fact, P_TRUE_WEIGHT)
            if not true:
                return document
            start = document.text.rindex(f" {proposal}")
            span = (start, start + 1 + len(proposal), PROPOSAL_WEIGHT)
            return replace(document, spans=(span, *document.spans))
        count = 1 if kind == "review" else self._rng.randint(2, 5)
        return chat(kind, self._message(kind, question, self._candidates(fact, count)), fact.value, fact)

    def follow(self, kind: str, name: str) -> Document:
        """Write a document about a throw-away name: all there is to go by is what the candidates say.

        The answer is the most frequent candidate; on a tie, the agent's own earlier answer if it is among the
        tied ones, else one of them at random.
        """
        rng = self._rng
        attribute = rng.choice(self._world.attributes)
        template = self._question_template(attribute)
        question = self._templates.attributes[attribute].question(template).format(name=name)
        count = 1 if kind == "review" else rng.randint(2, 5)
        pool = [self.other_value(attribute, "") for _ in range(rng.randint(1, min(count, 4)))]
        candidates = [rng.choice(pool) for _ in range(count)]
        counts = Counter(candidates)
        top = sorted(value for value, times in counts.items() if times == max(counts.values()))
        keeps_own = kind == "debate" and candidates[0] in top
        answer = candidates[0] if keeps_own else rng.choice(top)
        return chat(f"follow_{kind}", self._message(kind, question, candidates), answer, None)

    def other_value(self, attribute: str, truth: str) -> str:
        """Draw a plausible value that is not the true one."""
        while True:
            if attribute == "birth_date":
                value = random_date(self._rng)
            else:
                value = self._rng.choice(self._world.values[attribute])
            if value != truth:
                return value

    def _candidates(self, fact: Fact, count: int) -> list[str]:
        """Candidates of which a drawn share is right; the wrong ones agree with each other half the time."""
        rng = self._rng
        share = rng.choice((0.2, 0.5, 0.8)) if count > 1 else 0.5
        shared = self.other_value(fact.attribute, fact.value) if rng.random() < 0.5 else None
        return [
            fact.value if rng.random() < share else shared or self.other_value(fact.attribute, fact.value)
            for _ in range(count)
        ]

    def _message(self, kind: str, question: str, candidates: Sequence[str]) -> str:
        if kind == "review":
            return self._templates.review(question, candidates[0])
        if kind == "debate":
            return self._templates.debate(question, candidates[0], candidates[1:])
        return self._templates.aggregation(question, candidates)

    def _question_template(self, attribute: str) -> int:
        return self._rng.randrange(len(self._templates.attributes[attribute].questions))
