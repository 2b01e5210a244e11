"""When not to believe a report: what of this very run limits what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cert.coordination.report.words import points
from cert.coordination.statistics.inference import FEW_CLUSTERS, FEW_DISCORDANT
from cert.coordination.suite.findings import Findings
from cert.coordination.suite.report import CoordinationReport

__all__ = ["cautions"]

# One agent takes whole samples: a team of 1.4 samples' worth is matched by one.
_CLOSE: Final = (0.8, 1.25)
_STOPPED: Final = {
    "budget": "The budget of a client ended before the tasks did",
    "max_cost": "The suite was stopped at the most that it may cost",
}


def cautions(report: CoordinationReport) -> tuple[str, ...]:
    """Return in sentences why numbers of a report may mislead, the gravest first."""
    return (*_of_the_run(report), *_of_systems(report), *_of_scores(report), *_ALWAYS)


_ALWAYS: Final = (
    "A verdict is about tasks like these, asked of these models with these prompts, and of no others.",
    "The classic γ and ω are no evidence: without any effect γ is above 1 half of the time, and ω is biased "
    "down, since the best of several is lucky. The verdict rests on neither.",
    "Agreement is not quality. Agents that agree more while they are right less often conform.",
)


def _of_the_run(report: CoordinationReport) -> Iterator[str]:
    if report.stopped is not None:
        reason = _STOPPED.get(report.stopped, f"The run was stopped: {report.stopped}")
        yield f"{reason}: whatever was measured until then is here, and the rest is missing."
    if report.lost.calls:
        told = str(report.lost)
        yield f"{told[:1].upper()}{told[1:]}. The costs here are without them."


def _of_systems(report: CoordinationReport) -> Iterator[str]:
    named: dict[str, list[str]] = {}
    for found in report.findings:
        for told in _of_a_system(found):
            named.setdefault(told, []).append(found.system)
    for told, systems in named.items():
        yield f"{', '.join(systems)}: {told}."


def _of_a_system(found: Findings) -> Iterator[str]:
    difference, floor = found.decision.difference, found.decision.noise_floor
    if found.missing:
        yield f"{found.missing} of {found.tasks + found.missing} tasks have no score in one of the arms"
    if found.budget_ratio is not None and not _CLOSE[0] <= found.budget_ratio <= _CLOSE[1]:
        yield (
            f"the single agent spent {found.budget_ratio:.2f} times as much as the team, since it takes "
            "whole samples"
        )
    if not floor.stable:
        yield "the single agent differs from itself between its runs: model or judge changed meanwhile"
    if floor.value is not None and floor.value > abs(difference.value or 0.0) > 0.0:
        yield (
            f"the difference is within what the single agent differs from itself, "
            f"{points(floor.value, signed=False)} points"
        )
    if 2 <= difference.sources < FEW_CLUSTERS or difference.discordant < FEW_DISCORDANT:
        yield (
            f"{difference.sources} independent tasks, on {difference.discordant} of which team and single "
            "agent differ, are few: the interval is a wide one on purpose"
        )


def _of_scores(report: CoordinationReport) -> Iterator[str]:
    if report.evaluator.startswith("match("):
        yield (
            "Scores come from a rule that compares answers with references. An answer that is right in other "
            "words than the rule knows counts as wrong, in both arms."
        )
    elif report.evaluator.startswith("quality("):
        yield (
            "Scores come from a language model that judges. Its noise is in the intervals; what it prefers "
            "for other reasons than quality, such as length or its own family's style, is not."
        )
    if report.seed is None:
        yield "No seed was given: where a model has seeds, a new run draws other answers."
