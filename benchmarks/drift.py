"""Whether drift is told apart as stated: a judge and a system that change, thousands of scores, known truth.

    python benchmarks/drift.py [--runs 200] [--noise 0.05] [--out FILE]

Each run has a reference phase of its own (the same in every cell) and a set of anchors of its own, then a
horizon of scores; the anchors are scored whenever that is due. Scores have a standard deviation of 15 points,
the judge's noise among it. Power and false alarms of the detector alone, over shapes of
scores, are in `coordination_statistics.py`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance

from cert.coordination.drift.anchors import Anchor, AnchorSet
from cert.coordination.drift.series import Plan, Series
from cert.coordination.types import Task

Floats = np.ndarray[Any, np.dtype[np.float64]]
CHANGES = {
    "nothing": (0.0, 0.0),
    "system -8": (0.0, -0.08),
    "system -15": (0.0, -0.15),
    "judge -8": (-0.08, 0.0),
    "judge -15": (-0.15, 0.0),
    "judge +8": (0.08, 0.0),
    "judge -8, system -8": (-0.08, -0.08),
    "judge -15, system -15": (-0.15, -0.15),
    "judge +8, system -8": (0.08, -0.08),
}


class World:
    """A system and a judge: answers have a quality, and scores the judge's shift and noise."""

    def __init__(self, seed: tuple[int, ...], noise: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        self.judge = self.system = 0.0

    def answers(self, count: int) -> Floats:
        """Return the qualities of new answers."""
        spread = np.sqrt(0.15**2 - self.noise**2)
        return self.rng.normal(0.7 + self.system, spread, count)

    def scores(self, answers: Floats) -> list[float]:
        """Return what the judge says of answers."""
        noisy = answers + self.judge + self.rng.normal(0.0, self.noise, len(answers))
        return [float(score) for score in np.clip(noisy, 0.0, 1.0)]


def run(series: Series, world: World, change: tuple[float, float], anchors: int) -> tuple[str, int | None]:
    """Return who was named last, and after how many scores somebody first was; the change is at once."""
    qualities = world.answers(anchors)
    frozen = AnchorSet(
        tuple(Anchor(Task(f"{i}"), f"{i}", score) for i, score in enumerate(world.scores(qualities))),
        "judge",
        0.0,
    )
    world.judge, world.system = change
    named_at = None
    for seen, score in enumerate(world.scores(world.answers(series.plan.horizon)), start=1):
        series = series.fed(score, 0.0)
        if series.check_due:
            series = series.checked(frozen, tuple(world.scores(qualities)), 0.0)
        if named_at is None and series.alarm is not None and series.alarm.kind != "unclear":
            named_at = seen
    return (series.alarm.kind if series.alarm is not None else "no alarm"), named_at


def reference(number: int, noise: float) -> Series:
    """Return a series after its reference phase."""
    series, world = Series(plan=Plan()), World((0, number), noise)
    for score in world.scores(world.answers(series.plan.reference)):
        series = series.fed(score, 0.0)
    return series


def cell(name: str, anchors: int, noise: float, references: list[Series]) -> dict[str, Any]:
    """Return how often each was named, and how soon."""
    number = list(CHANGES).index(name)
    results = [
        run(series, World((1, number, anchors, i), noise), CHANGES[name], anchors)
        for i, series in enumerate(references)
    ]
    kinds = Counter(kind for kind, _ in results)
    when = [at for _, at in results if at is not None]
    return {
        "change": name,
        "anchors": anchors,
        "judge_noise": noise,
        "named": {kind: count / len(results) for kind, count in sorted(kinds.items())},
        "median_scores_until_named": float(np.median(when)) if when else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200, help="of each cell")
    parser.add_argument("--noise", type=float, default=0.05, help="standard deviation of the judge's noise")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    ran_on, noise = provenance(), arguments.noise
    references = [reference(number, noise) for number in range(arguments.runs)]
    cells = []
    for anchors in (30, 60, 100):
        for name in CHANGES:
            cells.append(cell(name, anchors, noise, references))
            print(json.dumps(cells[-1]), flush=True)
    report = {"benchmark": "drift", "ran_on": ran_on, "runs_a_cell": arguments.runs, "cells": cells}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
