"""An evaluation on a terminal: the finding first, then each score, then when not to believe it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cert.cli.view import printable

if TYPE_CHECKING:
    from cert.trajectory.evaluation import EvaluationReport

__all__ = ["evaluation_lines"]


def evaluation_lines(report: EvaluationReport) -> RenderableType:
    """Return everything that a person wants to see of an evaluation."""
    from cert.trajectory.evaluation.cautions import cautions
    from cert.trajectory.evaluation.words import headline

    parts: list[RenderableType] = [
        Text(printable(headline(report)), "bold"),
        Text(f"  {_answers(report)}"),
        Padding(_scores(report), (1, 0, 0, 2)),
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


def _scores(report: EvaluationReport) -> Table:
    from cert.trajectory.evaluation.words import figure, ordered, ranged, signed

    table = _table("score", "AUROC", "AUPRC", "PRR", "AURC", "E-AURC", "ECE", "Brier", "length", "n")
    for one in ordered(report):
        honest = one.probability
        cells = [
            ranged(one.auroc),
            *(figure(found.value) for found in (one.auprc, one.prr, one.aurc, one.excess_aurc)),
            figure(None if honest is None else honest.ece),
            figure(None if honest is None else honest.brier.value),
            signed(one.length_correlation, 2),
            f"{one.n:,}",
        ]
        table.add_row(printable(one.name), *("–" if cell == "not measured" else cell for cell in cells))
    return table


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
