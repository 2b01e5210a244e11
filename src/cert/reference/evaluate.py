"""Evaluate a reference model against the exact truth of its world.

Everything is asked in held-out wordings; questions are only about people whose questions were never trained.
The run is seeded: the same model, seed and limit give the same numbers on the same machine.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from cert.backends.base import Backend
from cert.backends.local import LocalBackend
from cert.core.errors import InputError
from cert.reference.asking import Asker
from cert.reference.export import METADATA, processor, source_state
from cert.reference.probes import probe_table
from cert.reference.recall import (
    MIDDLE,
    Answers,
    RecallRow,
    SignalRow,
    answer_questions,
    complete_sentences,
    expected_calibration_error,
    recall_table,
    signal_table,
)
from cert.reference.team import Rate, team_table
from cert.reference.templates import Templates, load_templates
from cert.reference.verification import VerificationRow, p_true_of_answers, verification_table
from cert.reference.world import FILE_NAME, Fact, World, load_world

SCHEMA_VERSION: Final = 1
TEAM_QUESTIONS: Final = 600
PROBES: Final = 200
WELL_KNOWN: Final = 128
LIMITS: Final = (
    "A model of two million parameters about an invented world: it shows that the machinery is right and how"
    " signals rank here, not how they do on a large instruction-tuned model.",
    "Questions are in one held-out wording and about people whose questions were never trained; a shift of"
    " wording or temperature moves every number.",
    "The model reads the coordination templates only in part, and one of this size may verify nothing: see"
    " the tables on P(True) and on candidates before using either for more than exercising the machinery.",
    "People never seen are reported apart.",
    "Intervals are 95 % intervals over people (Wilson for shares, bootstrap for AUROC), for one trained"
    " model: they do not cover the spread between training seeds, and with few wrong answers a bootstrap of"
    " AUROC covers less.",
    "Of an exposure, some show a fact among false ones (a proposal, a peer's answer) and teach less than a"
    " statement of it.",
)


@dataclass(frozen=True)
class Evaluation:
    """All results of one run, with what they were measured on."""

    model: dict[str, Any]
    run: dict[str, Any]
    recall: list[RecallRow]
    never_seen: dict[str, float | int | None]
    expected_calibration_error: float
    signals: list[SignalRow]
    verification: list[VerificationRow]
    team: list[Rate]
    probes: list[Rate]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "limits": list(LIMITS)}


def evaluate(
    folder: Path,
    *,
    seed: int = 0,
    limit: int | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate the model in a folder that ``cert reference train`` wrote.

    Args:
        folder: the model, with its world beside it.
        seed: seed of samples, probes and bootstrap.
        limit: at most so many facts at each exposure count, for a quick look; all by default.
        advance: called with (prompts answered so far, estimate of all prompts).

    Raises:
        InputError: the folder holds no world, so that nothing is known about the truth.
    """
    if not (folder / FILE_NAME).is_file():
        raise InputError(f"{folder} holds no {FILE_NAME}: only a reference model can be evaluated")
    backend = LocalBackend.load(str(folder))
    return Evaluator(backend, folder, seed, limit, advance).run()


class Evaluator:
    """One evaluation: the choice of facts, and the order in which things are asked."""

    def __init__(
        self,
        backend: Backend,
        folder: Path,
        seed: int,
        limit: int | None,
        advance: Callable[[int, int], None] | None,
    ) -> None:
        self._world: World = load_world(folder)
        self._templates: Templates = load_templates(self._world.templates_version)
        self._folder = folder
        self._seed = seed
        self._limit = limit
        self._asked = self._choose([f for f in self._world.facts if not f.person.question_person])
        middle = [fact for fact in self._asked if fact.exposures in MIDDLE]
        self._team = self._sample(middle, TEAM_QUESTIONS)
        self._known = self._sample([f for f in self._asked if f.exposures >= WELL_KNOWN], PROBES)
        done = 0

        def count(answered: int) -> None:
            nonlocal done
            done += answered
            if advance is not None:
                advance(done, self._prompts())

        self._asker = Asker(backend, seed, count)

    def run(self) -> Evaluation:
        """Ask everything and reckon."""
        completed = complete_sentences(self._asker, self._asked)
        answers = answer_questions(self._asker, self._asked)
        texts = [generation.text for generation in answers.generations]
        own = p_true_of_answers(self._asker, self._asked, texts, self._templates)
        return Evaluation(
            model=_metadata(self._folder),
            run=self._describe(),
            recall=recall_table(self._asked, completed, answers),
            never_seen=_never_seen(answers),
            expected_calibration_error=expected_calibration_error(answers),
            signals=signal_table(answers, {"p_true": own}, self._seed),
            verification=verification_table(
                self._asker, self._world, self._asked, self._templates, self._seed
            ),
            team=team_table(self._asker, self._team, self._templates),
            probes=probe_table(
                self._asker, self._world, self._known, self._templates, self._seed, self._probe_count()
            ),
        )

    def _choose(self, facts: Sequence[Fact]) -> list[Fact]:
        """Return at most ``limit`` facts of each exposure count, in the order of the world."""
        if self._limit is None:
            return list(facts)
        by_count: dict[int, list[Fact]] = {}
        for fact in facts:
            by_count.setdefault(fact.exposures, []).append(fact)
        chosen = {id(f) for group in by_count.values() for f in self._sample(group, self._limit)}
        return [fact for fact in facts if id(fact) in chosen]

    def _sample(self, facts: Sequence[Fact], count: int) -> list[Fact]:
        return Random(self._seed).sample(facts, min(count, len(facts)))  # noqa: S311  # repeatable

    def _probe_count(self) -> int:
        return PROBES if self._limit is None else min(PROBES, self._limit)

    def _prompts(self) -> int:
        questions = 5 * len(self._asked)  # sentence, answer, its P(True), a true and a false proposal
        return questions + 9 * len(self._team) + 7 * self._probe_count() + 5 * len(self._known)

    def _describe(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "limit": self._limit,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": source_state(),
            "hardware": processor(),
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("torch", "transformers", "numpy")},
            },
        }


def _metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    return found


def _never_seen(answers: Answers) -> dict[str, float | int | None]:
    """People who occur nowhere in training, apart from everyone else."""
    apart = answers.never_seen
    if not apart.any():
        return {"answers": 0, "right": None, "mean_probability": None}
    return {
        "answers": int(apart.sum()),
        "right": float(np.mean(answers.right[apart])),
        "mean_probability": float(np.mean(answers.probability[apart])),
    }


__all__ = ["LIMITS", "Evaluation", "Evaluator", "evaluate"]
