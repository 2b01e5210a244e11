"""Whether the promises of calibrated gates hold: many calibrations on draws from pools of known truth.

    python benchmarks/guarantees.py [--draws 1000] [--out FILE] [--table FILE]
    python benchmarks/guarantees.py --pool FILE.npz [--score msp] [--units 300] [--draws 1000]

A pool is large and fixed; each draw takes units of it with replacement, a threshold is computed for each
goal, and its rate is read off the whole pool, which has no error. Kept means: for the goal with a δ that
the thresholds whose rate is above α are, of all draws, no more than happen once in 1,000 times at δ; for
the others that the *mean* rate is at most α, within 3 standard errors, where a refused calibration counts
0, as the promise does (the mean over the others is beside it). Rates are those of an answer drawn at
random of a unit drawn at random.

- laws: synthetic pools of 50,000 units, and draws of 30 to 1,000 units.
- as if independent: the same with each answer of a unit taken for a unit of its own. It breaks the promise.
- single steps: the streaming goal calibrated on steps instead of the maxima of runs. It breaks it too.
- shifted: calibrated on one law and used on another. So does this.

FILE.npz has `correct` (booleans), `units` (integers, optional) and a column for each signal, such as
`sequence_logprob`, or one named `score`, larger where it is worse.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from provenance import provenance

from cert.trajectory.calibration.goals import GOALS, Goal, find_threshold
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import GateScore, Score, score_named
from cert.trajectory.calibration.trials import Guarantee, guarantees_of_pool

Array = np.ndarray[Any, np.dtype[Any]]
UNITS: Final = 50_000
ALPHA: Final = 0.05
DELTA: Final = 0.1
SIZES: Final = (30, 100, 300, 1000)
AT_ONCE: Final[tuple[Goal, ...]] = ("false-flags", "misses", "selective-risk", "undetected-errors")
PLAIN: Final = Score("score", "score", 1)


def pool(scores: Array, correct: Array, units: Array | None = None) -> LabelledData:
    """Return a pool of columns; without units each answer is its own."""
    count = len(scores)
    return LabelledData(
        ids=tuple(map(str, range(count))),
        correct=correct,
        columns={"score": scores},
        units=np.arange(count) if units is None else units,
    )


def normal(random: np.random.Generator, error: float = 0.2, apart: float = 2.0) -> LabelledData:
    correct = random.random(UNITS) >= error
    return pool(random.normal(np.where(correct, 0.0, apart)), correct)


def ties(random: np.random.Generator) -> LabelledData:
    data = normal(random)
    return pool(np.round(data.columns["score"]), data.correct)


def infinities(random: np.random.Generator) -> LabelledData:
    data = normal(random)
    score = data.columns["score"]
    return pool(np.where(score < -1.5, -np.inf, np.where(score > 2.0, np.inf, 0.0)), data.correct)


def missing(random: np.random.Generator) -> LabelledData:
    data = normal(random)
    lost = random.random(UNITS) < np.where(data.correct, 0.02, 0.1)
    return pool(np.where(lost, np.nan, data.columns["score"]), data.correct)


def confidently_wrong(random: np.random.Generator) -> LabelledData:
    """A third of the wrong answers have scores better than those of nearly all right ones."""
    data = normal(random, error=0.1)
    confident = ~data.correct & (random.random(UNITS) < 1 / 3)
    return pool(np.where(confident, -3.0, data.columns["score"]), data.correct)


def on_the_edge(random: np.random.Generator, size: int = 1) -> LabelledData:
    """Every 19th answer in the order of the scores is wrong: more than α at any threshold.

    So each certificate breaks the bound, and δ is the share of calibrations that may give one.
    """
    correct = np.arange(UNITS) % 19 > 0
    scores = np.sort(random.normal(size=UNITS))
    return pool(np.repeat(scores, size), np.repeat(correct, size), np.repeat(np.arange(UNITS), size))


def alike(random: np.random.Generator, size: int = 8, error: float = 0.2, apart: float = 2.0) -> LabelledData:
    """Units of some answers each that share most of what makes them right or wrong, and of their scores."""
    share = 0.9
    shared, own = random.normal(size=(2, UNITS, 1)), random.normal(size=(2, UNITS, size))
    latent, noise = np.sqrt(share) * shared + np.sqrt(1 - share) * own
    correct = latent < np.quantile(latent, 1 - error)
    scores = noise + apart * ~correct
    return pool(scores.ravel(), correct.ravel(), np.repeat(np.arange(UNITS), size))


def of_many_sizes(random: np.random.Generator) -> LabelledData:
    """Units of 1 to 12 answers, the larger ones harder."""
    sizes = random.integers(1, 13, size=UNITS)
    units = np.repeat(np.arange(UNITS), sizes)
    ease = random.normal(size=UNITS) - sizes / 6
    correct = ease[units] + 0.5 * random.normal(size=len(units)) > -2.2
    scores = random.normal(np.where(correct, 0.0, 2.0)) - 0.3 * ease[units]
    return pool(scores, correct, units)


def runs(random: np.random.Generator, count: int = 10_000) -> tuple[LabelledData, LabelledData]:
    """Return runs of 5 to 60 steps by the largest score of each, and by every step."""
    lengths = random.integers(5, 61, size=count)
    correct = random.random(count) >= 0.2
    owner = np.repeat(np.arange(count), lengths)
    level = random.normal(np.where(correct, 0.0, 0.8), 0.5)
    steps = level[owner] + random.normal(size=len(owner))
    largest = np.maximum.reduceat(steps, np.concatenate(([0], np.cumsum(lengths)[:-1])))
    return pool(largest, correct), pool(steps, correct[owner], owner)


LAWS: Final[dict[str, Callable[[np.random.Generator], LabelledData]]] = {
    "continuous, 20 % wrong": normal,
    "rounded to ties": ties,
    "three values, two infinite": infinities,
    "scores missing, of the wrong more": missing,
    "1 % wrong": lambda random: normal(random, error=0.01),
    "confidently wrong": confidently_wrong,
    "no threshold is right": on_the_edge,
    "8 answers a unit, much alike": alike,
    "1 to 12 answers a unit": of_many_sizes,
    "8 answers a unit, no threshold is right": lambda random: on_the_edge(random, size=8),
}
SHIFTS: Final[dict[str, Callable[[np.random.Generator], LabelledData]]] = {
    "more errors: 35 % wrong": lambda random: normal(random, error=0.35),
    "harder to tell: apart by 1 of 2": lambda random: normal(random, apart=1.0),
    "all scores higher by 0.5": lambda random: pool(
        (data := normal(random)).columns["score"] + 0.5, data.correct
    ),
    "all scores lower by 0.5": lambda random: pool(
        (data := normal(random)).columns["score"] - 0.5, data.correct
    ),
}


def rows(part: str, law: str, found: list[Guarantee]) -> list[dict[str, Any]]:
    """Return the rows of a table, and print them."""
    named = [{"part": part, "law": law} | one.to_dict() for one in found]
    for row in named:
        print(json.dumps(row), flush=True)
    return named


def synthetic(draws: int) -> list[dict[str, Any]]:
    """Return the rows of all laws, and of what breaks the promises."""
    table: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"alpha": ALPHA, "delta": DELTA, "draws": draws, "goals": AT_ONCE}
    for number, (name, law) in enumerate(LAWS.items()):
        data = law(np.random.default_rng((1, number)))
        for asked["units"] in SIZES:
            table += rows("laws", name, guarantees_of_pool(data, PLAIN, **asked))
            if data.n_units < len(data):
                wrong = guarantees_of_pool(data, PLAIN, **asked, as_independent=True)
                table += rows("as if independent", name, wrong)
    asked["goals"] = ("streaming",)
    largest, steps = runs(np.random.default_rng(4))
    for asked["units"] in SIZES:
        name = "runs of 5 to 60 steps"
        table += rows("laws", name, guarantees_of_pool(largest, PLAIN, **asked))
        table += rows("single steps", name, guarantees_of_pool(steps, PLAIN, **asked, deployed=largest))
    data = LAWS["continuous, 20 % wrong"](np.random.default_rng((1, 0)))
    asked["goals"] = AT_ONCE
    for number, (name, law) in enumerate(SHIFTS.items()):
        later = law(np.random.default_rng((2, number)))
        table += rows("shifted", name, guarantees_of_pool(data, PLAIN, **asked, deployed=later))
    return table


def speed(count: int = 100_000) -> dict[str, float]:
    """Return the seconds of one calibration on that many answers, for each goal."""
    data = normal(np.random.default_rng(3))
    repeats = -(-count // UNITS)
    scores = np.tile(data.columns["score"], repeats)[:count]
    correct = np.tile(data.correct, repeats)[:count]
    seconds = {}
    for goal in GOALS:
        delta = DELTA if goal == "selective-risk" else None
        began = time.perf_counter()
        find_threshold(goal, scores, correct, np.arange(count), alpha=ALPHA, delta=delta)
        seconds[goal] = time.perf_counter() - began
    return seconds


def pool_of_file(path: Path) -> LabelledData:
    """Return a pool from a file, as the module's docstring says."""
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files if name not in {"correct", "units"}}
        correct = file["correct"].astype(bool)
        units = file["units"].astype(np.int64) if "units" in file.files else np.arange(len(correct))
    return LabelledData(
        ids=tuple(map(str, range(len(correct)))), correct=correct, columns=columns, units=units
    )


def markdown(table: list[dict[str, Any]]) -> str:
    """Return the table of a report, in percent."""

    def percent(value: float | None, error: float | None = None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.2f}" + ("" if error is None else f" ± {100 * error:.2f}")

    lines = [
        "| part | law | units | goal | refused | mean rate | of all | above α | passed | kept |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        counted = [percent(row[name] / row["draws"]) for name in ("refused", "violations")]
        cells = [row["part"], row["law"], str(row["units"]), f"`{row['goal']}`", counted[0]]
        cells += [percent(row["mean_rate"]), percent(row["mean_of_all"], row["standard_error"])]
        cells += [counted[1], percent(row["pass_rate"])]
        lines.append("| " + " | ".join([*cells, "yes" if row["kept"] else "**no**"]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000, help="calibrations a row")
    parser.add_argument("--pool", type=Path, help="a pool of your own")
    parser.add_argument("--score", default="msp", help="of the pool; 'score' is the column of that name")
    parser.add_argument("--units", type=int, default=300, help="of each draw from the pool")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--table", type=Path, help="Markdown")
    arguments = parser.parse_args()
    ran_on = provenance()
    report: dict[str, Any] = {
        "benchmark": "guarantees", "ran_on": ran_on, "alpha": ALPHA, "delta": DELTA, "draws": arguments.draws,
    }  # fmt: skip
    if arguments.pool:
        score: GateScore = PLAIN if arguments.score == "score" else score_named(arguments.score)
        asked: dict[str, Any] = {"units": arguments.units, "alpha": ALPHA, "delta": DELTA}
        found = guarantees_of_pool(pool_of_file(arguments.pool), score, **asked, draws=arguments.draws)
        report["rows"] = rows("pool", arguments.pool.stem, found)
    else:
        report["seconds_for_100000_answers"] = speed()
        report["rows"] = synthetic(arguments.draws)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if arguments.table:
        arguments.table.write_text(markdown(report["rows"]), encoding="utf-8")


if __name__ == "__main__":
    main()
