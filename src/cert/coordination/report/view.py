"""What the page shows, worked out here so that the template only places it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from cert._version import __version__
from cert.coordination.dynamics import RoundChange
from cert.coordination.metrics import CoordinationMetrics
from cert.coordination.report import charts
from cert.coordination.report.cautions import cautions
from cert.coordination.report.transcripts import rows_of, talks, transcript_view
from cert.coordination.report.words import (
    difference_of,
    further_point,
    headline,
    money,
    points,
    ratio,
    scores,
    tokens,
    verdict_word,
)
from cert.coordination.suite.findings import ArmTotal, Findings
from cert.coordination.suite.report import CoordinationReport
from cert.coordination.types import Task, Verdict
from cert.reporting.numbers import NOT_MEASURED, number

__all__ = ["suite_view", "task_numbers", "task_view"]

_ICONS: Final[dict[Verdict, str]] = {
    "worth_it": "pass",
    "not_worth_it": "fail",
    "not_enough_data": "undecided",
}
_COSTS: Final = {
    "coordinated": "Cost of the team",
    "independent": "of the independent agents",
    "budget": "of one agent with its budget",
    "judging": "of judging",
}
_NOT_STATED = "not stated"


def suite_view(report: CoordinationReport) -> dict[str, Any]:
    """Return everything that the template needs of a suite."""
    said, left_out = talks(report.rows)
    return {
        "title": _title(report.findings),
        "question": f"Is the team worth it? {report.tasks:,} tasks, {len(report.findings)} "
        f"system{'s' * (len(report.findings) != 1)}, teams of {report.num_agents}",
        "systems": [_system(found, report.rules.margin) for found in report.findings],
        "cautions": cautions(report),
        "budget": charts.budget_forest(report),
        "difference": charts.difference_forest(report),
        "scatter": charts.scatter(report),
        "attribution": charts.attribution(report),
        "tasks": rows_of(report.rows),
        "talks": said,
        "left_out": left_out,
        "facts": _facts(report),
        "margin": points(report.rules.margin, signed=False),
    }


def task_view(metrics: CoordinationMetrics, task: Task | None) -> dict[str, Any]:
    """Return everything that the template needs of one task."""
    return {
        "title": "One task cannot tell",
        "strategy": metrics.strategy,
        "task": task,
        "numbers": task_numbers(metrics),
        "costs": [(_COSTS.get(name, name), money(amount)) for name, amount in metrics.cost.items()],
        "talks": [transcript_view(said, metrics.strategy) for said in metrics.transcripts],
        "facts": [
            ("Strategy", metrics.strategy),
            ("Agents", str(metrics.num_agents)),
            ("Runs of the team", str(metrics.replicates)),
            ("Slowest agents of all rounds", f"{metrics.critical_path_seconds:.3g} s"),
            ("Duration", f"{metrics.seconds:.3g} s"),
            ("CERT", __version__),
        ],
    }


def _title(findings: Sequence[Findings]) -> str:
    for verdict in ("worth_it", "not_worth_it", "not_enough_data"):
        names = [found.system for found in findings if found.verdict == verdict]
        if names:
            return f"{verdict_word(verdict)}: {', '.join(names)}"
    return "Nothing was measured"


def _system(found: Findings, margin: float) -> dict[str, Any]:
    return {
        "name": found.system,
        "icon": _ICONS[found.verdict],
        "word": verdict_word(found.verdict),
        "headline": headline(found, margin),
        "reasons": found.reasons,
        "numbers": [
            ("γ_budget", ratio(found.decision.ratio), "team over one agent with its budget"),
            ("difference", difference_of(found.decision.difference), "the same in points of 100"),
            (
                "Ω",
                difference_of(found.omega_best_agent)
                if found.omega_best_agent is not None
                else f"{NOT_MEASURED}: needs two replicates",
                "against the best agent, chosen on other runs",
            ),
            ("a point more costs", further_point(found), "than the single agent's"),
            ("could be found", _detectable(found), "smallest difference with so many tasks"),
            ("noise floor", _floor(found), "the single agent against itself"),
        ],
        "classic": [
            ("γ", ratio(found.gamma), "over independent agents"),
            ("ω", difference_of(found.omega), _bias(found)),
            ("consensus", _share(found.consensus), f"on {found.consensus_tasks} tasks"),
            ("agreement beyond chance", _agreement(found), "Krippendorff's α"),
            ("left lying", points(found.oracle_gap), "best answer in the talk less the final one"),
        ],
        "arms": [
            _arm("team", found.team),
            _arm(_single(found), found.single),
            _arm("independent agents", found.independent),
        ],
        "judge": money(found.judge_cost),
        "match": NOT_MEASURED if found.budget_ratio is None else f"{found.budget_ratio:.2f}",
        "changes": [_change(change) for change in found.changes],
        "identity": found.identity,
    }


def _arm(name: str, arm: ArmTotal) -> dict[str, Any]:
    per_point = arm.cost_per_point
    return {
        "name": name,
        "quality": scores(arm.quality),
        "missing": f"{arm.missing} of {arm.runs}" if arm.missing else "",
        "tokens": tokens(arm),
        "cost": money(arm.cost),
        "per_point": "" if per_point is None or per_point.value is None else f"{per_point.value:,.0f} µ$",
        "seconds": NOT_MEASURED if arm.median_seconds is None else f"{arm.median_seconds:.2g} s",
    }


def _single(found: Findings) -> str:
    if found.samples is None:
        return "one agent, same budget"
    return f"one agent, same budget ({found.samples:.3g} samples)"


def _detectable(found: Findings) -> str:
    effect = found.decision.minimum_detectable_effect
    return NOT_MEASURED if effect is None else f"{points(effect, signed=False)} points"


def _floor(found: Findings) -> str:
    floor = found.decision.noise_floor
    return f"{points(floor.value, signed=False)} points" if floor.value is not None else NOT_MEASURED


def _bias(found: Findings) -> str:
    if found.omega_bias is None:
        return "against the best of the agents; biased down"
    return f"against the best of the agents; {points(found.omega_bias)} if coordination did nothing"


def _agreement(found: Findings) -> str:
    if found.agreement is None or found.agreement.alpha is None:
        return NOT_MEASURED
    return f"{found.agreement.alpha:.2f}"


def _share(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{100.0 * value:.0f} %"


def _change(change: RoundChange) -> dict[str, str]:
    return {
        "round": str(change.round),
        "lost": f"{change.right_to_wrong} of {change.right_before}",
        "won": f"{change.wrong_to_right} of {change.wrong_before}",
        "adopted": f"{change.adopted} of {change.outside_majority}",
        "conformed": f"{change.adopted_wrong} of {change.outside_wrong_majority}",
    }


def task_numbers(metrics: CoordinationMetrics) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of each number of one task; of a missing one, why it is."""

    def told(name: str, value: float | None, write: Any = number) -> str:
        return (
            write(value) if value is not None else f"{NOT_MEASURED}: {metrics.missing.get(name, 'no score')}"
        )

    samples = "" if metrics.budget_samples is None else f", {metrics.budget_samples} samples"
    return [
        ("team", scores(metrics.coordinated_quality), "quality of the coordinated answer, of 100"),
        ("one agent", scores(metrics.budget_quality), f"quality with the team's budget{samples}"),
        ("independent agents", scores(metrics.independent_quality), "mean quality"),
        ("γ_budget", told("gamma_budget", metrics.gamma_budget), "team over one agent with its budget"),
        ("γ", told("gamma", metrics.gamma), "team over the independent agents"),
        ("ω", told("omega", metrics.omega, points), "points over the best of them; biased down"),
        (
            "Ω",
            told("omega_best_agent", metrics.omega_best_agent, points),
            "points over the best agent, chosen on other runs",
        ),
        ("consensus", told("consensus_rate", metrics.consensus_rate, _share), "largest group of one answer"),
        ("voting", told("voting_gain", metrics.voting_gain, points), "points that a vote adds to one agent"),
        (
            "talking",
            told("talking_gain", metrics.talking_gain, points),
            "points that talking adds to the vote",
        ),
    ]


def _facts(report: CoordinationReport) -> list[tuple[str, str]]:
    estimate = report.estimate
    expected = (
        _NOT_STATED
        if estimate is None
        else f"{money(estimate.expected)} expected, {money(estimate.at_most)} at most, "
        f"{estimate.calls:,} calls"
    )
    return [
        ("Run", report.run),
        ("Created", report.created_at),
        ("Tasks", f"{report.tasks:,}"),
        ("Agents", str(report.num_agents)),
        ("Runs of a team on a task", str(report.replicates)),
        ("Margin", f"{points(report.rules.margin, signed=False)} points"),
        ("Level", f"{100.0 * report.rules.level:g} %, shared among the systems"),
        ("Seed", _NOT_STATED if report.seed is None else str(report.seed)),
        ("Scores by", report.evaluator),
        ("Single agent", report.single_agent),
        *((f"System {found.system}", found.identity) for found in report.findings),
        ("Estimate", expected),
        ("Paid this time", money(report.spent)),
        ("Saved by the store", money(report.saved)),
        ("Possibly lost", str(report.lost)),
        ("Duration", f"{report.seconds:,.1f} s"),
        ("CERT", __version__),
    ]
