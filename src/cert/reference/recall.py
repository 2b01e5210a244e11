"""What the model knows, by the number of times it saw a fact, and how well its signals say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from cert.backends.base import Generation
from cert.reference.asking import Asker
from cert.reference.scores import (
    Estimate,
    Floats,
    calibration_error,
    clustered_auroc,
    clustered_share,
    rank_correlation,
)
from cert.reference.world import Fact
from cert.signals import GenerationSignals, analyze_steps, energy

MIDDLE: Final = range(4, 65)
"""Exposures at which the model knows some facts and not others."""
CONFIDENT: Final = 0.5
ENERGY_THRESHOLDS: Final = {"perplexity_threshold": 50.0, "entropy_threshold": 2.5}

_RISES_WITH_CONFIDENCE = frozenset({
    "sequence_logprob", "mean_margin", "min_margin", "first_top_probability", "mean_self_certainty",
    "mean_confidence", "lowest_group_confidence", "bottom_group_confidence", "tail_confidence",
})  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """Greedy answers to questions about facts, as columns."""

    facts: Sequence[Fact]
    generations: Sequence[Generation]
    signals: dict[str, Floats]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each answer starts with the true value."""
        pairs = zip(self.facts, self.generations, strict=True)
        return np.array([fact.states(generation.text) for fact, generation in pairs])

    @property
    def probability(self) -> Floats:
        """Probability of the whole answer."""
        return np.exp(self.signals["sequence_logprob"])

    @property
    def people(self) -> npt.NDArray[np.int64]:
        """Index of the person of each fact."""
        return np.array([fact.person.index for fact in self.facts])

    @property
    def exposures(self) -> npt.NDArray[np.int64]:
        """Exposure count of each fact."""
        return np.array([fact.exposures for fact in self.facts])

    @property
    def never_seen(self) -> npt.NDArray[np.bool_]:
        """Whether the person was never mentioned in training."""
        return np.array([fact.person.never_seen for fact in self.facts])


def answer_questions(asker: Asker, facts: Sequence[Fact]) -> Answers:
    """Ask about each fact in a chat, in the held-out wording, and compute the signals of the answers."""
    generations = asker.chat([fact.question() for fact in facts])
    return Answers(facts, generations, _signals(generations))


def complete_sentences(asker: Asker, facts: Sequence[Fact]) -> npt.NDArray[np.bool_]:
    """Whether the model completes each held-out sentence with the true value."""
    generations = asker.continue_text([fact.sentence_prefix() for fact in facts])
    return np.array([fact.states(done.text) for fact, done in zip(facts, generations, strict=True)])


def _signals(generations: Sequence[Generation]) -> dict[str, Floats]:
    rows = []
    for generation in generations:
        step, _, summary = analyze_steps(generation.steps)
        both = energy(step.surprisal, step.entropy_upper, **ENERGY_THRESHOLDS)
        rows.append((summary, float(both.mean()) if len(both) else float("nan")))
    names = [field.name for field in fields(GenerationSignals)]
    columns = {name: np.array([float(getattr(row[0], name)) for row in rows]) for name in names}
    return {**columns, "mean_energy": np.array([row[1] for row in rows])}


@dataclass(frozen=True, slots=True)
class RecallRow:
    """Recall at one exposure count."""

    exposures: int
    sentence: Estimate
    chat: Estimate
    confident_errors: Estimate
    """Share of all chat answers that are wrong with probability above one half."""
    mean_probability: float | None
    """Mean probability of the chat answers: above the recall means overconfident."""


def recall_table(
    facts: Sequence[Fact], completed: npt.NDArray[np.bool_], answers: Answers
) -> list[RecallRow]:
    """Recall by exposure of people who were mentioned in training but never asked about."""
    people = np.array([fact.person.index for fact in facts])
    exposures = np.array([fact.exposures for fact in facts])
    mentioned = np.array([not fact.person.never_seen for fact in facts])
    confident = ~answers.right & (answers.probability > CONFIDENT)
    rows = []
    for count in sorted(set(exposures[mentioned].tolist())):
        told = mentioned & (exposures == count)
        asked = ~answers.never_seen & (answers.exposures == count)
        rows.append(
            RecallRow(
                exposures=count,
                sentence=clustered_share(completed[told], people[told]),
                chat=clustered_share(answers.right[asked], answers.people[asked]),
                confident_errors=clustered_share(confident[asked], answers.people[asked]),
                mean_probability=float(answers.probability[asked].mean()) if asked.any() else None,
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class SignalRow:
    """How well one signal tells wrong answers from right ones, oriented so that 1 is perfect."""

    signal: str
    seen_people: Estimate
    """All exposures, people never seen left out."""
    middle: Estimate
    """Exposures 4 to 64."""
    everyone: Estimate
    """People never seen included."""
    length_correlation: float | None
    """Spearman's correlation with the number of tokens of the answer."""


def signal_table(answers: Answers, extra: dict[str, Floats], seed: int) -> list[SignalRow]:
    """AUROC of every signal; ``extra`` holds further scores that rise with confidence, such as P(True)."""
    everyone = np.ones(len(answers.facts), bool)
    rows = []
    for name, values in {**answers.signals, **extra}.items():
        score = -values if name in _RISES_WITH_CONFIDENCE or name in extra else values
        rows.append(
            SignalRow(
                signal=name,
                seen_people=_auroc(answers, score, ~answers.never_seen, seed),
                middle=_auroc(answers, score, np.isin(answers.exposures, MIDDLE), seed),
                everyone=_auroc(answers, score, everyone, seed),
                length_correlation=rank_correlation(score, answers.signals["n_tokens"]),
            )
        )
    return rows


def _auroc(answers: Answers, score: Floats, scope: npt.NDArray[np.bool_], seed: int) -> Estimate:
    return clustered_auroc(score[scope], ~answers.right[scope], answers.people[scope], seed)


def expected_calibration_error(answers: Answers) -> float:
    """ECE of the answers' probability, people never seen left out."""
    seen = ~answers.never_seen
    return calibration_error(answers.probability[seen], answers.right[seen])
