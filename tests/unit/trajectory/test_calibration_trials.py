"""Promises by repeated calibrations on pools of known truth: `benchmarks/guarantees.py`, made small."""

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cert.core.errors import ConfigurationError, InfeasibleError
from cert.trajectory.calibration.goals import GOALS, find_threshold, realised_rate
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import Score
from cert.trajectory.calibration.trials import guarantees_of_pool

SCORE = Score("score", "score", 1)


@pytest.fixture(scope="module")
def benchmark_module():
    """The benchmark's own laws, with pools that are small enough for a test."""
    folder = Path(__file__).parents[3] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("guarantees", folder / "guarantees.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    module.__dict__["UNITS"] = 4000
    return module


def pool(scores, correct, units=None):
    return LabelledData(
        ids=tuple(map(str, range(len(scores)))),
        correct=np.asarray(correct),
        columns={"score": np.asarray(scores, dtype=float)},
        units=np.arange(len(scores)) if units is None else np.asarray(units),
    )


LAWS = [
    "continuous, 20 % wrong", "rounded to ties", "three values, two infinite",
    "scores missing, of the wrong more", "1 % wrong", "confidently wrong", "no threshold is right",
    "8 answers a unit, much alike", "1 to 12 answers a unit", "8 answers a unit, no threshold is right",
]  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
def test_the_promises_are_kept(benchmark_module, law):
    """In the mean over calibrations, and for all but δ of them, the stated rate is the rate that one gets."""
    data = benchmark_module.LAWS[law](np.random.default_rng(8))
    for found in guarantees_of_pool(data, SCORE, units=120, alpha=0.1, delta=0.2, draws=120):
        assert found.kept, found


def test_every_law_of_the_benchmark_is_tried(benchmark_module):
    """A law that is added to the benchmark is added here."""
    assert list(benchmark_module.LAWS) == LAWS


def test_answers_of_a_unit_taken_for_independent_break_the_promise(benchmark_module):
    """Eight answers about each person are not eight times the evidence; hence the unit column."""
    data = benchmark_module.LAWS["8 answers a unit, no threshold is right"](np.random.default_rng(0))
    asked: dict[str, Any] = {
        "units": 100,
        "alpha": 0.05,
        "delta": 0.1,
        "goals": ("selective-risk",),
        "draws": 100,
    }
    (right,) = guarantees_of_pool(data, SCORE, **asked)
    (wrong,) = guarantees_of_pool(data, SCORE, **asked, as_independent=True)
    assert right.kept
    assert not wrong.kept
    assert wrong.violations > 30


def test_a_shift_breaks_the_promise(benchmark_module):
    """The promise is about answers like those that were labelled, and about no others."""
    data, later = (law(np.random.default_rng(1)) for law in (
        benchmark_module.LAWS["continuous, 20 % wrong"], benchmark_module.SHIFTS["all scores lower by 0.5"],
    ))  # fmt: skip
    asked: dict[str, Any] = {
        "units": 300,
        "alpha": 0.05,
        "draws": 60,
        "goals": ("misses", "undetected-errors"),
    }
    assert all(one.kept for one in guarantees_of_pool(data, SCORE, **asked))
    assert not any(one.kept for one in guarantees_of_pool(data, SCORE, **asked, deployed=later))


def test_steps_taken_for_runs_break_the_streaming_promise(benchmark_module):
    """One step in twenty above a threshold is nearly every run with an alarm."""
    largest, steps = benchmark_module.runs(np.random.default_rng(2), 2000)
    asked: dict[str, Any] = {"units": 100, "alpha": 0.05, "draws": 60, "goals": ("streaming",)}
    assert guarantees_of_pool(largest, SCORE, **asked)[0].kept
    assert guarantees_of_pool(steps, SCORE, **asked, deployed=largest)[0].mean_rate > 0.2


def test_the_figures_of_a_pool_are_its_rates():
    """A harness that reads the truth off wrongly proves nothing: here it is computed in another way."""
    random = np.random.default_rng(5)
    units = random.integers(0, 150, size=600)
    scores = np.where(random.random(600) < 0.05, math.nan, random.integers(0, 30, size=600))
    data = pool(scores, random.random(600) > scores / 60, units)
    found = guarantees_of_pool(data, SCORE, units=1, alpha=0.6, delta=0.6, draws=40, seed=3)
    names = np.unique(units)
    for goal, one in zip(GOALS, found, strict=True):
        rates = []
        for draw in range(40):
            unit = names[np.random.default_rng((3, draw)).integers(len(names), size=1)[0]]
            part = data.take(units == unit)
            try:
                threshold = find_threshold(
                    goal, part.columns["score"], part.correct, part.units, alpha=0.6,
                    delta=0.6 if goal == "selective-risk" else None, seed=draw,
                )  # fmt: skip
            except InfeasibleError:
                continue
            rates.append(realised_rate(goal, threshold.value, scores, data.correct, units))
        assert one.refused == 40 - len(rates)
        rates = [0.0 if math.isnan(rate) else rate for rate in rates]
        assert one.violations == sum(rate > 0.6 for rate in rates)
        if rates:
            assert one.mean_rate == pytest.approx(np.mean(rates))
            assert one.mean_of_all == pytest.approx(np.sum(rates) / 40)


def test_the_same_seed_gives_the_same_figures():
    """A committed table can be computed again."""
    data = pool(np.arange(500) % 37, np.arange(500) % 5 > 0)
    asked: dict[str, Any] = {"units": 60, "alpha": 0.2, "draws": 10}
    once = guarantees_of_pool(data, SCORE, **asked)
    assert [one.to_dict() for one in once] == [
        one.to_dict() for one in guarantees_of_pool(data, SCORE, **asked)
    ]
    assert once != guarantees_of_pool(data, SCORE, **asked, seed=1)


@pytest.mark.parametrize("wrong", [{"draws": 1}, {"units": 0}, {"alpha": 1.5}, {"goals": ("all",)}])
def test_what_tells_nothing_is_refused(wrong: dict[str, Any]):
    """A single draw has no spread, and an unknown goal no promise."""
    data = pool(np.arange(50), np.ones(50, dtype=bool))
    asked: dict[str, Any] = {"units": 30, "alpha": 0.2, "draws": 5} | wrong
    with pytest.raises(ConfigurationError):
        guarantees_of_pool(data, SCORE, **asked)


def test_a_pool_is_read_from_a_file(benchmark_module, tmp_path):
    """The command of the documentation takes a pool of the user's own."""
    random = np.random.default_rng(6)
    np.savez(tmp_path / "pool.npz", score=random.random(200), correct=random.random(200) > 0.3)
    data = benchmark_module.pool_of_file(tmp_path / "pool.npz")
    assert (len(data), data.n_units, data.correct.dtype) == (200, 200, np.bool_)
    table = benchmark_module.markdown(
        [{"part": "pool", "law": "x"} | one.to_dict()
         for one in guarantees_of_pool(data, SCORE, units=50, alpha=0.2, draws=5)]
    )  # fmt: skip
    assert table.count("\n") == 2 + len(GOALS)
