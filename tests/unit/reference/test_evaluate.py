from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cert.cli.reference import app
from cert.core.errors import InputError, OutputError
from cert.reference import weights
from cert.reference.evaluate import LIMITS, evaluate
from cert.reference.generate import generate_world
from cert.reference.team import following_rates, majority
from cert.reference.world import Fact

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    return list(generate_world(0, 50).facts[:4])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    arguments = ["evaluate", "--limit", "2", "--json", f"{folder}/out.json", "--card", f"{folder}/CARD.md"]
    result = RUNNER.invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    (folder / "stdout.txt").write_text(result.stdout, encoding="utf-8")
    return folder


def test_the_command_gives_tables_json_and_a_card(evaluated: Path) -> None:
    """Otherwise the figures in the documentation cannot be measured again."""
    data = json.loads((evaluated / "out.json").read_text(encoding="utf-8"))
    assert data["schema_version"] == 1
    assert [row["exposures"] for row in data["recall"]] == [0, *(2**k for k in range(10))]
    assert {row["signal"] for row in data["signals"]} >= {"sequence_logprob", "p_true", "mean_energy"}
    assert all("length_correlation" in row for row in data["signals"])
    card = (evaluated / "CARD.md").read_text(encoding="utf-8")
    assert "Recall by exposure" in card
    assert "| sequence_logprob |" in card


def test_the_limits_are_printed_with_every_result(evaluated: Path) -> None:
    """Otherwise a number from an invented world travels without its warning."""
    card = (evaluated / "CARD.md").read_text(encoding="utf-8")
    shown = " ".join((evaluated / "stdout.txt").read_text(encoding="utf-8").split())
    data = json.loads((evaluated / "out.json").read_text(encoding="utf-8"))
    assert data["limits"] == list(LIMITS)
    for limit in LIMITS:
        assert limit in card
        assert limit in shown


def test_the_same_seed_gives_the_same_evaluation(evaluated: Path) -> None:
    """Otherwise a change of the numbers says nothing about a change of the model."""
    first = json.loads((evaluated / "out.json").read_text(encoding="utf-8"))
    again = json.loads(json.dumps(evaluate(weights.path(), limit=2).to_dict()))
    first.pop("run")
    again.pop("run")
    assert again == first


def test_a_model_without_a_world_is_refused(tmp_path: Path) -> None:
    """Otherwise the user of another model gets a stack trace instead of the reason."""
    with pytest.raises(InputError, match="only a reference model"):
        evaluate(tmp_path)


def test_an_output_that_cannot_be_written_fails_before_the_evaluation(tmp_path: Path) -> None:
    """Otherwise minutes of evaluation are lost to a wrong path."""
    (tmp_path / "file").touch()
    result = RUNNER.invoke(app, ["evaluate", "--json", str(tmp_path / "file" / "out.json")])
    assert isinstance(result.exception, OutputError)


def test_a_vote_takes_the_most_frequent_and_then_the_earliest() -> None:
    """Otherwise the vote row would measure the order of the samples."""
    assert majority(["a", "b", "b"]) == "b"
    assert majority(["a", "b", "c"]) == "a"


def test_following_rates_of_known_cases(facts: list[Fact]) -> None:
    """Otherwise conformity and rescue would be confused in the card."""
    truth = [fact.value for fact in facts]
    candidates = [
        [truth[0], truth[0], "x"],  # right majority, followed
        ["x", "x", truth[1]],  # wrong majority, truth recovered
        ["x", "x", "y"],  # wrong majority, followed
        ["x", "y", truth[3]],  # no majority
    ]
    rates = following_rates(facts, candidates, [truth[0], truth[1], "x", "x"])
    values = {rate.name.removeprefix("aggregation "): rate.estimate for rate in rates}
    assert values["follows a majority"].value == pytest.approx(2 / 3)
    assert (values["follows a wrong majority"].value, values["follows a wrong majority"].n) == (0.5, 2)
    assert (values["recovers a minority truth"].value, values["recovers a minority truth"].n) == (1.0, 1)


def test_every_number_of_an_evaluation_is_finite_or_missing(evaluated: Path) -> None:
    """Otherwise NaN in the JSON breaks strict readers, or stands for a measured value."""

    def numbers(node: object) -> list[float]:
        if isinstance(node, dict):
            return [n for value in node.values() for n in numbers(value)]
        if isinstance(node, list):
            return [n for value in node for n in numbers(value)]
        return [float(node)] if isinstance(node, int | float) else []

    assert np.isfinite(numbers(json.loads((evaluated / "out.json").read_text(encoding="utf-8")))).all()
