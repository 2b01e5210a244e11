"""Whether one text follows from another (natural language inference), and equivalence by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cert.answers.equivalence import Pair, checked

__all__ = ["Entailment", "EntailmentEquivalence", "EntailmentLabel"]


class EntailmentLabel(StrEnum):
    """What a premise says of a hypothesis."""

    ENTAILMENT = "entailment"
    NEUTRAL = "neutral"
    CONTRADICTION = "contradiction"


class Entailment(Protocol):
    """Labels pairs of premise and hypothesis, a whole batch at a time."""

    @property
    def name(self) -> str:
        """Which model labels, with all that changes its labels, for records."""
        ...

    def classify(self, pairs: Sequence[Pair], /) -> Sequence[EntailmentLabel | None]:
        """Return one label a pair, in their order; ``None`` where the pair could not be labelled.

        Raises:
            CertError: the model cannot be used at all.
        """
        ...


@dataclass(frozen=True, slots=True)
class EntailmentEquivalence:
    """Two answers are the same if each follows from the other (Kuhn et al., arXiv 2302.09664).

    Attributes:
        entailment: labels the pairs.
        strict: both directions must be entailment. Otherwise one is enough, if neither is a contradiction
            and the other is neutral (the looser option of the code of Farquhar et al., Nature 630, 2024).
        with_question: put the question before each answer, as Farquhar et al. do with DeBERTa: "Paris" and
            "in Paris" are hard to compare without it.
    """

    entailment: Entailment
    strict: bool = True
    with_question: bool = True

    @property
    def name(self) -> str:
        """The rule and its model."""
        manner = "strict" if self.strict else "loose"
        return f"entailment({self.entailment.name}, {manner}{', question' if self.with_question else ''})"

    def same(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:
        """Return for each pair whether both directions hold; ``None`` where a needed label is missing."""
        shown = [self._shown(question, pair) for pair in pairs]
        labels = checked(
            self.entailment.classify([*shown, *((b, a) for a, b in shown)]), 2 * len(pairs), self.name
        )
        return [
            self._decide(forth, back)
            for forth, back in zip(labels[: len(pairs)], labels[len(pairs) :], strict=True)
        ]

    def _shown(self, question: str, pair: Pair) -> Pair:
        if not self.with_question or not question:
            return pair
        return f"{question} {pair[0]}", f"{question} {pair[1]}"

    def _decide(self, forth: EntailmentLabel | None, back: EntailmentLabel | None) -> bool | None:
        labels = {forth, back}
        if EntailmentLabel.CONTRADICTION in labels or (self.strict and EntailmentLabel.NEUTRAL in labels):
            return False
        if None in labels:
            return None
        return EntailmentLabel.ENTAILMENT in labels
