"""The coordination half of ``cert demo``: is a team of the reference model worth what it spends?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cert.cli.console import stderr
from cert.core.errors import DependencyMissingError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from cert.backends.base import Backend
    from cert.coordination.suite import CoordinationReport
    from cert.coordination.types import Task
    from cert.reference.world import Fact, World

__all__ = ["demo_team"]

# Facts that the model knows by halves: where every answer is right, or none, no team changes anything.
_EXPOSURES: Final = (4, 8, 16, 32, 64)
_QUESTIONS: Final = 12
_SYSTEMS: Final = ("vote", "parallel", "debate")
_MAX_TOKENS: Final = 20


def demo_team(backend: Backend, world: World, html: Path, out: Console) -> None:
    """Measure three strategies, print what was found and write the report.

    Args:
        backend: the reference model.
        world: whose truths are known.
        html: where the report goes.
        out: where the findings go.
    """
    from cert.cli.output import write_text
    from cert.coordination.report import render

    tasks = list(_tasks(world))
    out.print(
        f"Would three of this model do better? {len(tasks)} questions that it half knows, each put to a team "
        "and to one agent that may spend the same tokens.\n",
        highlight=False,
    )
    try:
        with stderr().status("asking teams of three, some hundred times"):
            report = asyncio.run(_measured(backend, tasks))
    except DependencyMissingError as error:
        out.print(f"Not measured: {error.message}; {error.hint}", markup=False, highlight=False)
        return
    for line in _lines(report):
        out.print(line)
    out.print(_lesson(report), highlight=False)
    write_text(html, render(report))
    out.print(f"HTML report of the teams: {html.resolve()}", markup=False, highlight=False, soft_wrap=True)


def _tasks(world: World) -> Iterator[Task]:
    """Yield the first facts of each exposure in turn, each of another person."""
    from cert.coordination.types import Task

    asked: set[str] = set()
    kinds = cycle([_facts(world, exposures) for exposures in _EXPOSURES])
    while len(asked) < _QUESTIONS:
        fact = next(fact for fact in next(kinds) if fact.person.name not in asked)
        asked.add(fact.person.name)
        yield Task(fact.question(), references=(fact.value,))


def _facts(world: World, exposures: int) -> Sequence[Fact]:
    return [
        fact
        for fact in world.facts
        if fact.exposures == exposures and not fact.person.question_person and not fact.person.never_seen
    ]


async def _measured(backend: Backend, tasks: Sequence[Task]) -> CoordinationReport:
    from cert.coordination.baseline import BaselineMeasurer
    from cert.coordination.clients.in_process import InProcessChatClient
    from cert.coordination.evaluators import normalized
    from cert.coordination.orchestrator import CoordinationOrchestrator
    from cert.coordination.prompts import load_prompts

    prompts, evaluator = load_prompts("reference-v1"), normalized()
    async with InProcessChatClient(backend=backend, top_logprobs=0) as client:
        baseline = BaselineMeasurer(client, evaluator, prompts=prompts, max_tokens=_MAX_TOKENS, seed=1)
        orchestrator = CoordinationOrchestrator(
            client, baseline, evaluator, prompts=prompts, max_tokens=_MAX_TOKENS
        )
        return await orchestrator.measure_suite(tasks, _SYSTEMS, seed=1, concurrency=len(tasks))


def _lines(report: CoordinationReport) -> Iterator[RenderableType]:
    from rich.text import Text

    from cert.cli.coordinate_view import verdict_sign
    from cert.coordination.report.words import difference_of, scores

    for found in report.findings:
        numbers = (
            f"  team {scores(found.team.quality)} of 100, one agent {scores(found.single.quality)}; "
            f"difference {difference_of(found.decision.difference)}"
        )
        yield Text.assemble(f"{found.system:<10}", verdict_sign(found.verdict), (numbers, "dim"))


def _lesson(report: CoordinationReport) -> str:
    claims = [found for found in report.findings if found.verdict != "not_enough_data"]
    if claims:
        names = ", ".join(found.system for found in claims)
        return f"\nA claim is made of {names}; of the others, a suite of hundreds of tasks would say more.\n"
    return (
        "\nTwelve questions decide nothing, and CERT says so: a gain on them would be luck as well as not. "
        "`cert coordinate suite` measures yours, with the price of each point.\n"
    )
