"""Several answers to one prompt: do they say the same, and how sure was the model of what they say?"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from cert.answers import (
    AsyncEquivalence,
    AsyncJudge,
    AsyncJudgeEquivalence,
    Clustering,
    Entailment,
    EntailmentEquivalence,
    Equivalence,
    Judge,
    JudgeEquivalence,
    MatcherEquivalence,
    NormalizedMatcher,
    cluster,
    cluster_async,
)
from cert.backends.base import Prompt, Sampling
from cert.core.errors import ConfigurationError
from cert.signals.samples import SampleSignals, sample_signals
from cert.trajectory.gate import json_number
from cert.trajectory.types import TrajectoryAnalysis

__all__ = [
    "Sameness",
    "SamplesAnalysis",
    "as_equivalence",
    "cluster_answers",
    "cluster_answers_async",
    "sample_seeds",
    "synchronous_rule",
]

Sameness: TypeAlias = Equivalence | AsyncEquivalence | Entailment | Judge | AsyncJudge

_MOST_SAMPLES = 1000


@dataclass(frozen=True, eq=False)
class SamplesAnalysis:
    """n answers to one prompt, put together by what they say.

    Attributes:
        analyses: of each answer, in the order of their seeds.
        clustering: which of them say the same, and by what rule.
        finest, coarsest: the signals if what the rule left undecided is different, and if it is the same.
    """

    analyses: tuple[TrajectoryAnalysis, ...]
    clustering: Clustering
    finest: SampleSignals
    coarsest: SampleSignals

    @classmethod
    def of(cls, analyses: Sequence[TrajectoryAnalysis], clustering: Clustering) -> SamplesAnalysis:
        """Compute the signals of answers that have been clustered.

        The probability of an answer is that of its tokens; the decision to stop is no part of it, since a
        server does not show it (ADR 0003). An answer of no tokens has none, which leaves what is weighted
        by probability unmeasured.
        """
        logprobs = [analysis.signals.sequence_logprob for analysis in analyses]
        lengths = [analysis.generation_steps for analysis in analyses]
        finest = sample_signals(clustering.finest, logprobs, lengths)
        decided = clustering.labels is not None
        coarsest = finest if decided else sample_signals(clustering.coarsest, logprobs, lengths)
        return cls(tuple(analyses), clustering, finest, coarsest)

    @property
    def signals(self) -> SampleSignals | None:
        """The signals; ``None`` (not measured) where undecided pairs leave the clusters open."""
        return None if self.clustering.labels is None else self.finest

    @property
    def majority_answer(self) -> str | None:
        """The first answer of the largest cluster; ``None`` on a tie, or where clusters are open."""
        labels, signals = self.clustering.labels, self.signals
        if labels is None or signals is None or len(signals.largest_clusters) != 1:
            return None
        return self.analyses[labels.index(signals.largest_clusters[0])].generated_text

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "schema_version": 1,
            "kind": "samples_analysis",
            "majority_answer": self.majority_answer,
            "clustering": asdict(self.clustering),
            "signals": None if self.signals is None else _json(self.signals),
            "finest": _json(self.finest),
            "coarsest": _json(self.coarsest),
            "analyses": [analysis.to_dict() for analysis in self.analyses],
        }


def as_equivalence(sameness: Sameness | None) -> Any:
    """Return the rule by which answers are compared, an `Equivalence` or an `AsyncEquivalence`.

    ``None`` compares texts after normalisation: right for short answers, and too strict for sentences, of
    which two seldom have the same words.

    Raises:
        ConfigurationError: it is none of the kinds that can compare answers.
    """
    given: Any = MatcherEquivalence(NormalizedMatcher()) if sameness is None else sameness
    for method, wrap in _KINDS:
        if callable(getattr(given, method, None)):
            return wrap(given)
    raise ConfigurationError(
        f"answers cannot be compared by a {type(given).__name__}",
        hint="give an Equivalence, an Entailment or a Judge of cert.answers",
    )


_KINDS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("same", lambda rule: rule),
    ("same_async", lambda rule: rule),
    ("classify", EntailmentEquivalence),
    ("judge", JudgeEquivalence),
    ("judge_async", AsyncJudgeEquivalence),
)


def synchronous_rule(sameness: Sameness | None) -> Equivalence:
    """Return the rule for code that cannot wait for a network.

    Raises:
        ConfigurationError: the rule is asynchronous.
    """
    rule = as_equivalence(sameness)
    if not hasattr(rule, "same"):
        raise ConfigurationError(f"the rule '{rule.name}' is asynchronous", hint="analyze_samples_async()")
    chosen: Equivalence = rule
    return chosen


def cluster_answers(prompt: Prompt, analyses: Sequence[TrajectoryAnalysis], rule: Equivalence) -> Clustering:
    """Put the answers together by what they say.

    Raises:
        CertError: the rule cannot be used.
    """
    return cluster(_question(prompt), [a.generated_text for a in analyses], rule)


async def cluster_answers_async(
    prompt: Prompt, analyses: Sequence[TrajectoryAnalysis], rule: Any
) -> Clustering:
    """Do the same while other tasks run; the rule may be an `AsyncEquivalence`."""
    if not hasattr(rule, "same_async"):
        return await asyncio.to_thread(cluster_answers, prompt, analyses, rule)
    answers = [analysis.generated_text for analysis in analyses]
    clustering: Clustering = await cluster_async(_question(prompt), answers, rule)
    return clustering


def sample_seeds(n: int, seed: int | None) -> list[int]:
    """Return n different seeds, the same for the same ``seed``; the first m of n are those of m.

    Raises:
        ConfigurationError: n is not from 1 to 1,000, or no request may have such a seed.
    """
    Sampling(seed=seed)  # what is refused of one answer: Random would take -7 for 7
    if type(n) is not int or not 1 <= n <= _MOST_SAMPLES:
        raise ConfigurationError(f"n must be a whole number from 1 to {_MOST_SAMPLES:,}, not {n!r}")
    numbers = random.Random(secrets.randbits(63) if seed is None else seed)  # noqa: S311  # to sample with
    return [numbers.getrandbits(62) for _ in range(n)]


def _question(prompt: Prompt) -> str:
    """The last thing that the user said: what came before is no part of what the answers are compared on."""
    if isinstance(prompt, str):
        return prompt
    return next((m.content for m in reversed(prompt) if m.role == "user"), prompt[-1].content)


def _json(signals: SampleSignals) -> dict[str, Any]:
    return {
        name: json_number(value) if isinstance(value, float) else value
        for name, value in asdict(signals).items()
    }
