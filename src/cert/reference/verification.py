"""P(True): whether the model can tell true answers from false ones when asked (arXiv 2207.05221)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from cert.reference.asking import Asker
from cert.reference.scores import Estimate, Floats, clustered_auroc
from cert.reference.templates import Templates
from cert.reference.world import Fact, World


@dataclass(frozen=True, slots=True)
class VerificationRow:
    """AUROC of P(True) on proposals half of which are true, at one exposure count."""

    exposures: int
    auroc: Estimate
    mean_on_true: float
    mean_on_false: float


def p_true_of_answers(
    asker: Asker, facts: Sequence[Fact], answers: Sequence[str], templates: Templates
) -> Floats:
    """P(True) of the model's own answers to the held-out questions."""
    pairs = zip(facts, answers, strict=True)
    messages = [templates.p_true(fact.question(), answer) for fact, answer in pairs]
    return np.array(asker.p_true(messages, templates.true, templates.false))


def verification_table(
    asker: Asker, world: World, facts: Sequence[Fact], templates: Templates, seed: int
) -> list[VerificationRow]:
    """Propose the truth and one plausible falsehood for each fact."""
    rng = Random(seed)  # noqa: S311  # a repeatable evaluation
    proposals = []
    for fact in facts:
        others = [value for value in world.values[fact.attribute] if value != fact.value]
        proposals += [fact.value, rng.choice(others)]
    doubled = [fact for fact in facts for _ in range(2)]
    score = p_true_of_answers(asker, doubled, proposals, templates)
    false = np.arange(len(doubled)) % 2 == 1
    people = np.array([fact.person.index for fact in doubled])
    exposures = np.array([fact.exposures for fact in doubled])
    rows = []
    for count in sorted(set(exposures.tolist())):
        at = exposures == count
        rows.append(
            VerificationRow(
                exposures=count,
                auroc=clustered_auroc(-score[at], false[at], people[at], seed),
                mean_on_true=float(np.nanmean(score[at & ~false])),
                mean_on_false=float(np.nanmean(score[at & false])),
            )
        )
    return rows
