"""How much of a package's error handling its tests run, from a JSON report of coverage.py with branches.

    python scripts/error_paths.py coverage.json [--least 80]

Counted are, of each file of the report: the branches of every decision one side of which raises or handles an
error (both sides: an error that is always raised is as wrong as one that never is), every ``except`` clause,
and every ``raise`` that no such branch leads to.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ErrorPaths", "error_paths"]

_SIMPLE = (
    ast.Expr,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.Delete,
    ast.Import,
    ast.ImportFrom,
    ast.Assert,
)


@dataclass(frozen=True)
class ErrorPaths:
    """What was counted: ``missed`` names file and place of each path that no test took."""

    total: int
    missed: tuple[str, ...]

    @property
    def percent(self) -> float:
        """The share that was run; 100 where there is nothing to run."""
        return 100.0 if self.total == 0 else 100.0 * (self.total - len(self.missed)) / self.total


def error_paths(report: dict[str, Any], folder: Path = Path()) -> ErrorPaths:
    """Count the error paths of all files in a report.

    Args:
        report: as ``coverage json`` writes it, measured with branches.
        folder: that the report's file names are relative to.
    """
    total = 0
    missed: list[str] = []
    for name, measured in report["files"].items():
        places = list(_places((folder / name).read_text(encoding="utf-8"), measured))
        total += len(places)
        missed += [f"{name}:{place}" for place, taken in places if not taken]
    return ErrorPaths(total, tuple(missed))


def _places(source: str, measured: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield each error path of one file and whether it was taken."""
    raising, handlers = _error_lines(ast.parse(source))
    executed, excluded = set(measured["executed_lines"]), set(measured["excluded_lines"])
    taken = {tuple(arc) for arc in measured["executed_branches"]}
    branches = taken | {tuple(arc) for arc in measured["missing_branches"]}
    decisions = {start for start, end in branches if end in raising or end in handlers}
    for start, end in sorted(branches):
        if start in decisions:
            yield f"{start}->{'exit' if end < 0 else end}", (start, end) in taken
    led_to = {raising[end] for _, end in branches if end in raising}
    for line in sorted({*handlers, *(set(raising.values()) - led_to)} - excluded):
        yield str(line), line in executed


def _error_lines(tree: ast.AST) -> tuple[dict[int, int], set[int]]:
    """Return the lines from which there is but the way to a ``raise``, with its line; and handlers' first."""
    raising: dict[int, int] = {}
    handlers: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            handlers.add(node.body[0].lineno)
        for suite in _suites(node):
            at: int | None = None
            for statement in reversed(suite):
                if isinstance(statement, ast.Raise):
                    at = statement.lineno
                elif not isinstance(statement, _SIMPLE):
                    at = None
                if at is not None:
                    raising[statement.lineno] = at
    return raising, handlers


def _suites(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        suite = getattr(node, name, None)
        if isinstance(suite, list):
            yield suite


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("--least", type=float, default=0.0, help="fail below so many percent")
    arguments = parser.parse_args()
    found = error_paths(json.loads(arguments.report.read_text(encoding="utf-8")))
    print(f"error paths: {found.percent:.1f} % of {found.total} run; missed:", *found.missed, sep="\n  ")
    sys.exit(found.percent < arguments.least)


if __name__ == "__main__":
    main()
