"""The page on energy says what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/explanation/energy.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "benchmarks/results/energy.json").read_text(encoding="utf-8"))
SCOPES = {"all": "people seen in training", "read 4 to 64 times": "facts read 4 to 64 times"}
RIVALS = {
    "best of p_max and MSP": "energy_minus_best_of_p_max_and_msp",
    "best of surprisal and entropy": "energy_minus_best_of_its_terms",
}


def rows(columns: int) -> list[list[str]]:
    """The rows of the page's table with so many columns, without its head."""
    lines = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns][2:]


def parts(scope: str) -> list[dict[str, Any]]:
    """What was measured on each model in one scope."""
    return [model["scopes"][SCOPES[scope]] for model in RESULTS["models"].values()]


def written(estimate: dict[str, float], sign: str = "") -> str:
    """An estimate with its interval as the page writes it."""
    value, low, high = (f"{estimate[key]:{sign}.3f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def differences() -> Iterator[dict[str, float]]:
    """Every difference that the page shows."""
    for scope in SCOPES:
        for part in parts(scope):
            for rival in RIVALS.values():
                yield from part[rival].values()


def test_the_tables_are_those_of_the_committed_results():
    """A figure that was typed or is old misleads whoever decides by it."""
    scores = rows(4)
    assert len(scores) == 10
    for name, *cells in scores:
        assert cells == [written(part["auroc"][name]) for part in parts("all")]
    compared = rows(5)
    assert len(compared) == 8
    for name, scope, *cells in compared:
        energy, rival = name.split(" − ")
        assert cells == [written(part[RIVALS[rival]][energy], "+") for part in parts(scope)]


def test_the_words_say_what_the_tables_say():
    """The sentence that people remember must be true of every number."""
    assert "energy adds nothing to the detection of wrong answers" in PAGE
    assert all(difference["value"] < 0.0 for difference in differences())
    assert "every interval excludes it" in PAGE
    assert all(difference["high"] < 0.0 for difference in differences())
    for scope in SCOPES:
        for part in parts(scope):
            auroc = {name: estimate["value"] for name, estimate in part["auroc"].items()}
            assert auroc["max entropy"] < auroc["max energy"] < auroc["max surprisal"]
