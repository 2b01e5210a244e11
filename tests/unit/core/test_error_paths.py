"""What counts as an error path: the figure that the tests of the core print is worth no more than that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import coverage
import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
def work(kind):
    if kind == "refused":
        told = "no"
        raise ValueError(told)
    if kind == "other":
        kind = "b"
    try:
        if kind == "broken":
            open("/missing/file")
    except OSError:
        kind = "c"
    if kind == "b":
        return 1
    told = "neither"
    raise KeyError(told)


def never():
    raise RuntimeError
"""


@pytest.fixture
def measure(tmp_path: Path) -> Any:
    """Run the program above with some arguments under a tracer; gives coverage's JSON report."""

    def run(*kinds: str) -> dict[str, Any]:
        path = tmp_path / "program.py"
        path.write_text(PROGRAM)
        calls = "\n".join(f"with contextlib.suppress(Exception): program.work({kind!r})" for kind in kinds)
        main = tmp_path / "main.py"
        main.write_text(f"import contextlib, program\n{calls}\n")
        command = [sys.executable, "-m", "coverage"]
        for step in (["run", "--branch", "--include=program.py", "main.py"], ["json", "-o", "report.json"]):
            subprocess.run([*command, *step], cwd=tmp_path, check=True, capture_output=True)
        report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
        return report

    return run


def lines(*missed: str) -> tuple[str, ...]:
    return tuple(f"program.py:{place}" for place in missed)


def test_both_sides_of_a_refusal_count_and_other_decisions_do_not(
    measure: Any, tmp_path: Path, error_paths_script: Any
) -> None:
    """A high figure must not come from decisions that no error is about, or from one of two sides."""
    found = error_paths_script.error_paths(measure("other"), tmp_path)
    assert found.total == 6, "two decisions with two sides each, one handler, one raise that nothing leads to"
    assert found.missed == lines("3->4", "13->15", "12", "20")
    assert found.percent == pytest.approx(100 * 2 / 6)


def test_what_was_run_counts_as_run(measure: Any, tmp_path: Path, error_paths_script: Any) -> None:
    """A test that is added must show."""
    found = error_paths_script.error_paths(measure("other", "refused", "broken"), tmp_path)
    assert found.missed == lines("20")


def test_the_program_fails_below_its_bound(measure: Any, tmp_path: Path) -> None:
    """A figure that nobody is stopped by falls."""
    measure("other")
    script = [sys.executable, str(ROOT / "scripts/error_paths.py"), "report.json", "--least"]
    for least, code in (("33", 0), ("34", 1)):
        done = subprocess.run([*script, least], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "33.3 % of 6" in done.stdout


def test_the_installed_coverage_can_be_used_this_way() -> None:
    """The measurement takes part of the reports' format for granted."""
    assert int(coverage.__version__.partition(".")[0]) >= 7
