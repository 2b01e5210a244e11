"""Fits a combiner, and finds out on units that a fit has not seen whether it is worth more than one score."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError, DependencyMissingError, InfeasibleError
from cert.trajectory.calibration.combiner import CLIP, FEATURES, Combiner
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES
from cert.trajectory.evaluation.bootstrap import REPLICATES, Estimate, minority, paired_difference
from cert.trajectory.evaluation.crossfit import unit_folds
from cert.trajectory.evaluation.metrics import auroc, auroc_parts
from cert.trajectory.evaluation.ranks import Flags, Floats, Ranking
from cert.trajectory.evaluation.tally import RANK_BLOCKS

__all__ = ["STRENGTHS", "CombinerFit", "fit_combiner"]

STRENGTHS: Final = (0.001, 0.01, 0.1, 1.0, 10.0)
"""The inverse penalties C that are tried."""

_INNER: Final = 3
# More answers than these do not change which strength is the best of five.
_FOR_STRENGTH: Final = 10_000
_LEAST_MEASURED: Final = 0.99


@dataclass(frozen=True, eq=False, slots=True)
class CombinerFit:
    """A combiner, and whether to use it.

    Attributes:
        combiner: fitted on all answers. A gate has to be calibrated on others: on these its scores look
            better than they are.
        advantage: AUROC of the combiner less that of the best single score, within folds, by fits and choices
            on the other folds; with a paired interval over units.
        used: whether that interval can be trusted and is above 0. Else use the best single score.
        best_single: the score with the largest AUROC of all answers, one of `SCORES`.
        out_of_fold: (n,) the log-odds of each answer by the fit that left its unit out; NaN is not measured.
        strength: C of the combiner, chosen on inner folds.
        left_out: scores that are not combined since too few answers have them.
        not_measured: answers that have no combined score.
    """

    combiner: Combiner
    advantage: Estimate
    used: bool
    best_single: str
    out_of_fold: Floats
    strength: float
    left_out: tuple[str, ...]
    not_measured: int


def fit_combiner(
    data: LabelledData,
    *,
    folds: int = 5,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> CombinerFit:
    """Fit a combiner, and judge it on units that each fit left out.

    In each of the folds, which share no unit, the strength of the L2 penalty is chosen by log-loss on three
    inner folds of the other ones; there too the best single score is chosen, by AUROC, of all of `SCORES`. A
    score that fewer than 99 % of the answers have plays no part. An answer without one of the others is left
    out and has no combined score.

    Args:
        data: labelled answers, for nothing but this: a gate is calibrated on others.
        folds: outer folds.
        strengths: inverse penalties C to choose among.
        seed: of the folds and of the draws of units.
        replicates: draws of units for the interval.

    Raises:
        InfeasibleError: too few units of one kind for the folds.
        ConfigurationError: no strength, one that is not above 0, or fewer than two folds.
        DependencyMissingError: scikit-learn is missing.
    """
    if not strengths or not all(0 < strength < float("inf") for strength in strengths):
        raise ConfigurationError("strengths of a combiner are numbers above 0")
    wrong = ~data.correct
    columns = _measured(data)
    features = tuple(name for name in FEATURES if name in columns)
    if not features:
        raise InfeasibleError("no signal was measured for 99 % of the answers: there is nothing to combine")
    table = np.stack([columns[name] for name in features], axis=1)
    whole: Flags = np.logical_not(np.isnan(np.stack(list(columns.values()))).any(axis=0))
    _refuse_few(wrong[whole], data.units[whole], folds)
    fold = unit_folds(data.units, folds, seed)
    out_of_fold = np.full(len(data), np.nan)
    chosen = np.full(len(data), np.nan)
    for one in range(folds):
        held, other = whole & (fold == one), np.logical_and(whole, fold != one)
        combiner, _ = _fitted(features, table[other], wrong[other], data.units[other], strengths, seed)
        out_of_fold[held] = combiner.column_of(_of(data.columns, held))
        chosen[held] = columns[_best(columns, wrong, other)][held]
    combiner, strength = _fitted(features, table[whole], wrong[whole], data.units[whole], strengths, seed)
    advantage = _advantage(
        out_of_fold[whole], chosen[whole], wrong[whole], data.units[whole], fold[whole], seed, replicates
    )
    return CombinerFit(
        combiner=combiner,
        advantage=advantage,
        used=advantage.above_zero,
        best_single=_best(columns, wrong, whole),
        out_of_fold=out_of_fold,
        strength=strength,
        left_out=tuple(name for name in FEATURES if name not in features),
        not_measured=int((~whole).sum()),
    )


def _measured(data: LabelledData) -> dict[str, Floats]:
    """Return the scores that nearly all answers have: what may be combined, or be the best single one."""
    columns = {name: score.column_of(data.columns) for name, score in SCORES.items()}
    return {name: column for name, column in columns.items() if np.mean(~np.isnan(column)) >= _LEAST_MEASURED}


def _refuse_few(wrong: Flags, units: NDArray[np.int64], folds: int) -> None:
    needed = folds * _INNER - minority(wrong, units)
    if needed > 0:
        error = InfeasibleError(
            f"a combiner needs {folds * _INNER} units with a wrong answer and as many with a right one; "
            f"{needed} are missing",
            hint="use a single score, or label answers about more units",
        )
        error.needed = needed
        raise error


def _of(columns: Mapping[str, NDArray[Any]], held: Flags) -> dict[str, NDArray[Any]]:
    return {name: column[held] for name, column in columns.items()}


def _best(columns: Mapping[str, Floats], wrong: Flags, chosen: NDArray[np.bool_]) -> str:
    return max(columns, key=lambda name: auroc(columns[name][chosen], wrong[chosen]))


def _fitted(
    features: tuple[str, ...],
    table: Floats,
    wrong: Flags,
    units: NDArray[np.int64],
    strengths: Sequence[float],
    seed: int,
) -> tuple[Combiner, float]:
    """Return a combiner with the strength that inner folds choose, and that strength."""
    mean, scale = _standard(table)
    x = np.clip((table - mean) / scale, -CLIP, CLIP)
    strength = _strength(x, wrong, units, strengths, seed)
    weights, intercept = _logistic(x, wrong, strength)
    made = Combiner(features, _plain(mean), _plain(scale), _plain(weights), intercept)
    return made, strength


def _standard(table: Floats) -> tuple[Floats, Floats]:
    """Return mean and deviation of the finite values of each column; a constant one has the scale 1."""
    finite = np.where(np.isfinite(table), table, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a column without a finite value
        mean, deviation = np.nanmean(finite, axis=0), np.nanstd(finite, axis=0)
    mean = np.where(np.isfinite(mean), mean, 0.0)
    return mean, np.where(np.isfinite(deviation) & (deviation > 1e-12 * np.abs(mean)), deviation, 1.0)


def _strength(
    x: Floats, wrong: Flags, units: NDArray[np.int64], strengths: Sequence[float], seed: int
) -> float:
    if len(strengths) == 1:
        return float(strengths[0])
    if len(x) > _FOR_STRENGTH:
        kept = _some_units(units, _FOR_STRENGTH / len(x), seed)
        x, wrong, units = x[kept], wrong[kept], units[kept]
    fold = unit_folds(units, _INNER, seed + 1)
    losses = np.zeros(len(strengths))
    for one in range(_INNER):
        held = fold == one
        if wrong[~held].all() or not wrong[~held].any():
            continue  # nothing to fit; the other folds choose
        for place, strength in enumerate(strengths):
            weights, intercept = _logistic(x[~held], wrong[~held], strength)
            logit = x[held] @ weights + intercept
            losses[place] += float(np.logaddexp(0.0, np.where(wrong[held], -logit, logit)).sum())
    return float(strengths[int(np.argmin(losses))])


def _some_units(units: NDArray[np.int64], share: float, seed: int) -> Flags:
    names, member = np.unique(units, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(names)) < share * len(names)
    found: Flags = drawn[member]
    return found


def _logistic(x: Floats, wrong: Flags, strength: float) -> tuple[Floats, float]:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DependencyMissingError(
            "fitting a combiner needs scikit-learn", hint="pip install 'cert-framework[calibration]'"
        ) from error
    if wrong.all() or not wrong.any():
        raise InfeasibleError("a fold holds right or wrong answers alone", hint="use fewer folds")
    # Few columns and many rows: Newton steps on the normal equations.
    model = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-7, max_iter=200).fit(x, wrong)
    return model.coef_[0], float(model.intercept_[0])


def _advantage(
    combined: Floats,
    single: Floats,
    wrong: Flags,
    units: NDArray[np.int64],
    fold: NDArray[np.int64],
    seed: int,
    replicates: int,
) -> Estimate:
    """AUROC of the one less that of the other, of the pairs of answers in one fold."""
    return paired_difference(
        _WithinFolds(combined, wrong, fold),
        _WithinFolds(single, wrong, fold),
        units,
        seed,
        replicates=replicates,
        rarer=minority(wrong, units),
    )


class _WithinFolds:
    """AUROC of the pairs of answers of one fold, under many weightings: folds differ in their scores."""

    def __init__(self, score: Floats, wrong: Flags, fold: NDArray[np.int64]) -> None:
        self._parts = [
            (held, Ranking.of(score[held], wrong[held]).merged(RANK_BLOCKS))
            for held in (np.flatnonzero(fold == one) for one in np.unique(fold))
        ]

    def __call__(self, weights: Floats) -> Floats:
        parts = [auroc_parts(ranking.counts(weights[:, held])) for held, ranking in self._parts]
        ordered, pairs = (np.sum(side, axis=0) for side in zip(*parts, strict=True))
        with np.errstate(invalid="ignore"):
            found: Floats = ordered / pairs
        return found


def _plain(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
