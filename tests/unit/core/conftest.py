"""Measures, while the tests of the core run, how many of its error paths they take, and prints it.

Only these tests are traced, so that no other test gets slower; not among them a few slow ones, such as the
state machines, which repeat what others do thousands of times. Below the bound the run fails, provided that
all tests of this folder ran.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

# Slow under a tracer, and nothing in them that other tests do not run as well.
UNTRACED = {"runTest", "test_a_hundred_thousand_events_leave_no_memory_behind"}
HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LEAST_PERCENT = 80.0


class Measurement:
    """The tracer, and what of this folder has been run."""

    def __init__(self) -> None:
        self.tracer: coverage.Coverage | None = None
        self.files: set[Path] = set()
        self.left_out = 0
        self.found: Any = None

    def start(self) -> None:
        if self.tracer is None:
            # Not the configuration of `make coverage`: this one keeps its data in memory.
            self.tracer = coverage.Coverage(
                data_file=None, config_file=False, branch=True, include=[str(ROOT / "src/cert/core/*")]
            )
            self.tracer.set_option("report:exclude_also", ["raise NotImplementedError", ": \\.\\.\\.$"])
        self.tracer.start()

    def stop(self) -> None:
        assert self.tracer is not None
        self.tracer.stop()

    def finish(self) -> None:
        """Count, once, what was taken."""
        if self.tracer is None or self.found is not None:
            return
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "coverage.json"
            self.tracer.json_report(outfile=str(report))
            counted = json.loads(report.read_text(encoding="utf-8"))
        self.found = _script().error_paths(counted, Path.cwd())

    @property
    def whole(self) -> bool:
        """Whether every test of this folder ran."""
        return not self.left_out and self.files == set(HERE.glob("test_*.py"))


def _script() -> Any:
    """The program that does the counting."""
    specification = importlib.util.spec_from_file_location("error_paths", ROOT / "scripts/error_paths.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    return module


_measurement = Measurement()


@pytest.fixture(scope="session")
def error_paths_script() -> Any:
    """scripts/error_paths.py as a module."""
    return _script()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _measurement.files.add(item.path)
    # Under somebody else's tracer (`make coverage`) there is nothing to measure with.
    if item.name in UNTRACED or sys.gettrace() is not None:
        return (yield)
    _measurement.start()
    try:
        return (yield)
    finally:
        _measurement.stop()


def pytest_deselected(items: list[pytest.Item]) -> None:
    _measurement.left_out += sum(item.path.parent == HERE for item in items)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    _measurement.finish()
    found = _measurement.found
    if found is not None and _measurement.whole and exitstatus == 0 and found.percent < LEAST_PERCENT:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = _measurement.found
    if found is None:
        return
    told = f"error paths of cert.core: {found.percent:.1f} % of {found.total} branches and handlers run"
    if not _measurement.whole:
        if found.total:
            terminalreporter.write_line(f"{told} (not all tests of the core ran)")
        return
    enough = found.percent >= LEAST_PERCENT
    terminalreporter.write_line(f"{told}, at least {LEAST_PERCENT:g} % asked for", red=not enough)
    for place in found.missed:
        terminalreporter.write_line(f"  not run: {place}")
