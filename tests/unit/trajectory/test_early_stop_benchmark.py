"""`benchmarks/early_stop.py`, made small: false alarms over biographies, and the tokens that are saved."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def benchmark():
    folder = Path(__file__).parents[3] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("early_stop_benchmark", folder / "early_stop.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def runs(benchmark):
    from cert.backends.local import LocalBackend
    from cert.reference import weights

    backend = LocalBackend.load(str(weights.path()))
    try:
        return benchmark.biographies(backend, 16, 3, 240)
    finally:
        backend.close()


def test_false_alarms_on_people_held_out_are_as_seldom_as_promised(benchmark, runs):
    """The promise of the certificate, on runs of several facts, by truth that is known exactly."""
    splits = 60
    for score in ("max_surprisal", "max_cusum"):
        found = benchmark.curve(runs, score, 0.2, splits)
        assert found["refused"] == 0
        alarms = found["false_alarms"]
        assert alarms["mean"] <= 0.2 + 4 * alarms["sd"] / math.sqrt(splits)
        assert 0.0 < found["saved_of_all_runs"]["mean"] < found["saved_of_wrong_runs"]["mean"] < 1.0
        assert found["wrong_runs_found"]["mean"] > alarms["mean"]


def test_a_run_is_wrong_from_the_first_token_of_its_first_wrong_value(benchmark, runs):
    """A delay that is counted from elsewhere says nothing."""
    wrong = [run for run in runs if run.wrong_at is not None]
    assert 0 < len(wrong) < len(runs)
    assert all(0 <= run.wrong_at < len(run.steps) for run in wrong)
    assert len({run.person for run in runs}) == len(runs)


def test_the_contestants_generate_the_same(benchmark):
    """A comparison of two different texts would compare nothing."""
    backend = benchmark.endless()
    try:
        found = benchmark.overhead(backend, "msp", 3, 12)
    finally:
        backend.close()
    assert found["same_tokens"]
    assert len(found["relative_time"]) == len(found["relative_processor_time"]) == 3
