"""Measures, while the tests of the core run, how many of its error paths they take, and prints it.

A plugin of pytest that tests/conftest.py registers. Only the core's tests are traced, so that no other test
gets slower; not among them a few slow ones, such as the state machines, which repeat what others do thousands
of times. Below the bound the run fails, provided that all of these tests ran. Where several processes share
the tests (pytest-xdist), each sends what it has traced to the one that counts.
"""

from __future__ import annotations

import base64
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
ROOT = Path(__file__).parents[1]
CORE = ROOT / "tests/unit/core"
LEAST_PERCENT = 80.0
_SENT = "core_error_paths"


def script() -> Any:
    """The program that does the counting, scripts/error_paths.py."""
    specification = importlib.util.spec_from_file_location("error_paths", ROOT / "scripts/error_paths.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    return module


class CoreErrorPaths:
    """The tracer, and what of the core's tests has been run, here and in other processes."""

    def __init__(self) -> None:
        # Not the configuration of `make coverage`: this one keeps its data in memory.
        self.tracer = coverage.Coverage(
            data_file=None, config_file=False, branch=True, include=[str(ROOT / "src/cert/core/*")]
        )
        self.tracer.set_option("report:exclude_also", ["raise NotImplementedError", ": \\.\\.\\.$"])
        self.files: set[str] = set()
        self.left_out = 0
        self.traced = False
        self.found: Any = None

    @property
    def whole(self) -> bool:
        """Whether every test of the core ran."""
        return not self.left_out and self.files == {path.name for path in CORE.glob("test_*.py")}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if item.path.parent != CORE:
            return (yield)
        self.files.add(item.path.name)
        # Under somebody else's tracer (`make coverage`) there is nothing to measure with.
        if item.name in UNTRACED or sys.gettrace() is not None:
            return (yield)
        self.traced = True
        self.tracer.start()
        try:
            return (yield)
        finally:
            self.tracer.stop()

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.left_out += sum(item.path.parent == CORE for item in items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:  # pytest-xdist
        """Take what another process has sent before it ended."""
        sent = getattr(node, "workeroutput", {}).get(_SENT)
        if sent is None:
            return
        self.files |= set(sent["files"])
        self.left_out = max(self.left_out, sent["left_out"])  # each process leaves out the same
        if sent["traced"]:
            data = coverage.CoverageData(no_disk=True)
            data.loads(base64.b64decode(sent["traced"]))
            self.tracer.get_data().update(data)
            self.traced = True

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            data = self.tracer.get_data().dumps() if self.traced else b""
            output[_SENT] = {
                "files": sorted(self.files),
                "left_out": self.left_out,
                "traced": base64.b64encode(data).decode(),
            }
        elif self.traced:
            self.found = self._count()
            if self.whole and exitstatus == 0 and self.found.percent < LEAST_PERCENT:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        found = self.found
        if found is None:
            return
        told = f"error paths of cert.core: {found.percent:.1f} % of {found.total} branches and handlers run"
        if not self.whole:
            if found.total:
                terminalreporter.write_line(f"{told} (not all tests of the core ran)")
            return
        enough = found.percent >= LEAST_PERCENT
        terminalreporter.write_line(f"{told}, at least {LEAST_PERCENT:g} % asked for", red=not enough)
        for place in found.missed:
            terminalreporter.write_line(f"  not run: {place}")

    def _count(self) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "coverage.json"
            try:
                self.tracer.json_report(outfile=str(report))
            except coverage.exceptions.NoDataError:  # tests of the core that run none of its lines
                return script().ErrorPaths(0, ())
            counted = json.loads(report.read_text(encoding="utf-8"))
        return script().error_paths(counted, Path.cwd())
