"""What each score is worth on labelled answers, with intervals over units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from cert._version import __version__
from cert.core.errors import ConfigurationError, InfeasibleError, InputError
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES, GateScore, score_named
from cert.trajectory.evaluation.bootstrap import LEVEL, REPLICATES, Resampling, minority
from cert.trajectory.evaluation.crossfit import FOLDS, CalibrationMethod, cross_fitted, unit_folds
from cert.trajectory.evaluation.curves import Curves, histogram, risk_coverage, roc
from cert.trajectory.evaluation.groups import group_evaluations
from cert.trajectory.evaluation.metrics import MAX_REJECTION, auroc_parts
from cert.trajectory.evaluation.probabilities import BINS, mass_bins
from cert.trajectory.evaluation.probability_evaluation import probability_evaluation
from cert.trajectory.evaluation.ranks import Flags, Floats, Ranking
from cert.trajectory.evaluation.shares import clustered_share, rank_correlation
from cert.trajectory.evaluation.tally import RANK_BLOCKS, Tally, difference, draw, measures
from cert.trajectory.evaluation.types import (
    BASELINE,
    COMBINER,
    CombinerEvaluation,
    EvaluationReport,
    ProbabilityEvaluation,
    ScoreEvaluation,
)

if TYPE_CHECKING:
    from cert.trajectory.calibration.combiner_fit import CombinerFit

__all__ = ["evaluate_scores"]

_STRATA: Final = 4


def evaluate_scores(
    data: LabelledData,
    scores: Sequence[str | GateScore] | None = None,
    *,
    combiner: bool = False,
    seed: int = 0,
    replicates: int = REPLICATES,
    max_rejection: float = MAX_REJECTION,
    probabilities: CalibrationMethod = "logistic",
) -> EvaluationReport:
    """Judge scores on labelled answers; the same data and seed give the same report.

    Args:
        data: answers with labels and signals.
        scores: names or scores; all of `SCORES` without them.
        combiner: also fit a combiner of the signals by cross-fitting, and judge it on the units that each
            fit left out. Needs scikit-learn.
        seed: of the draws of units and of the folds.
        replicates: draws of units for each interval, at least 200.
        max_rejection: the largest share of answers that the PRR rejects, in (0, 1].
        probabilities: how a score becomes a probability, by fits on other units.

    Raises:
        InfeasibleError: all answers are right, or all are wrong.
        ConfigurationError: a score that there is not or that occurs twice, too few replicates, a share that
            is none.
        InputError: a column that the data do not have, or more groups than can be shown.
        DependencyMissingError: ``combiner`` without scikit-learn.
    """
    wanted = _wanted(scores)
    wrong = ~data.correct
    _refuse_one_kind(data, wrong)
    columns = {score.name: _column(score, data) for score in wanted}
    fit = _combined(data, columns, seed, replicates) if combiner else None
    ranked = measures(max_rejection)
    resampling = Resampling(data.units, replicates, seed)
    tallies = {name: Tally(column, wrong, ranked) for name, column in columns.items()}
    fold = unit_folds(data.units, max(2, min(FOLDS, data.n_units)), seed)
    right = [_probability(tally, fold, probabilities) for tally in tallies.values()]
    stated = _stated(data)
    loss = np.stack([(p - data.correct) ** 2 for p in (*right, stated)], axis=1)
    *briers, brier_stated = draw(list(tallies.values()), loss, resampling).T
    judged = [
        probability_evaluation(p, data, drawn, probabilities, seed)
        for p, drawn in zip(right, briers, strict=True)
    ]
    base = tallies.get(BASELINE)
    return EvaluationReport(
        n=len(data),
        n_units=data.n_units,
        n_wrong=int(wrong.sum()),
        units_wrong=len(np.unique(data.units[wrong])),
        units_right=len(np.unique(data.units[~wrong])),
        error_rate=clustered_share(wrong, data.units),
        scores=tuple(
            _evaluation(name, columns[name], tally, base, data, probability)
            for (name, tally), probability in zip(tallies.items(), judged, strict=True)
        ),
        stated=probability_evaluation(stated, data, brier_stated, "stated", seed),
        combiner=None if fit is None else _told(fit),
        groups=group_evaluations(data, columns, replicates, seed),
        baseline=None if base is None else BASELINE,
        max_rejection=max_rejection,
        bins=BINS,
        folds=int(fold.max()) + 1,
        probabilities=probabilities,
        replicates=replicates,
        level=LEVEL,
        seed=seed,
        rank_blocks=RANK_BLOCKS,
        conditions=data.conditions,
        data_sha256=data.sha256,
        dropped=dict(data.dropped),
        unchecked=data.unchecked,
        version=__version__,
    )


def _wanted(scores: Sequence[str | GateScore] | None) -> list[GateScore]:
    given: Sequence[str | GateScore] = tuple(SCORES) if scores is None else scores
    found = [score_named(one) if isinstance(one, str) else one for one in given]
    names = [score.name for score in found]
    if len(set(names)) != len(names):
        raise ConfigurationError("a score is asked for twice")
    if not names:
        raise ConfigurationError("no score is asked for", hint=f"one of {', '.join(SCORES)}")
    return found


def _refuse_one_kind(data: LabelledData, wrong: Flags) -> None:
    if not len(data):
        raise InfeasibleError("there are no labelled answers")
    for all_of, kind, other in ((wrong, "wrong", "right"), (~wrong, "right", "wrong")):
        if all_of.all():
            error = InfeasibleError(
                f"all {len(data)} labelled answers are {kind}: nothing tells a score's worth",
                hint=f"label answers of which some are {other}",
            )
            error.needed = 1
            raise error


def _column(score: GateScore, data: LabelledData) -> Floats:
    try:
        found = np.asarray(score.column_of(data.columns), dtype=np.float64)
    except KeyError as error:
        raise InputError(f"the data have no column {error} for the score '{score.name}'") from error
    if found.shape != (len(data),):
        raise InputError(f"the score '{score.name}' gives {found.shape} numbers for {len(data)} answers")
    return found


def _combined(data: LabelledData, columns: dict[str, Floats], seed: int, replicates: int) -> CombinerFit:
    from cert.trajectory.calibration.combiner_fit import fit_combiner

    if COMBINER in columns:
        raise ConfigurationError(f"a score is called '{COMBINER}' already")
    fit = fit_combiner(data, seed=seed, replicates=replicates)
    columns[COMBINER] = fit.out_of_fold
    return fit


def _told(fit: CombinerFit) -> CombinerEvaluation:
    return CombinerEvaluation(
        fit.advantage, fit.used, fit.best_single, tuple(fit.combiner.features), fit.strength
    )


def _probability(tally: Tally, fold: NDArray[np.int64], method: CalibrationMethod) -> Floats:
    found = np.full(len(tally.kept), np.nan)
    found[tally.kept] = cross_fitted(tally.coarse, fold[tally.kept], method)
    return found


def _stated(data: LabelledData) -> Floats:
    column = data.columns.get("sequence_logprob")
    return np.full(len(data), np.nan) if column is None else np.exp(np.asarray(column, dtype=np.float64))


def _evaluation(
    name: str,
    score: Floats,
    tally: Tally,
    base: Tally | None,
    data: LabelledData,
    probability: ProbabilityEvaluation | None,
) -> ScoreEvaluation:
    wrong, measured = ~data.correct[tally.kept], score[tally.kept]
    rarer = minority(wrong, data.units[tally.kept])
    length = data.columns.get("n_tokens")
    both = bool(wrong.any() and not wrong.all())
    found = {name: tally.estimate(name, rarer) for name in tally.value}
    return ScoreEvaluation(
        name=name,
        n=len(measured),
        n_wrong=int(wrong.sum()),
        not_measured=int((~tally.kept).sum()),
        infinite=int(np.isinf(measured).sum()),
        **found,
        difference=None if base is None or base is tally else difference(tally, base, "auroc", rarer),
        length_correlation=None if length is None else rank_correlation(score, length.astype(np.float64)),
        auroc_within_length=None if length is None else _within(measured, wrong, length[tally.kept]),
        probability=probability,
        curves=_curves(tally.ranking, measured, wrong) if both else None,
    )


def _within(score: Floats, wrong: Flags, length: NDArray[np.float64]) -> float | None:
    """AUROC of the pairs of answers of one quarter by length."""
    stratum = mass_bins(length, _STRATA)
    ordered = pairs = 0.0
    for one in np.unique(stratum):
        held = stratum == one
        right_order, all_pairs = auroc_parts(Ranking.of(score[held], wrong[held]).counts())
        ordered, pairs = ordered + float(right_order[0]), pairs + float(all_pairs[0])
    return ordered / pairs if pairs else None


def _curves(ranking: Ranking, score: Floats, wrong: Flags) -> Curves:
    counts = ranking.counts()
    return Curves(*risk_coverage(counts), *roc(counts), histogram(score, wrong))
