"""``cert demo``: both jobs, offline, on the reference model, where every answer's truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cert.cli.console import quiet_libraries, results, stderr

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from cert.reference.world import Fact, World
    from cert.trajectory import HamiltonianMonitor, TrajectoryAnalysis

__all__ = ["demo"]

# How often training showed the facts that are asked about: well known, seen a few times, never seen.
_EXPOSURES = (512, 4, 0)


def demo(
    html: Annotated[Path, typer.Option("--html", help="Where to write the HTML report.")] = Path(
        "cert-demo.html"
    ),
) -> None:
    """Watch the reference model answer three questions, then measure whether teams of it are worth it."""
    from cert.cli.demo_team import demo_team
    from cert.cli.output import check_writable
    from cert.trajectory import HamiltonianMonitor

    teams = html.with_stem(f"{html.stem}-teams")
    for path in (html, teams):
        check_writable(path)
    with stderr().status("loading the reference model"):
        quiet_libraries()
        from cert.reference.world import load_world

        world = load_world()
        monitor = HamiltonianMonitor(preload=True)
    with results() as out, monitor:
        _ask(monitor, _facts(world), html, out)
        with monitor.resource.acquire() as backend:
            demo_team(backend, world, teams, out)


def _ask(monitor: HamiltonianMonitor, facts: list[Fact], html: Path, out: Console) -> None:
    from cert.cli.output import write_text
    from cert.trajectory import Message
    from cert.trajectory.report import render_report

    out.print(
        "The reference model learnt invented biographies. How often it read each fact is known, and so is "
        "the truth. The facts below are the first ones of their kind; nobody looked at the answers.\n"
    )
    analyses = []
    for fact in facts:
        analysis = monitor.analyze([Message("user", fact.question())])
        analyses.append(analysis)
        out.print(_answer(fact, analysis))
    out.print(_lesson(facts, analyses), highlight=False)
    write_text(html, render_report(analyses))
    out.print(f"HTML report: {html.resolve()}\n", markup=False, highlight=False, soft_wrap=True)


def _facts(world: World) -> list[Fact]:
    # Questions about these people were never trained, so that each answer is recalled from sentences.
    candidates = [
        fact for fact in world.facts if not fact.person.question_person and not fact.person.never_seen
    ]
    return [next(fact for fact in candidates if fact.exposures == exposures) for exposures in _EXPOSURES]


def _answer(fact: Fact, analysis: TrajectoryAnalysis) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from cert.cli.view import printable, token_text, verdict_text

    times = "never" if fact.exposures == 0 else f"{fact.exposures} times"
    right = fact.states(analysis.generated_text)
    truth = Text("right", "green") if right else Text(f"wrong, the truth is {fact.value}", "red")
    signals = analysis.signals
    numbers = (
        f"  probability of the answer {math.exp(signals.sequence_logprob):.2f}, "
        f"largest entropy of a token {signals.max_entropy_lower:.2f} nats"
    )
    reasons = () if analysis.passed_quality_check else analysis.decision.reasons
    return Group(
        Text.assemble(("Q  ", "dim"), fact.question(), (f"   (read {times} in training)", "dim")),
        Text.assemble(("A  ", "dim"), token_text(analysis), "   ", truth),
        Text.assemble("   ", verdict_text(analysis), (numbers, "dim")),
        *(Text(f"   · {printable(reason)}", "dim") for reason in reasons),
        "",
    )


def _lesson(facts: list[Fact], analyses: list[TrajectoryAnalysis]) -> str:
    passed_wrong = sum(
        analysis.passed_quality_check and not fact.states(analysis.generated_text)
        for fact, analysis in zip(facts, analyses, strict=True)
    )
    told = (
        f"{passed_wrong} wrong answer passed" if passed_wrong == 1 else f"{passed_wrong} wrong answers passed"
    )
    return (
        f"{told} these thresholds. They are version 3's and uncalibrated: no error rate belongs to them, "
        "while the numbers behind them tell the answers apart (`cert reference evaluate` says how well).\n"
    )
