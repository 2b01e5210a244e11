"""Promises on real answers: kept, broken by a shift, and the cost of few candidates; see detection.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from detection_answers import WIDEST, Answers, Array, Traces
from detection_onset import RISING, read_runs

from cert.core.errors import InfeasibleError
from cert.core.events import EventHub
from cert.signals import TokenSteps, signal_columns
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.goals import Goal
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES
from cert.trajectory.calibration.splits import one_per_unit
from cert.trajectory.calibration.trials import guarantees_of_pool
from cert.trajectory.calibration.watch import GateWatch
from cert.trajectory.evaluation.bootstrap import minority, paired_difference
from cert.trajectory.evaluation.metrics import auroc_of
from cert.trajectory.evaluation.ranks import Ranking

USUAL_K: Final = 20
CUTS: Final = (5, 20, 100)
ENTROPIES: Final = ("mean_entropy", "max_entropy", "mean_top_k_entropy", "max_top_k_entropy")
LEVELS: Final = (0.25, 0.5, 1.0, 1.5, 2.5)
"""Uncalibrated thresholds of the largest entropy; 2.5 is version 3's."""
GOALS: Final[tuple[Goal, ...]] = ("false-flags", "misses", "selective-risk", "undetected-errors")
ALPHA: Final = 0.1
DELTA: Final = 0.1
PEOPLE: Final = 300
RARE: Final = 4
LAST: Final = "birth_date"


def labelled(answers: Answers, traces: Traces, steps: TokenSteps | None = None) -> LabelledData:
    """Return answers with the signals that a monitor with its usual K gives, and their truth.

    Args:
        answers: whose questions they answer.
        traces: one answer to each.
        steps: in place of those that the monitor would record.
    """
    pairs = zip(answers.facts, traces.texts, strict=True)
    return LabelledData(
        ids=tuple(f"{fact.person.name}, {fact.attribute}" for fact in answers.facts),
        correct=np.array([fact.states(text) for fact, text in pairs], dtype=np.bool_),
        columns=signal_columns(traces.cut(USUAL_K) if steps is None else steps, traces.lengths),
        units=answers.people,
    )


def run_pool(answers: Answers) -> LabelledData:
    """Return the texts that go on as runs: right if all that they state is true."""
    runs = read_runs(answers)
    whole = LabelledData(
        ids=tuple(map(str, range(len(runs)))),
        correct=np.array([run.onset is None for run in runs], dtype=np.bool_),
        columns=signal_columns(answers.runs.cut(USUAL_K), answers.runs.lengths),
        units=answers.people,
    )
    return whole.take(np.array([run.judged for run in runs]))


# --- kept ---


def kept(answers: Answers, draws: int) -> list[dict[str, Any]]:
    """Return what repeated calibrations on draws of people realise on all answers of the model."""
    pool, runs = labelled(answers, answers.greedy), run_pool(answers)
    rows: list[dict[str, Any]] = []
    for units in (100, PEOPLE):
        for alpha in (0.05, ALPHA):
            asked: dict[str, Any] = {"units": units, "alpha": alpha, "delta": DELTA, "draws": draws}
            for score in ("msp", "max_entropy"):
                found = guarantees_of_pool(pool, score, **asked, goals=GOALS)
                rows += [{"pool": "answers", "score": score} | one.to_dict() for one in found]
            for score in ("msp", "max_surprisal"):
                assert score in RISING
                found = guarantees_of_pool(runs, score, **asked, goals=("streaming",))
                rows += [{"pool": "running texts", "score": score} | one.to_dict() for one in found]
    return rows


# --- shifted ---


def shifts(answers: Answers) -> dict[str, tuple[LabelledData, LabelledData]]:
    """Return pools to calibrate on, and those that come then."""
    pool = labelled(answers, answers.greedy)
    attributes = np.array([fact.attribute for fact in answers.facts])
    exposures = np.array([fact.exposures for fact in answers.facts])
    return {
        "none": (pool, pool),
        "wording": (pool, labelled(answers, answers.worded)),
        "temperature": (pool, labelled(answers, answers.warm)),
        "attribute": (pool.take(attributes != LAST), pool.take(attributes == LAST)),
        "rare facts": (pool, pool.take(exposures <= RARE)),
    }


def shifted(answers: Answers, draws: int, watched: int) -> dict[str, Any]:
    """Return what calibrations realise where answers come otherwise, and when a watch notices."""
    found: dict[str, Any] = {}
    asked: dict[str, Any] = {"units": PEOPLE, "alpha": ALPHA, "delta": DELTA, "draws": draws, "goals": GOALS}
    for name, (pool, later) in shifts(answers).items():
        rows = guarantees_of_pool(pool, "msp", **asked, deployed=later)
        found[name] = {
            "error_rate": float(np.mean(~pool.correct)),
            "later_error_rate": float(np.mean(~later.correct)),
            "rates": [row.to_dict() for row in rows],
            "watch": {
                goal: watch_shift(pool, later, goal, watched) for goal in ("selective-risk", "false-flags")
            },
        }
    return found


def watch_shift(pool: LabelledData, later: LabelledData, goal: Goal, draws: int) -> dict[str, Any]:
    """Calibrate on one answer each of some people and watch one answer each of the others, many times.

    Every answer's score is told, and every label. The one who calibrates has labels of `PEOPLE` people.
    """
    warned, void, lengths = [], [], []
    refused = 0
    for number in range(draws):
        random = np.random.default_rng((7, number))
        people = random.permutation(np.unique(pool.units))
        mine, theirs = _some(pool, people[:PEOPLE], number), _some(later, people[PEOPLE:], number)
        delta = DELTA if goal == "selective-risk" else None
        try:
            certificate = calibrate(
                mine, goal=goal, alpha=ALPHA, delta=delta, seed=number, held_out_share=0.0
            )
        except InfeasibleError:
            refused += 1
            continue
        watch = GateWatch(CalibratedGate(certificate), hub=EventHub(), seed=number)
        scores = SCORES["msp"].column_of(theirs.columns)
        for place in random.permutation(len(theirs)).tolist():
            watch.observe(float(scores[place]))
            watch.observe_label(float(scores[place]), bool(theirs.correct[place]))
        status = watch.status
        warned.append(status.shifted_at)
        void.append(status.void_at)
        lengths.append(len(theirs))
    return {
        "watched": len(lengths),
        "refused": refused,
        "answers": int(np.median(lengths)) if lengths else 0,
        "warned": _times(warned),
        "void": _times(void),
    }


def _some(pool: LabelledData, people: Array, seed: int) -> LabelledData:
    of_them = pool.take(np.isin(pool.units, people))
    return of_them.take(one_per_unit(of_them.units, seed))


def _times(found: list[int | None]) -> dict[str, Any]:
    times = [time for time in found if time is not None]
    return {
        "share": len(times) / len(found) if found else None,
        "median": int(np.median(times)) if times else None,
    }


# --- truncated ---


def truncation(answers: Answers, draws: int, replicates: int) -> dict[str, Any]:
    """Return what only K candidates a token cost, of the answers about people that training saw."""
    seen = ~answers.never_seen
    full = labelled(answers, answers.greedy).take(seen)
    pools = {
        k: labelled(answers, answers.greedy, answers.greedy.truncated(k, vocab_known=True)).take(seen)
        for k in CUTS
    }
    blind = {
        k: labelled(answers, answers.greedy, answers.greedy.truncated(k, vocab_known=False)).take(seen)
        for k in CUTS
    }
    whole = replace(full, columns=_all_candidates(answers, full, seen))
    rows = []
    for score in ENTROPIES:
        rows.append({"score": score, "k": None} | _power(whole, score, draws))
        for k, pool in pools.items():
            lost = _difference(pool, whole, score, replicates)
            rows.append({"score": score, "k": k} | _power(pool, score, draws) | {"auroc_difference": lost})
    return {
        "answers": len(full),
        "vocabulary": answers.greedy.steps.vocab_size,
        "power": rows,
        "undecided": _undecided(full, pools, blind),
    }


def _all_candidates(answers: Answers, full: LabelledData, seen: Array) -> Mapping[str, Array]:
    """The top-K entropies of as many candidates as are kept; entropies are of the full vocabulary already."""
    wide = signal_columns(answers.greedy.cut(WIDEST), answers.greedy.lengths)
    return dict(full.columns) | {
        name: column[seen] for name, column in wide.items() if name.endswith("top_k_entropy")
    }


def _power(pool: LabelledData, score: str, draws: int) -> dict[str, Any]:
    """AUROC, and what passes by calibrated gates with a promise."""
    asked: dict[str, Any] = {"units": PEOPLE, "alpha": ALPHA, "delta": DELTA, "draws": draws}
    found = guarantees_of_pool(pool, score, **asked, goals=("selective-risk", "misses"))
    ranking = Ranking.of(SCORES[score].column_of(pool.columns), ~pool.correct)
    return {
        "auroc": float(auroc_of(ranking.counts())[0]),
        "gates": {one.goal: one.to_dict() for one in found},
    }


def _difference(pool: LabelledData, full: LabelledData, score: str, replicates: int) -> dict[str, Any]:
    wrong = ~full.correct
    few, all_of = (Ranking.of(SCORES[score].column_of(one.columns), wrong) for one in (pool, full))
    return asdict(
        paired_difference(
            lambda weights: auroc_of(few.counts(weights)),
            lambda weights: auroc_of(all_of.counts(weights)),
            full.units,
            0,
            replicates=replicates,
            rarer=minority(wrong, full.units),
        )
    )


def _undecided(
    full: LabelledData, pools: Mapping[int, LabelledData], blind: Mapping[int, LabelledData]
) -> list[dict[str, Any]]:
    """Return how often a threshold on the largest entropy is decided by its interval."""
    rows = []
    for level in LEVELS:
        failing = float(np.mean(full.columns["max_entropy_lower"] > level))
        for k in pools:
            row: dict[str, Any] = {"threshold": level, "k": k, "fail_with_all": failing}
            for name, pool in (("vocabulary_known", pools[k]), ("vocabulary_unknown", blind[k])):
                lower, upper = pool.columns["max_entropy_lower"], pool.columns["max_entropy_upper"]
                fails, passes = lower > level, upper <= level
                row[name] = {
                    "pass": float(np.mean(passes)),
                    "fail": float(np.mean(fails)),
                    "undecided": float(np.mean(~fails & ~passes)),
                }
            rows.append(row)
    return rows
