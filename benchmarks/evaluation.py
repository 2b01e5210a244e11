"""Whether intervals of `cert evaluate` cover the truth, and how long it takes on 100,000 answers.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py [--out benchmarks/results/evaluation.json]

Coverage: answers about units of three, of a law with known AUROC, AUPRC and PRR (those of 1.2 million answers
of it), many samples of it, each with its intervals. The same samples with the plain percentile interval show
what the expanded one is for. Speed: all scores, 1,000 draws of units, with the combiner and without.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from provenance import provenance

from cert.trajectory.calibration.combiner import fit_combiner
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES
from cert.trajectory.evaluation import evaluate_scores
from cert.trajectory.evaluation.bootstrap import Resampling, estimate, minority
from cert.trajectory.evaluation.metrics import auroc_of, average_precision_of, prr_of
from cert.trajectory.evaluation.ranks import Flags, Floats, Packed, Ranking

ROOT: Final = Path(__file__).parents[1]
MEASURES: Final = {"auroc": auroc_of, "auprc": average_precision_of, "prr": prr_of}
UNITS: Final = (15, 30, 60, 120, 240)
SHIFTS: Final = (0.8, 2.0)
PER_UNIT: Final = 3


def sample(units: int, shift: float, rng: np.random.Generator) -> tuple[Floats, Flags, np.ndarray]:
    """Return scores, labels and units: answers about one unit have a level and an error rate in common."""
    unit = np.repeat(np.arange(units), PER_UNIT)
    rate = 1 / (1 + np.exp(-(np.log(0.15) + rng.normal(size=units))))
    wrong = rng.random(len(unit)) < rate[unit]
    return 0.7 * rng.normal(size=units)[unit] + rng.normal(size=len(unit)) + shift * wrong, wrong, unit


def coverage(
    shift: float, units: int, trials: int, replicates: int, truth: dict[str, float]
) -> dict[str, Any]:
    """Return how often intervals hold the truth, expanded ones and plain ones."""
    rng = np.random.default_rng(units)
    held = {name: [0, 0] for name in MEASURES}
    rarer, judged = [], 0
    for trial in range(trials):
        score, wrong, unit = sample(units, shift, rng)
        fewest = minority(wrong, unit)
        if fewest < 5:  # no interval is given
            continue
        judged += 1
        rarer.append(fewest)
        ranking = Ranking.of(score, wrong)
        counts = [
            ranking.counts(Packed.of(weights)) for weights in Resampling(unit, replicates, trial).weights()
        ]
        for name, of in MEASURES.items():
            drawn = np.concatenate([of(one) for one in counts])
            found = estimate(float(of(ranking.counts())[0]), drawn, len(score), fewest)
            plain = np.nanquantile(drawn, [0.025, 0.975])
            held[name][0] += found.low is not None and found.low <= truth[name] <= (found.high or 0.0)
            held[name][1] += bool(plain[0] <= truth[name] <= plain[1])
    return {
        "shift": shift,
        "units": units,
        "units_of_rarer_kind": round(float(np.mean(rarer)), 1),
        "trials": judged,
        "expanded": {name: round(hits[0] / judged, 4) for name, hits in held.items()},
        "plain": {name: round(hits[1] / judged, 4) for name, hits in held.items()},
    }


def answers(n: int, per_unit: int) -> LabelledData:
    """Return labelled answers of which every signal says a little."""
    rng = np.random.default_rng(0)
    unit = np.arange(n) // per_unit
    hidden = rng.normal(size=n) + 0.5 * rng.normal(size=n)[unit]
    wrong = rng.random(n) < 1 / (1 + np.exp(1.2 - hidden))
    columns = {
        one.column: one.sign * np.exp(0.7 * hidden + rng.normal(size=n) * (1 + 0.1 * place))
        for place, one in enumerate(SCORES.values())
    }
    columns["n_tokens"] = rng.integers(3, 60, n)
    columns["sequence_logprob"] = -np.exp(0.5 * hidden + rng.normal(size=n) - 1.5)
    return LabelledData(tuple(map(str, range(n))), ~wrong, columns, unit)


def speed(n: int, per_unit: int) -> dict[str, Any]:
    """Return seconds of one core: evaluation, and fit of a combiner."""
    data = answers(n, per_unit)
    started = time.process_time()
    report = evaluate_scores(data)
    evaluated = time.process_time()
    fit_combiner(data)
    return {
        "answers": n,
        "per_unit": per_unit,
        "scores": len(report.scores),
        "replicates": report.replicates,
        "evaluate_cpu_s": round(evaluated - started, 2),
        "combiner_cpu_s": round(time.process_time() - evaluated, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/evaluation.json")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--replicates", type=int, default=1000)
    given = parser.parse_args()
    result: dict[str, Any] = {"provenance": provenance(), "replicates": given.replicates}
    result["speed"] = [speed(100_000, 1), speed(100_000, 4), speed(1_000, 2)]
    result["coverage"] = []
    for shift in SHIFTS:
        score, wrong, _ = sample(400_000, shift, np.random.default_rng(1))
        counts = Ranking.of(score, wrong).counts()
        truth = {name: float(of(counts)[0]) for name, of in MEASURES.items()}
        for units in UNITS:
            row = coverage(shift, units, given.trials, given.replicates, truth)
            result["coverage"].append({"truth": {k: round(v, 4) for k, v in truth.items()}, **row})
            print(json.dumps(result["coverage"][-1]), flush=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
