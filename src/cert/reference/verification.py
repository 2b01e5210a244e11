"""P(True): whether the model can tell true answers from false ones when asked (arXiv 2207.05221)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
import numpy.typing as npt

from cert.reference.asking import TEMPERATURE_ONE, Asker
from cert.reference.scores import Estimate, Floats, clustered_auroc
from cert.reference.templates import Templates
from cert.reference.world import Fact, World

IDEAS: Final = 4


@dataclass(frozen=True, slots=True)
class Sampled:
    """Facts with the model's own samples at temperature 1 to the held-out questions."""

    facts: Sequence[Fact]
    ideas: Sequence[tuple[str, ...]]

    def agreement(self, answers: Sequence[str]) -> Floats:
        """Share of the samples that equal each answer (self-consistency)."""
        pairs = zip(self.ideas, answers, strict=True)
        return np.array([ideas.count(answer.strip()) / len(ideas) for ideas, answer in pairs])


@dataclass(frozen=True, slots=True)
class VerificationRow:
    """P(True) of a true and of a plausible false proposal, at one exposure count."""

    exposures: int
    with_ideas: Estimate
    """AUROC when the prompt shows the model's own samples."""
    bare: Estimate
    """AUROC of the prompt without them."""
    mean_on_true: float
    """Mean P(True) with ideas."""
    mean_on_false: float


def sample_ideas(asker: Asker, facts: Sequence[Fact], templates: Templates) -> Sampled:
    """Ask each question a few times at temperature 1."""
    questions = [templates.vote(fact.question()) for fact in facts]
    rounds = [asker.texts(questions, TEMPERATURE_ONE) for _ in range(IDEAS)]
    return Sampled(facts, list(zip(*rounds, strict=True)))


def p_true(
    asker: Asker, sampled: Sampled, answers: Sequence[str], templates: Templates, *, ideas: bool
) -> Floats:
    """P(True) of an answer to each question, with or without the samples in the prompt."""
    rows = zip(sampled.facts, sampled.ideas, answers, strict=True)
    messages = [templates.p_true(f.question(), answer, shown if ideas else ()) for f, shown, answer in rows]
    return np.array(asker.p_true(messages, templates.true, templates.false))


def verification_table(
    asker: Asker, world: World, sampled: Sampled, templates: Templates, seed: int
) -> list[VerificationRow]:
    """Propose the truth and one plausible falsehood for each fact."""
    rng = Random(seed)  # noqa: S311  # to be repeatable
    true = [fact.value for fact in sampled.facts]
    false = [
        rng.choice([value for value in world.values[fact.attribute] if value != fact.value])
        for fact in sampled.facts
    ]
    shown = [p_true(asker, sampled, answers, templates, ideas=True) for answers in (true, false)]
    bare = [p_true(asker, sampled, answers, templates, ideas=False) for answers in (true, false)]
    exposures = np.array([fact.exposures for fact in sampled.facts])
    people = np.array([fact.person.index for fact in sampled.facts])
    rows = []
    for count in sorted(set(exposures.tolist())):
        at = exposures == count
        rows.append(
            VerificationRow(
                exposures=count,
                with_ideas=_auroc(shown[0][at], shown[1][at], people[at], seed),
                bare=_auroc(bare[0][at], bare[1][at], people[at], seed),
                mean_on_true=float(np.nanmean(shown[0][at])),
                mean_on_false=float(np.nanmean(shown[1][at])),
            )
        )
    return rows


def _auroc(true: Floats, false: Floats, people: npt.NDArray[np.int64], seed: int) -> Estimate:
    score = -np.concatenate([true, false])
    wrong = np.arange(len(score)) >= len(true)
    return clustered_auroc(score, wrong, np.concatenate([people, people]), seed)


__all__ = ["Sampled", "VerificationRow", "p_true", "sample_ideas", "verification_table"]
