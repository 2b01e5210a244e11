"""An evaluation on a terminal: the finding first, then each score, then when not to believe it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cert.cli.view import printable

if TYPE_CHECKING:
    from cert.trajectory.evaluation import EvaluationReport, ScoreEvaluation

__all__ = ["evaluation_lines"]


def evaluation_lines(report: EvaluationReport) -> RenderableType:
    """Return everything that a person wants to see of an evaluation."""
    from cert.trajectory.evaluation.cautions import cautions
    from cert.trajectory.evaluation.words import headline

    parts: list[RenderableType] = [
        Text(printable(headline(report)), "bold"),
        Text(f"  {_answers(report)}"),
        Padding(_Scores(report), (1, 0, 0, 2)),
        Text(_legend(report), "dim"),
        Padding(_probabilities(report), (1, 0, 1, 2)),
    ]
    if report.groups:
        parts.append(Padding(_groups(report), (0, 0, 1, 2)))
    parts.append(Text("When not to believe it", "bold"))
    parts += [Text(f"  · {printable(told)}", "dim") for told in cautions(report)]
    return Group(*parts)


def _answers(report: EvaluationReport) -> str:
    from cert.trajectory.evaluation.words import ranged

    return (
        f"{report.n:,} answers about {report.n_units:,} units, {report.n_wrong:,} wrong: "
        f"error rate {ranged(report.error_rate)}"
    )


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    return table


# A score's row in full, and what a narrow terminal has room for beside whole names and intervals.
_FULL = ("AUROC", "AUPRC", "PRR", "AURC", "E-AURC", "ECE", "Brier", "length", "n")
_NARROW = ("AUROC", "PRR", "AURC", "length")
_FULL_WIDTH = 116


class _Scores:
    """The table of all scores; ``--json`` and ``--html`` have every column whatever the width."""

    def __init__(self, report: EvaluationReport) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from cert.trajectory.evaluation.words import ordered

        columns = _FULL if options.max_width >= _FULL_WIDTH else _NARROW
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("score", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for one in ordered(self._report):
            found = _row(one)
            cells = ("–" if found[name] == "not measured" else found[name] for name in columns)
            table.add_row(printable(one.name), *cells)
        yield table


def _row(one: ScoreEvaluation) -> dict[str, str]:
    from cert.trajectory.evaluation.words import figure, ranged, signed

    honest = one.probability
    return {
        "AUROC": ranged(one.auroc),
        "AUPRC": figure(one.auprc.value),
        "PRR": figure(one.prr.value),
        "AURC": figure(one.aurc.value),
        "E-AURC": figure(one.excess_aurc.value),
        "ECE": figure(None if honest is None else honest.ece),
        "Brier": figure(None if honest is None else honest.brier.value),
        "length": signed(one.length_correlation, 2),
        "n": f"{one.n:,}",
    }


def _legend(report: EvaluationReport) -> str:
    most = f"{100 * report.max_rejection:g} %"
    return (
        f"  Wrong is what is to be found. PRR: at most {most} rejected. ECE, Brier score: of a "
        f"{report.probabilities} fit on other units. Length: correlation with the number of tokens. "
        f"Intervals: 95 %, {report.replicates:,} draws of units. –: not measured."
    )


def _probabilities(report: EvaluationReport) -> RenderableType:
    from cert.trajectory.evaluation.words import figure, ranged

    found = report.stated
    if found is None:
        return Text("probability of the whole answer: not measured")
    chance = figure(found.ece_by_chance)
    return Text(
        f"probability of the whole answer, as stated: ECE {figure(found.ece)} (by chance up to {chance}), "
        f"Brier score {ranged(found.brier)}, of a constant {figure(found.brier_constant)}"
    )


def _groups(report: EvaluationReport) -> Table:
    from cert.trajectory.evaluation.words import best_of, ranged

    best = best_of(report)
    table = _table("group", "answers", "error rate", "AUROC" if best is None else f"AUROC, {best.name}")
    for group in report.groups:
        auroc = None if best is None else group.auroc.get(best.name)
        table.add_row(printable(group.name), f"{group.n:,}", ranged(group.error_rate), ranged(auroc))
    return table
