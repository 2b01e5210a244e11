"""What each signal is worth on the reference model: wrong answers, false values, promises, few candidates.

    python benchmarks/detection.py [--cache DIR] [--out benchmarks/results/detection.json]
                                   [--traces FILE] [--page docs/explanation/what-each-signal-is-worth.md]

Three trained models. Of each, every fact about people of whom training never asked is asked in the held-out
wording and answered greedily; the world file says what is right. Half of the people (by the groups of the
world) are for fitting: the combiner, and the choice of the best single signal. Everything is judged on the
other half. Samples for semantic entropy and self-consistency are taken of every second person of that half.
People whom training never named are reported apart. Intervals are 95 %, from a bootstrap over people.

- answers: `evaluate_scores` for all scores of one pass, the combiner, energy, P(True) and samples.
- onset: texts that go on at temperature 1; see detection_onset.py.
- promises, shifts, truncation: see detection_promises.py.

``--traces`` writes answers with our numbers for peers_formulas.py; ``--page`` writes the tables as a page,
from ``--out`` alone with ``--only-page``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from detection_answers import SAMPLES, Answers, Array, asked, is_test
from detection_onset import onset_report
from detection_page import write_page
from detection_promises import kept, labelled, shifted, truncation
from detection_traces import write_traces
from provenance import provenance

from cert.reference import weights
from cert.reference.recall import ENERGY_THRESHOLDS, MIDDLE
from cert.signals import energy, step_signals
from cert.signals.samples import sample_signals
from cert.trajectory.calibration.combiner import Combiner, fit_combiner
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES, GateScore, Score
from cert.trajectory.evaluation import ScoreEvaluation, evaluate_scores
from cert.trajectory.evaluation.bootstrap import (
    REPLICATES,
    clustered_auroc,
    minority,
    paired_difference,
)
from cert.trajectory.evaluation.metrics import auroc_of
from cert.trajectory.evaluation.ranks import Ranking
from cert.trajectory.evaluation.shares import rank_correlation

ROOT: Final = Path(__file__).parents[1]
MODELS: Final = {
    "seed 0 (shipped)": weights.path(),
    "seed 1": ROOT / "models" / "reference-seed1",
    "seed 2": ROOT / "models" / "reference-seed2",
}
SEED: Final = 0
MAX_REJECTION: Final = 0.5
SIZES: Final = (5, 10)
MORE: Final = (
    Score("mean_energy", "mean_energy", 1),
    Score("max_energy", "max_energy", 1),
    Score("p_true", "p_true", -1),
)
_OF_SAMPLES: Final = {
    "semantic_entropy": 1,
    "semantic_entropy_unnormalized": 1,
    "discrete_semantic_entropy": 1,
    "predictive_entropy": 1,
    "normalized_predictive_entropy": 1,
    "self_consistency": -1,
    "agreement": -1,
}
SAMPLED: Final = tuple(
    Score(f"{name}_{size}", f"{name}_{size}", 1 if sign > 0 else -1)
    for size in SIZES
    for name, sign in _OF_SAMPLES.items()
)
"""By samples; ``agreement`` is the share of them that say what the greedy answer says."""


def judged(answers: Answers, replicates: int) -> dict[str, Any]:
    """Return what every score is worth on whole answers."""
    data = with_more(answers)
    test = np.array([is_test(fact) for fact in answers.facts])
    seen = ~answers.never_seen
    fit = fit_combiner(data.take(seen & ~test), seed=SEED, replicates=replicates)
    scores: list[GateScore] = [*SCORES.values(), *MORE, fit.combiner]
    one_pass = evaluated(data.take(seen & test), scores, replicates)
    sampled = np.zeros(len(data), dtype=np.bool_)
    sampled[answers.sampled] = True
    single = SCORES[fit.best_single]
    return {
        "error_rate": {
            "seen": float(np.mean(~data.correct[seen])),
            "never_seen": float(np.mean(~data.correct[~seen])),
        },
        "one_pass": one_pass,
        "samples": evaluated(data.take(sampled), [*scores, *SAMPLED], replicates),
        "combiner": {
            "trained_on": {"answers": int((seen & ~test).sum()), "people": _people(data, seen & ~test)},
            "features": list(fit.combiner.features),
            "strength": fit.strength,
            "best_single": fit.best_single,
            "advantage_in_training": asdict(fit.advantage),
            "used": fit.used,
            "advantage_on_test": {
                scope: asdict(compared(data.take(rows), fit.combiner, single, replicates))
                for scope, rows in {
                    "seen": seen & test,
                    "middle": seen & test & np.isin(_exposures(answers), MIDDLE),
                }.items()
            },
        },
        "scopes": {
            name: by_scope(data.take(rows), scores, replicates)
            for name, rows in {
                "middle": seen & test & np.isin(_exposures(answers), MIDDLE),
                "everyone": test,
                "never_seen": ~seen,
            }.items()
        },
    }


def with_more(answers: Answers) -> LabelledData:
    """Return the greedy answers with the signals of one pass, energy, P(True) and what samples say."""
    data = labelled(answers, answers.greedy)
    columns: dict[str, Array] = dict(data.columns)
    step = step_signals(answers.greedy.steps)
    both = energy(step.surprisal, step.entropy_upper, **ENERGY_THRESHOLDS)
    parts = np.split(both, np.cumsum(answers.greedy.lengths)[:-1])
    columns["mean_energy"] = np.array([part.mean() if len(part) else np.nan for part in parts])
    columns["max_energy"] = np.array([part.max() if len(part) else np.nan for part in parts])
    columns["p_true"] = answers.p_true
    columns |= of_samples(answers)
    return replace(data, columns=columns)


def of_samples(answers: Answers) -> dict[str, Array]:
    """Return the signals of the first 5 and of all 10 samples; NaN of what was not sampled.

    Answers mean the same if they are the same text: values have one form.
    """
    traces = answers.samples
    ends = np.cumsum(traces.lengths)[:-1]
    logprobs = np.array([part.sum() for part in np.split(traces.steps.logprob, ends)])
    found = {score.column: np.full(len(answers.facts), np.nan) for score in SAMPLED}
    for row, place in enumerate(answers.sampled):
        for size in SIZES:
            part = slice(row * SAMPLES, row * SAMPLES + size)
            texts = [text.strip() for text in traces.texts[part]]
            names = {text: number for number, text in enumerate(dict.fromkeys(texts))}
            ids = [names[text] for text in texts]
            signals = sample_signals(ids, logprobs[part], traces.lengths[part])
            for name in _OF_SAMPLES:
                if name != "agreement":
                    found[f"{name}_{size}"][place] = getattr(signals, name)
            same = texts.count(answers.greedy.texts[place].strip())
            found[f"agreement_{size}"][place] = same / size
    return found


def evaluated(data: LabelledData, scores: Sequence[GateScore], replicates: int) -> dict[str, Any]:
    """Return the report of `evaluate_scores`, as far as it is shown."""
    report = evaluate_scores(data, scores, seed=SEED, replicates=replicates, max_rejection=MAX_REJECTION)
    return {
        "answers": report.n,
        "people": report.n_units,
        "wrong": report.n_wrong,
        "scores": {one.name: told(one) for one in report.scores},
    }


def told(one: ScoreEvaluation) -> dict[str, Any]:
    """Return one score's figures."""
    probability = one.probability
    return {
        "not_measured": one.not_measured,
        **{name: asdict(getattr(one, name)) for name in ("auroc", "auprc", "prr", "aurc", "excess_aurc")},
        "difference_from_msp": None if one.difference is None else asdict(one.difference),
        "length_correlation": one.length_correlation,
        "auroc_within_length": one.auroc_within_length,
        "ece": None if probability is None else probability.ece,
        "brier": None if probability is None else asdict(probability.brier),
    }


def compared(data: LabelledData, combiner: Combiner, single: Score, replicates: int) -> Any:
    """Return AUROC of the combiner less that of a single score, both chosen on other people."""
    wrong = ~data.correct
    both, one = (Ranking.of(score.column_of(data.columns), wrong) for score in (combiner, single))
    return paired_difference(
        lambda drawn: auroc_of(both.counts(drawn)),
        lambda drawn: auroc_of(one.counts(drawn)),
        data.units,
        SEED,
        replicates=replicates,
        rarer=minority(wrong, data.units),
    )


def by_scope(data: LabelledData, scores: Sequence[GateScore], replicates: int) -> dict[str, Any]:
    """Return AUROC alone."""
    wrong = ~data.correct
    return {
        "answers": len(data),
        "people": data.n_units,
        "wrong": int(wrong.sum()),
        "auroc": {
            score.name: asdict(
                clustered_auroc(score.column_of(data.columns), wrong, data.units, SEED, replicates=replicates)
            )
            for score in scores
        },
    }


def together(models: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the mean AUROC over the models, and whether the order of scores is the same on all."""
    found = [model["answers"][part]["scores"] for model in models.values()]
    values = {name: np.array([scores[name]["auroc"]["value"] for scores in found]) for name in found[0]}
    order = sorted(values, key=lambda name: -values[name].mean())
    signs = [np.sign(values[a] - values[b]) for a, b in combinations(order, 2)]
    told_apart = [one for one in signs if one.any()]  # some are the same on every answer of one length
    rows = np.array([values[name] for name in order])
    pairs = list(combinations(range(len(found)), 2))
    return {
        "order": order,
        "auroc": {
            name: {"mean": float(of.mean()), "least": float(of.min()), "most": float(of.max())}
            for name, of in values.items()
        },
        "best": [max(values, key=lambda name, at=at: values[name][at]) for at in range(len(found))],
        "pairs": len(told_apart),
        "pairs_in_one_order": int(sum(abs(one.sum()) == len(found) for one in told_apart)),
        "rank_correlations": [rank_correlation(rows[:, a], rows[:, b]) for a, b in pairs],
        "against_msp": {name: _against(found, name) for name in order if name != "msp"},
    }


def _against(found: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return whether the interval of the difference from MSP is on one side of 0 on every model."""
    ends = [scores[name]["difference_from_msp"] for scores in found]
    if any(one is None or one["low"] is None for one in ends):
        return "not measured"
    if all(one["low"] > 0.0 for one in ends):
        return "better"
    return "worse" if all(one["high"] < 0.0 for one in ends) else "open"


def measured(folder: Path, arguments: argparse.Namespace) -> tuple[Answers, dict[str, Any]]:
    """Ask one model and measure everything."""
    began = time.perf_counter()

    def tell(what: str) -> None:
        print(f"{time.perf_counter() - began:7.0f} s  {what}", flush=True)

    answers = asked(folder, arguments.limit, SEED, arguments.cache, tell)
    draws, replicates = arguments.draws, arguments.replicates
    found: dict[str, Any] = {}
    for name, part in {
        "answers": lambda: judged(answers, replicates),
        "onset": lambda: onset_report(answers, replicates),
        "promises": lambda: kept(answers, draws),
        "shifts": lambda: shifted(answers, draws, arguments.watched),
        "truncation": lambda: truncation(answers, draws, replicates),
    }.items():
        tell(name)
        found[name] = part()
    return answers, found


def rounded(value: Any) -> Any:
    """Return a report with five digits behind the point: more than any of it is sure of."""
    if isinstance(value, Mapping):
        return {str(name): rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


def _exposures(answers: Answers) -> Array:
    return np.array([fact.exposures for fact in answers.facts])


def _people(data: LabelledData, rows: Array) -> int:
    return len(np.unique(data.units[rows]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/detection.json")
    parser.add_argument("--cache", type=Path, help="a folder for the models' answers")
    parser.add_argument("--traces", type=Path, help="write what peers_formulas.py reads")
    parser.add_argument("--page", type=Path, help="Markdown")
    parser.add_argument("--only-page", action="store_true", help="of the results that are there")
    parser.add_argument("--draws", type=int, default=1000, help="calibrations of each promise")
    parser.add_argument("--watched", type=int, default=100, help="calibrations that are watched")
    parser.add_argument("--replicates", type=int, default=REPLICATES, help="draws of people for intervals")
    parser.add_argument("--limit", type=int, help="only the first facts, for a quick look")
    arguments = parser.parse_args()
    if not arguments.only_page:
        torch.set_num_threads(1)
        report = run(arguments)
        arguments.out.write_text(
            json.dumps(rounded(report), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
    if arguments.page:
        write_page(arguments.out, arguments.page)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all models."""
    report: dict[str, Any] = {
        "benchmark": "detection",
        "ran_on": provenance(),
        "threads": 1,
        "seed": SEED,
        "replicates": arguments.replicates,
        "draws": arguments.draws,
        "watched": arguments.watched,
        "max_rejection": MAX_REJECTION,
        "samples": SAMPLES,
        "answers_read_from_a_cache": arguments.cache is not None,
        "models": {},
    }
    for number, (name, folder) in enumerate(MODELS.items()):
        print(name, flush=True)
        answers, report["models"][name] = measured(folder, arguments)
        if arguments.traces and not number:
            write_traces(folder, answers, with_more(answers), arguments.traces)
    report["together"] = {part: together(report["models"], part) for part in ("one_pass", "samples")}
    return report


if __name__ == "__main__":
    main()
