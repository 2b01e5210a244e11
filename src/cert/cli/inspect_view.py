"""Two compared logs on a terminal: the verdict first, then what it rests on and what limits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cert.cli.coordinate_view import verdict_sign
from cert.cli.view import printable

if TYPE_CHECKING:
    from cert.integrations.inspect_logs import ComparedLog, LogComparison

__all__ = ["comparison_lines"]

_SHOWN = 120


def comparison_lines(found: LogComparison) -> RenderableType:
    """Return everything that a person wants to see of a comparison."""
    name = found.scorer if found.key is None else f"{found.scorer}: {found.key}"
    sign, style = verdict_sign(found.decision.verdict)
    return Group(
        Text.assemble((sign, style), f"  {_cut(found.candidate.task)}, by {_cut(name)}"),
        Text(f"  {_headline(found)}"),
        *(Text(f"  · {printable(reason)}", "dim") for reason in found.decision.reasons),
        Text(f"  {printable(found.budgets)}", "yellow"),
        Padding(_numbers(found), (0, 0, 1, 2)),
        Padding(_logs(found.baseline, found.candidate), (0, 0, 1, 2)),
        Text("When not to believe it", "bold"),
        *(Text(f"  · {printable(told)}", "dim") for told in found.limits),
    )


def _headline(found: LogComparison) -> str:
    from cert.coordination.report.words import points

    difference = found.decision.difference
    if difference.value is None:
        return "No sample has a score in both logs."
    span = f"{points(difference.interval.low)} to {points(difference.interval.high)} points"
    margin = points(found.rules.margin, signed=False)
    if found.decision.verdict == "worth_it":
        return f"On these samples the candidate beats the baseline by more than {margin} points: {span}."
    if found.decision.verdict == "not_worth_it":
        return f"Whatever the candidate adds to the baseline, it is less than {margin} points: {span}."
    return f"These samples cannot tell the candidate from the baseline: {span}."


def _numbers(found: LogComparison) -> Table:
    from cert.coordination.report import words

    decision = found.decision
    floor = decision.noise_floor.value
    rows = [
        ("difference", words.difference_of(decision.difference), "points of 100, candidate less baseline"),
        ("γ", words.ratio(decision.ratio), "candidate over baseline"),
        ("samples", f"{decision.difference.tasks:,} of {found.samples:,}", "have a score in both logs"),
        ("noise floor", words.scores(floor), "points by which the baseline differs from itself"),
        ("can be found", _found(decision.minimum_detectable_effect), "points, in 80 % of such comparisons"),
        ("tokens", _times(found.token_ratio), "of a run, candidate over baseline"),
        ("written tokens", _times(found.output_token_ratio), "the same of those that were generated"),
        ("cost", _times(found.cost_ratio), "the same in money"),
    ]
    if decision.more_tasks is not None:
        rows.append(("more samples", f"about {decision.more_tasks:,}", "would decide"))
    table = _table(3)
    for name, value, meaning in rows:
        table.add_row(Text(name, "dim"), Text(value), Text(meaning, "dim"))
    return table


def _found(effect: float | None) -> str:
    from cert.coordination.report.words import scores

    return scores(effect) if effect is None or effect <= 1.0 else "nothing"


def _logs(*logs: ComparedLog) -> Table:
    from cert.coordination.report import words

    table = _table(3)
    table.add_row("", Text("baseline", "bold"), Text("candidate", "bold"))
    rows: dict[str, list[str | None]] = {
        "file": [one.path for one in logs],
        "model": [one.model for one in logs],
        "solver": [one.solver for one in logs],
        "task": [f"{one.task}, version {one.task_version}" for one in logs],
        "arguments": [_given(one.task_args) for one in logs],
        "dataset": [one.dataset for one in logs],
        "created": [one.created for one in logs],
        "git revision": [one.revision for one in logs],
        "ended": [one.status for one in logs],
        "epochs": [str(one.epochs) for one in logs],
        "quality": [words.scores(one.quality) for one in logs],
        "scores missing": [_counts(one.missing) for one in logs],
        "only in this log": [f"{one.only_here:,} samples" if one.only_here else None for one in logs],
        "tokens": [_tokens(one) for one in logs],
        "cost": [_money(one) for one in logs],
    }
    for name, values in rows.items():
        if any(values):
            table.add_row(Text(name, "dim"), *(Text(_cut(value or "-")) for value in values))
    return table


def _tokens(log: ComparedLog) -> str:
    usage = log.spending.usage
    if usage is None:
        return f"not measured: {log.spending.usage_missing}"
    read = usage.total_tokens - usage.output_tokens
    return f"{read:,} read, {usage.output_tokens:,} written in {log.spending.runs:,} runs"


def _money(log: ComparedLog) -> str:
    from cert.coordination.report.words import money

    if log.spending.cost is None:
        return f"not measured: {log.spending.cost_missing}"
    return money(log.spending.cost)


def _counts(missing: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in missing.items()) or "none"


def _given(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _times(ratio: float | None) -> str:
    return "not measured" if ratio is None else f"{ratio:.2f} times"


def _table(columns: int) -> Table:
    table = Table.grid(padding=(0, 3))
    for _ in range(columns):
        table.add_column(overflow="fold")  # half a number is a wrong one
    return table


def _cut(text: str) -> str:
    shown = printable(text[:_SHOWN])
    return shown if len(text) <= _SHOWN else f"{shown}…"
