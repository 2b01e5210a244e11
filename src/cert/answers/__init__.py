"""Answers compared: normalised, read as numbers, extracted, matched, and clustered by what they say.

Pure: no input or output, no model. What a rule cannot decide is ``None``, which is *not measured*.
"""

from cert.answers.cluster import Clustering, cluster, cluster_async
from cert.answers.entailment import Entailment, EntailmentEquivalence, EntailmentLabel
from cert.answers.equivalence import (
    AsyncCascade,
    AsyncEquivalence,
    Cascade,
    Equivalence,
    MatcherEquivalence,
)
from cert.answers.extract import EXTRACTORS, Extraction, Extractor, extract
from cert.answers.judge import AsyncJudge, Judge, Judgement, JudgeRequest
from cert.answers.judged import AsyncJudgeEquivalence, JudgeEquivalence
from cert.answers.match import (
    CallableMatcher,
    ChoiceMatcher,
    ExactMatcher,
    Matcher,
    NormalizedMatcher,
    NumericMatcher,
    RegexMatcher,
    matches_any,
)
from cert.answers.normalize import Normalization, squad_normalize
from cert.answers.numbers import Number, find_numbers, parse_number, same_number

__all__ = [
    "EXTRACTORS",
    "AsyncCascade",
    "AsyncEquivalence",
    "AsyncJudge",
    "AsyncJudgeEquivalence",
    "CallableMatcher",
    "Cascade",
    "ChoiceMatcher",
    "Clustering",
    "Entailment",
    "EntailmentEquivalence",
    "EntailmentLabel",
    "Equivalence",
    "ExactMatcher",
    "Extraction",
    "Extractor",
    "Judge",
    "JudgeEquivalence",
    "JudgeRequest",
    "Judgement",
    "Matcher",
    "MatcherEquivalence",
    "Normalization",
    "NormalizedMatcher",
    "Number",
    "NumericMatcher",
    "RegexMatcher",
    "cluster",
    "cluster_async",
    "extract",
    "find_numbers",
    "matches_any",
    "parse_number",
    "same_number",
    "squad_normalize",
]
