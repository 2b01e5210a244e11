"""What a suite or one task showed, on a terminal: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cert.cli.view import printable

if TYPE_CHECKING:
    from cert.coordination.metrics import CoordinationMetrics
    from cert.coordination.suite import CoordinationReport, Findings
    from cert.coordination.suite.findings import ArmTotal
    from cert.coordination.types import Verdict

__all__ = ["suite_lines", "task_lines", "verdict_sign"]

_SIGNS: Final[dict[Verdict, tuple[str, str]]] = {
    "worth_it": ("✔ WORTH IT", "bold green"),
    "not_worth_it": ("✘ NOT WORTH IT", "bold red"),
    "not_enough_data": ("? NOT ENOUGH DATA", "bold yellow"),
}


def suite_lines(report: CoordinationReport) -> RenderableType:
    """Return everything that a person wants to see of a suite."""
    from cert.coordination.report.cautions import cautions

    parts: list[RenderableType] = []
    for found in report.findings:
        parts += [*_verdict(found, report.rules.margin), Padding(_numbers(found), (0, 0, 1, 2))]
    if not report.findings:
        parts.append(Text("nothing was measured"))
    parts.append(Text("When not to believe it", "bold"))
    parts += [Text(f"  · {printable(told)}", "dim") for told in cautions(report)]
    parts.append(Text(f"\n{_paid(report)}"))
    return Group(*parts)


def task_lines(metrics: CoordinationMetrics) -> RenderableType:
    """Return everything that a person wants to see of one task."""
    from cert.coordination.report.view import task_numbers

    table = _table()
    for name, value, meaning in task_numbers(metrics):
        table.add_row(Text(name, "dim"), Text(value), Text(meaning, "dim"))
    costs = ", ".join(f"{name} ${amount}" for name, amount in metrics.cost.items() if amount)
    return Group(
        Text.assemble(_SIGNS[metrics.verdict], f"  {printable(metrics.strategy)}"),
        Text(
            "One task, one run, is always too little: if coordination did nothing, γ would still be above "
            "1 half of the time. `cert coordinate suite` measures many tasks."
        ),
        Padding(table, (0, 0, 1, 2)),
        Text(f"it cost: {costs}" if costs else "it cost nothing"),
    )


def verdict_sign(verdict: Verdict) -> tuple[str, str]:
    """Return a verdict as a word with its sign, and its style."""
    return _SIGNS[verdict]


def _verdict(found: Findings, margin: float) -> Iterator[Text]:
    from cert.coordination.report.words import headline

    yield Text.assemble(_SIGNS[found.verdict], f"  {printable(found.system)}")
    yield Text(f"  {headline(found, margin)}")
    yield from (Text(f"  · {printable(reason)}", "dim") for reason in found.reasons)


def _numbers(found: Findings) -> Table:
    from cert.coordination.report import words

    decision = found.decision
    best = found.omega_best_agent
    table = _table()
    rows: list[tuple[str, str, str]] = [
        ("γ_budget", words.ratio(decision.ratio), "team over one agent that spends the same"),
        (
            "Ω",
            words.difference_of(best) if best is not None else "not measured",
            "points against the best agent"
            if best is not None
            else "the best agent is chosen on other runs: --replicates 2",
        ),
        ("quality", _qualities(found), "of 100: team, one agent that spends the same, independent agents"),
        ("cost", _costs(found.team, found.single), "team, one agent that spends the same"),
        ("a point more", words.further_point(found), "costs"),
    ]
    if found.more_tasks is not None:
        rows.append(("more tasks", f"about {found.more_tasks:,}", "would decide"))
    for name, value, meaning in rows:
        table.add_row(Text(name, "dim"), Text(value), Text(meaning, "dim"))
    return table


def _table() -> Table:
    table = Table.grid(padding=(0, 3))
    for _ in range(3):
        table.add_column(overflow="fold")  # half a number is a wrong one
    return table


def _qualities(found: Findings) -> str:
    from cert.coordination.report.words import scores

    return ", ".join(scores(arm.quality) for arm in (found.team, found.single, found.independent))


def _costs(*arms: ArmTotal) -> str:
    from cert.coordination.report.words import money, tokens

    if all(arm.cost == 0 for arm in arms):
        return "; ".join(f"{tokens(arm)} tokens" for arm in arms)
    return ", ".join(f"{money(arm.cost)} for {arm.runs:,} runs" for arm in arms)


def _paid(report: Any) -> str:
    from cert.coordination.report.words import money

    return f"paid {money(report.spent)}, saved {money(report.saved)}; run {report.run}"
