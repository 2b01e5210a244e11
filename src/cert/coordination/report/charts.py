"""The charts: forests of intervals, bars of what voting and talking add, and cost against quality."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Final

from cert.coordination.clients.prices import Price
from cert.coordination.report.words import difference_of, interval_of, money, points, ratio, scores
from cert.coordination.statistics.inference import Difference
from cert.coordination.suite.findings import ArmTotal, Findings
from cert.coordination.suite.report import CoordinationReport
from cert.coordination.types import Interval
from cert.reporting.scales import Scale, differences, linear, ratios

__all__ = ["attribution", "budget_forest", "difference_forest", "scatter"]

_CLOSE: Final = 3.0  # per cent, in which labels would lie on each other


def budget_forest(report: CoordinationReport) -> dict[str, Any] | None:
    """Return γ_budget of each system; ``None`` where it is measured of none."""
    found = [(one, one.decision.ratio) for one in report.findings if one.decision.ratio.interval is not None]
    if not found:
        return None
    ends = [
        end
        for _, each in found
        for end in (each.value or 1.0, *((each.interval.low, each.interval.high) if each.interval else ()))
    ]
    scale = ratios(ends)
    return {
        "scale": scale,
        "guides": [(scale.at(1.0), "as good")],
        "band": None,
        "rows": [
            _row(one.system, one.verdict, each.value, each.interval, scale, ratio(each))
            for one, each in found
        ],
    }


def difference_forest(report: CoordinationReport) -> dict[str, Any] | None:
    """Return each system less the single agent and less the best agent, in points of 100."""
    margin = report.rules.margin
    rows: list[tuple[Findings, str, float | None, Interval, str, str]] = []
    for one in report.findings:
        difference = one.decision.difference
        if difference.value is not None:
            interval = interval_of(one)
            told = f"{points(difference.value)} ({points(interval.low)} to {points(interval.high)})"
            rows.append(
                (one, "than one agent with its budget", difference.value, interval, one.verdict, told)
            )
        for name, omega in (("than its best agent, Ω", one.omega_best_agent), ("classic ω", one.omega)):
            if _shown(omega):
                assert omega is not None
                rows.append((one, name, omega.value, omega.interval, "none", difference_of(omega)))
    if not rows:
        return None
    floors = [one.decision.noise_floor.value or 0.0 for one in report.findings]
    ends = [100.0 * end for row in rows for end in (row[3].low, row[3].high)]
    scale = differences([*ends, 100.0 * margin, *(100.0 * floor for floor in floors)])
    return {
        "scale": scale,
        "guides": [(scale.at(0.0), "no difference"), (scale.at(100.0 * margin), "margin")],
        "band": None,
        "rows": [
            _row(
                one.system,
                kind,
                None if value is None else 100.0 * value,
                Interval(100.0 * interval.low, 100.0 * interval.high, interval.level, interval.method),
                scale,
                told,
                name=name,
                band=_band(one, scale) if kind != "none" else None,
            )
            for one, name, value, interval, kind, told in rows
        ],
    }


def attribution(report: CoordinationReport) -> dict[str, Any] | None:
    """Return what voting and talking add to one agent, for each system of which it is known."""
    known = [(one, one.attribution) for one in report.findings if one.attribution and one.attribution.tasks]
    if not known:
        return None
    parts = [100.0 * (part or 0.0) for _, each in known for part in (each.total, each.voting, each.talking)]
    scale = differences(parts)
    rows = []
    for one, each in known:
        voting, talking = 100.0 * (each.voting or 0.0), 100.0 * (each.talking or 0.0)
        rows.append(
            {
                "system": one.system,
                "voting": _bar(voting, scale),
                "talking": _bar(talking, scale),
                "total": scale.at(100.0 * (each.total or 0.0)),
                "told": f"voting {points(each.voting)}, talking {points(each.talking)}, "
                f"together {points(each.total)}",
                "tasks": each.tasks,
            }
        )
    return {"scale": scale, "zero": scale.at(0.0), "rows": rows}


def scatter(report: CoordinationReport) -> dict[str, Any] | None:
    """Return cost a task against quality of each system and of the single agent with its budget.

    In dollars; where everything is free, in tokens weighted as budgets are matched.
    """
    arms = [(one, one.team, one.single) for one in report.findings if one.tasks]
    free = all(arm.cost == 0 for _, *both in arms for arm in both if arm.cost is not None)
    placed = []
    for number, (one, team, single) in enumerate(arms, 1):
        ends = [(_cost(arm, free), arm.quality) for arm in (team, single)]
        if all(cost is not None and quality is not None for cost, quality in ends):
            placed.append((number, one, ends))
    if not placed:
        return None
    costs: list[float] = [cost for _, _, ends in placed for cost, _ in ends if cost is not None]
    qualities = [100.0 * quality for _, _, ends in placed for _, quality in ends if quality is not None]
    x = linear([0.0, *costs], (lambda v: f"{v:,.0f}") if free else (lambda v: money(Decimal(f"{v:.6f}"))))
    y = linear(qualities, lambda value: f"{value:g}")
    marks = [
        {
            "number": number,
            "system": one.system,
            "verdict": one.verdict,
            "team": _place(ends[0], x, y),
            "single": _place(ends[1], x, y),
            "told": f"team {scores(ends[0][1])} points for {_written(ends[0][0], free)} a task, one agent "
            f"{scores(ends[1][1])} for {_written(ends[1][0], free)}",
        }
        for number, one, ends in placed
    ]
    return {
        "x": x,
        "y": y,
        "marks": _labelled(marks),
        "unit": "weighted tokens a task: one read counts a fifth of one written"
        if free
        else "dollars a task",
        "absent": [one.system for one, *_ in arms if all(one is not kept for _, kept, _ in placed)],
    }


def _shown(found: Difference | None) -> bool:
    return found is not None and found.value is not None and found.sources > 1


def _row(
    system: str,
    kind: str,
    value: float | None,
    interval: Interval | None,
    scale: Scale,
    told: str,
    *,
    name: str = "",
    band: tuple[float, float] | None = None,
) -> dict[str, Any]:
    assert interval is not None
    return {
        "system": system,
        "name": name,
        "kind": kind,
        "told": told,
        "level": f"{100.0 * interval.level:.4g} %",
        "value": None if value is None or not math.isfinite(value) else scale.at(value),
        "low": scale.at(interval.low),
        "high": scale.at(interval.high),
        "beyond_low": not scale.holds(interval.low),
        "beyond_high": not scale.holds(interval.high),
        "band": band,
    }


def _band(found: Findings, scale: Scale) -> tuple[float, float] | None:
    floor = found.decision.noise_floor.value
    if not floor:
        return None
    start, end = scale.at(-100.0 * floor), scale.at(100.0 * floor)
    return start, round(end - start, 2)


def _bar(value: float, scale: Scale) -> tuple[float, float]:
    start, end = sorted((scale.at(0.0), scale.at(value)))
    return start, round(end - start, 2)


def _cost(arm: ArmTotal, free: bool) -> float | None:
    if not arm.runs:
        return None
    if free:
        return None if arm.usage is None else Price.free().weight(arm.usage) / arm.runs
    return None if arm.cost is None else float(arm.cost) / arm.runs


def _written(cost: float | None, free: bool) -> str:
    assert cost is not None
    return f"{cost:,.0f} weighted tokens" if free else money(Decimal(f"{cost:.6f}"))


def _place(end: tuple[float | None, float | None], x: Scale, y: Scale) -> dict[str, float]:
    cost, quality = end
    assert cost is not None
    assert quality is not None
    return {"x": x.at(cost), "y": round(100.0 - y.at(100.0 * quality), 2)}


def _labelled(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move the labels of points that lie on each other apart."""
    taken: list[tuple[float, float]] = []
    for mark in marks:
        place = mark["team"]
        near = sum(abs(place["x"] - x) < _CLOSE and abs(place["y"] - y) < 2 * _CLOSE for x, y in taken)
        mark["shift"] = 11 + 13 * near
        taken.append((place["x"], place["y"]))
    return marks
