"""From labelled answers to a certificate: choose, find the threshold, and measure what it achieves.

Each of the three is done on units of its own. What is chosen (a score, the weights of a combiner) is chosen
on the *tuning* part, the threshold comes from the *calibration* part, and what it achieves is measured on the
*held-out* part. A promise that was calibrated on answers that a choice was made on does not hold.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cert._version import __version__
from cert.core.errors import ConfigurationError, InputError
from cert.trajectory.calibration.achieved import achieved_on, thresholds_of
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.certificate_parts import (
    Achieved,
    Quantiles,
    ScoreQuantiles,
    Share,
)
from cert.trajectory.calibration.goals import find_threshold, find_thresholds_by_group
from cert.trajectory.calibration.goals.types import Goal, Threshold
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.parts import TUNING_SHARE, Parts, group_names, parts_of
from cert.trajectory.calibration.score_choice import CHOSEN, chosen_score
from cert.trajectory.calibration.score_json import json_of
from cert.trajectory.calibration.scores import GateScore, needs_full_vocabulary, path_of, score_named
from cert.trajectory.calibration.splits import one_per_unit

__all__ = ["calibrate"]

_PACKAGES: Final = ("numpy", "scipy", "scikit-learn")
_LARGEST_SEED: Final = 2**53 - 1


def calibrate(
    data: LabelledData,
    *,
    goal: Goal,
    alpha: float,
    delta: float | None = None,
    score: str | GateScore = "msp",
    by_group: bool = False,
    seed: int = 0,
    held_out_share: float | None = None,
    tuning_share: float = TUNING_SHARE,
    created_at: str | None = None,
) -> Certificate:
    """Return the certificate of a threshold that keeps a promise.

    The same data, settings, seed and versions give a certificate of the same id.

    Args:
        data: labelled answers, drawn as those that the gate will meet.
        goal: which promise; see `GOALS`.
        alpha: the rate that is promised to be kept.
        delta: for ``selective-risk`` the share of calibrations in which it may fail; else ``None``.
        score: the name of one of `SCORES`; ``best`` for the one that tells wrong answers best, chosen on the
            tuning part; ``combiner`` for a combination of signals that is fitted there; or a `GateScore` of
            your own, made on answers that are not among these.
        by_group: a threshold and a promise for each of ``data.groups``.
        seed: of the division into parts and of everything random.
        held_out_share: of the units, for measuring what was achieved; 0 measures nothing. ``None`` takes a
            fifth where three times as many units as the goal needs at the least remain without it.
        tuning_share: of the units, for choosing; plays no part where nothing is chosen.
        created_at: the date to state, RFC 3339; now by default.

    Raises:
        InfeasibleError: no threshold keeps the promise on these data; ``needed`` says how many more labels
            would do. Or no combination is surely better than a single score.
        InputError: labels of one kind where both are needed, a score that was never measured, columns that
            the score needs and the data do not have.
        ConfigurationError: no such score, goal or share; no groups to promise by; for ``streaming`` a score
            that may fall again while a generation runs.
        DependencyMissingError: a package of the extra ``calibration`` is missing.
    """
    if not 0 <= seed <= _LARGEST_SEED:
        raise ConfigurationError(f"seed must be in [0, 2**53), not {seed}")
    choosing = isinstance(score, str) and score in CHOSEN
    groups = group_names(data) if by_group else None
    parts = parts_of(
        data, goal, alpha, delta, seed, groups,
        tuning_share=tuning_share if choosing else 0.0, held_out_share=held_out_share,
    )  # fmt: skip
    used, choice = _score(score, data, parts, seed)
    if goal == "streaming":
        path_of(used)  # refuses a score that may fall again on the way
    scores = _measured(used, data)
    found = _thresholds(goal, scores, data, parts, groups, alpha=alpha, delta=delta, seed=seed)
    return Certificate(
        goal=goal,
        alpha=found.first.alpha,
        delta=found.first.delta,
        score=used.name,
        combiner=json_of(used),
        threshold=found.one,
        groups=found.by_group,
        conditions=data.conditions,
        n=int(parts.calibration.sum()),
        n_units=_units(data, parts.calibration),
        n_wrong=int((~data.correct[parts.calibration]).sum()),
        not_measured=int(np.isnan(scores[parts.calibration]).sum()),
        data_n=len(data),
        data_units=data.n_units,
        data_sha256=data.sha256,
        dropped=dict(data.dropped),
        split=_split(data, parts),
        seed=seed,
        created_at=created_at or datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        versions=_versions(),
        achieved=_achieved(goal, found, scores, data, parts, groups),
        score_quantiles=_quantiles(scores, data, parts.calibration | parts.held_out, seed),
        notes=(*choice, *_notes(used, scores, data, parts, found), *data.unchecked),
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Found:
    """One threshold for all answers, or one for each group."""

    one: Threshold | None
    by_group: dict[str, Threshold] | None

    @property
    def first(self) -> Threshold:
        return self.one if self.one is not None else next(iter((self.by_group or {}).values()))


def _score(
    score: str | GateScore, data: LabelledData, parts: Parts, seed: int
) -> tuple[GateScore, tuple[str, ...]]:
    """Return the score, and what is to be said of its choice."""
    if not isinstance(score, str):
        return score, (
            f"the score '{score.name}' was given: the promise holds if none of these answers played a part "
            "in making it",
        )
    if score in CHOSEN:
        return chosen_score(score, data.take(parts.tuning), seed)
    return score_named(score), ()


def _measured(score: GateScore, data: LabelledData) -> NDArray[np.float64]:
    try:
        scores = np.asarray(score.column_of(data.columns), dtype=np.float64)
    except KeyError as error:
        raise InputError(f"the data have no column {error} for the score '{score.name}'") from error
    if np.isnan(scores).all():
        why = ""
        if needs_full_vocabulary(score):
            why = ": it needs the full vocabulary, and servers show the likeliest candidates alone"
        raise InputError(f"the score '{score.name}' was measured on none of the {len(data):,} answers{why}")
    return scores


def _thresholds(
    goal: Goal,
    scores: NDArray[np.float64],
    data: LabelledData,
    parts: Parts,
    groups: list[str] | None,
    *,
    alpha: float,
    delta: float | None,
    seed: int,
) -> _Found:
    rows = parts.calibration
    columns = (scores[rows], data.correct[rows], data.units[rows])
    if groups is None:
        return _Found(find_threshold(goal, *columns, alpha=alpha, delta=delta, seed=seed), None)
    named = np.array(groups, dtype=object)[rows]
    found: dict[str, Threshold] = find_thresholds_by_group(
        goal, *columns, named, alpha=alpha, delta=delta, seed=seed
    )
    return _Found(None, found)


def _achieved(
    goal: Goal,
    found: _Found,
    scores: NDArray[np.float64],
    data: LabelledData,
    parts: Parts,
    groups: list[str] | None,
) -> Achieved | None:
    rows = parts.held_out
    if not rows.any():
        return None
    named = None if groups is None else [groups[row] for row in np.flatnonzero(rows).tolist()]
    thresholds = thresholds_of(found.one, found.by_group, named, int(rows.sum()))
    return achieved_on(goal, thresholds, scores[rows], data.correct[rows], data.units[rows], named)


def _quantiles(
    scores: NDArray[np.float64], data: LabelledData, rows: NDArray[np.bool_], seed: int
) -> ScoreQuantiles:
    # One answer a unit: what is compared with them later has to be exchangeable with them.
    chosen = np.flatnonzero(rows)
    chosen = chosen[one_per_unit(data.units[chosen], seed)]
    return ScoreQuantiles(Quantiles.of(scores[chosen]), Quantiles.of(scores[chosen][data.correct[chosen]]))


def _split(data: LabelledData, parts: Parts) -> dict[str, Share]:
    named = {"tuning": parts.tuning, "calibration": parts.calibration, "held_out": parts.held_out}
    return {
        name: Share(int(rows.sum()), _units(data, rows), int((~data.correct[rows]).sum()))
        for name, rows in named.items()
        if rows.any()
    }


def _units(data: LabelledData, rows: NDArray[np.bool_]) -> int:
    return len(np.unique(data.units[rows]))


def _notes(
    score: GateScore, scores: NDArray[np.float64], data: LabelledData, parts: Parts, found: _Found
) -> list[str]:
    notes = []
    of = int(parts.calibration.sum())
    if missing := int(np.isnan(scores[parts.calibration]).sum()):
        notes.append(f"{missing:,} of the {of:,} answers have no '{score.name}': such answers never pass")
    if len(set(data.correct[parts.calibration].tolist())) == 1:
        kind = "right" if data.correct[parts.calibration][0] else "wrong"
        notes.append(f"every answer is {kind}: nothing here shows that '{score.name}' tells wrong answers")
    if not parts.held_out.any():
        notes.append(f"what the gate achieves was not measured: {parts.why_none_held_out}")
    if found.by_group is not None and found.first.delta is not None:
        notes.append(
            "the promise is for each group by itself: of many groups some fail more often than delta"
        )
    if not data.sha256:
        notes.append("the data were made in memory and have no hash")
    return notes


def _versions() -> Mapping[str, str]:
    found: dict[str, Any] = {"cert-framework": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
