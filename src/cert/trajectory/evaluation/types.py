"""What an evaluation found: frozen values, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cert.reporting.data import json_ready
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.evaluation.bootstrap import Estimate
from cert.trajectory.evaluation.crossfit import CalibrationMethod
from cert.trajectory.evaluation.curves import Curves
from cert.trajectory.evaluation.probabilities import ReliabilityBin

__all__ = [
    "BASELINE", "COMBINER", "SCHEMA_VERSION", "CombinerEvaluation", "EvaluationReport", "GroupEvaluation",
    "ProbabilityEvaluation", "ScoreEvaluation",
]  # fmt: skip

SCHEMA_VERSION: Final = 1
BASELINE: Final = "msp"
COMBINER: Final = "combiner"


@dataclass(frozen=True, slots=True)
class ProbabilityEvaluation:
    """How honest a probability of being right is.

    Attributes:
        source: ``stated``: as the data have it; else how it was made of a score, by fits on other units.
        n: answers.
        brier: mean squared difference of probability and outcome.
        brier_constant: the same of the constant probability that is the accuracy of these answers.
        ece: expected calibration error. It has no interval: resampled data are less calibrated than the data.
        ece_by_chance: what the ECE of a perfectly calibrated probability would stay below in 95 % of samples
            like this one.
        bins: the reliability diagram.
    """

    source: Literal["stated", "logistic", "isotonic"]
    n: int
    brier: Estimate
    brier_constant: float
    ece: float
    ece_by_chance: float | None
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class ScoreEvaluation:
    """How well one score tells wrong answers from right ones; ``None`` is not measured.

    Attributes:
        name: of the score.
        n: answers for which it was measured; all figures are of these.
        n_wrong: wrong ones among them.
        not_measured: answers for which it is NaN.
        infinite: measured answers for which it is infinite. They count.
        auroc, auprc, prr, aurc, excess_aurc: see `cert.trajectory.evaluation.metrics`.
        difference: AUROC less that of the baseline, paired; ``None`` for the baseline itself.
        length_correlation: Spearman's, with the number of tokens.
        auroc_within_length: of pairs of answers of the same quarter by length alone.
        probability: of the score made a probability; ``None`` where it could not be fitted.
        curves: what is drawn; ``None`` where there are not both kinds of answers.
    """

    name: str
    n: int
    n_wrong: int
    not_measured: int
    infinite: int
    auroc: Estimate
    auprc: Estimate
    prr: Estimate
    aurc: Estimate
    excess_aurc: Estimate
    difference: Estimate | None
    length_correlation: float | None
    auroc_within_length: float | None
    probability: ProbabilityEvaluation | None
    curves: Curves | None


@dataclass(frozen=True, slots=True)
class GroupEvaluation:
    """The answers of one group.

    Attributes:
        name: of the group.
        n, n_units, n_wrong: its answers, its units, its wrong answers.
        error_rate: the share of wrong answers.
        auroc: by score.
    """

    name: str
    n: int
    n_units: int
    n_wrong: int
    error_rate: Estimate
    auroc: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class CombinerEvaluation:
    """Whether a combination of the signals is worth more than the best of them.

    Attributes:
        advantage: AUROC of the combiner less that of the best single score, each chosen and fitted on other
            units than it is judged on.
        used: whether the interval of the advantage is above 0.
        best_single: the best single score of all answers.
        features: the scores that it combines.
        strength: the chosen inverse of the penalty (C).
    """

    advantage: Estimate
    used: bool
    best_single: str
    features: tuple[str, ...]
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """What labelled answers say about scores.

    Attributes:
        n, n_units, n_wrong: answers, units, wrong answers.
        units_wrong, units_right: units that have a wrong answer, and a right one.
        error_rate: the share of wrong answers, with its interval over units.
        scores: in the order in which they were asked for.
        stated: of the probability of the whole answer, exp(``sequence_logprob``), as a probability of being
            right; ``None`` where it was not measured.
        combiner: ``None`` where it was not asked for.
        groups: by name; empty without groups.
        baseline: the score that differences are against; ``None`` where it is not among the scores.
        max_rejection: of the PRR.
        bins: of the ECE.
        folds: of cross-fitted probabilities.
        probabilities: how scores became probabilities.
        replicates, level, seed: of the intervals.
        rank_blocks: the number of blocks of neighbouring ranks in which the replicates, and cross-fitted
            probabilities, tell scores apart; values themselves are exact.
        conditions, data_sha256, dropped, unchecked: of the data.
        version: of this package.
    """

    n: int
    n_units: int
    n_wrong: int
    units_wrong: int
    units_right: int
    error_rate: Estimate
    scores: tuple[ScoreEvaluation, ...]
    stated: ProbabilityEvaluation | None
    combiner: CombinerEvaluation | None
    groups: tuple[GroupEvaluation, ...]
    baseline: str | None
    max_rejection: float
    bins: int
    folds: int
    probabilities: CalibrationMethod
    replicates: int
    level: float
    seed: int
    rank_blocks: int
    conditions: Conditions
    data_sha256: str
    dropped: Mapping[str, int]
    unchecked: tuple[str, ...]
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data, as ``schemas/evaluation-report.v1.json`` describes it."""
        return {"kind": "evaluation_report", "schema_version": SCHEMA_VERSION, **json_ready(self)}
