"""One analysis as a command's result: for people or as JSON, and as a report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from cert.cli.console import results, stderr
from cert.core.errors import GenerationTimeoutError

if TYPE_CHECKING:
    from rich.console import Console

    from cert.trajectory import TrajectoryAnalysis

__all__ = ["ResultOptions", "as_json_line", "show"]


@dataclass(frozen=True)
class ResultOptions:
    """Where the analysis goes."""

    PANEL: ClassVar[str] = "Result"
    as_json: Annotated[bool, typer.Option("--json", help="Print the analysis as JSON, and nothing else.")] = (
        False
    )
    html: Annotated[Path | None, typer.Option("--html", help="Also write a self-contained HTML report.")] = (
        None
    )

    def check(self, *inputs: Path | None) -> None:
        """Make sure, before the work, that the report can be written and takes the place of no input.

        Raises:
            typer.BadParameter: the report would overwrite an input.
            OutputError: it cannot be written.
        """
        from cert.cli.output import check_writable

        if self.html is None:
            return
        check_writable(self.html)
        if any(file is not None and self.html.exists() and self.html.samefile(file) for file in inputs):
            raise typer.BadParameter("--html names a file that the input comes from")

    def give(self, analysis: TrajectoryAnalysis) -> None:
        """Print the analysis and write its report.

        Raises:
            OutputError: one of them cannot be written.
        """
        if self.html is not None:
            from cert.cli.output import write_text
            from cert.trajectory.report import render_report

            write_text(self.html, render_report(analysis))
        with results() as out:
            if self.as_json:
                typer.echo(as_json_line(analysis.to_dict()))
            else:
                show(analysis, out)
        if self.html is not None:
            stderr().print(f"report: {self.html}", markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def even_if_late(self) -> Iterator[None]:
        """Print what was measured when the time is over during a block, whose error goes on."""
        try:
            yield
        except GenerationTimeoutError as error:
            if error.partial is not None:
                self.give(error.partial)
            raise


def as_json_line(data: object) -> str:
    """Return JSON in which nothing that a model wrote can steer the terminal that shows it."""
    return json.dumps(data, allow_nan=False)


def show(analysis: TrajectoryAnalysis, out: Console) -> None:
    """Print an analysis for people; where there are no colours, marks stand for them."""
    from cert.cli.view import analysis_view, needs_marks

    out.print(analysis_view(analysis, marked=needs_marks(out)))
