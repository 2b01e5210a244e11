"""``cert coordinate``: whether a team of agents is worth it, on one task or on a suite of tasks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cert.cli.console import results, stderr
from cert.cli.coordinate_options import MoneyOptions, OutputOptions, ScoreOptions, TeamOptions
from cert.cli.given_text import given_text
from cert.cli.inspect_logs import inspect_logs
from cert.cli.option_groups import grouped
from cert.cli.outcome import EXIT_COULD_NOT_RUN, EXIT_INTERRUPTED, exit_with

if TYPE_CHECKING:
    from cert.cli.coordinate_setup import Setup
    from cert.coordination.metrics import CoordinationMetrics
    from cert.coordination.suite import CoordinationReport, SuitePlan
    from cert.coordination.types import Task

__all__ = ["app"]

_FAILED = 1


class _TaskByDefault(TyperGroup):
    """Takes whatever is no command for the task of ``cert coordinate task``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name before a task."""
        known = {*self.commands, *ctx.help_option_names}
        if args and args[0] not in known:
            args = ["task", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="coordinate",
    cls=_TaskByDefault,
    help="Whether a team of agents is worth it, against one agent that spends the same. "
    "`cert coordinate TASK` is `cert coordinate task TASK`.",
    no_args_is_help=True,
)
app.command("inspect")(inspect_logs)


class Wanted(StrEnum):
    """What a pipeline goes on with."""

    WORTH_IT = "worth-it"


@app.command("task")
@grouped
def task(
    text: Annotated[str | None, typer.Argument(metavar="TASK", help="The task; '-' reads it from stdin.")] = (
        None
    ),
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", exists=True, dir_okay=False, help="Read the task from a file."),
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="How the agents work together, such as vote or debate(rounds=1).")
    ] = "parallel",
    reference: Annotated[
        list[str] | None, typer.Option(help="A right answer of the task; may be repeated.")
    ] = None,
    *,
    team: TeamOptions,
    score: ScoreOptions,
    money: MoneyOptions,
    output: OutputOptions,
) -> None:
    """Measure one strategy on one task: point values, which are no finding.

    The answers are kept: the same command, run again, pays for nothing twice and tells the same. A task that
    is called as a command is given after `cert coordinate task`.

    Exit codes: 0 measured, 2 bad usage or input, 3 could not run, 130 stopped by Ctrl-C.
    """
    from cert.coordination.types import Task

    given = Task(given_text(text, file, "task"), references=tuple(reference or ()))
    output.check(*([file] if file else []))
    metrics = _stoppable(lambda: _task(given, strategy, team, score, money), money)
    if metrics is None:
        return
    from cert.cli.coordinate_view import task_lines
    from cert.coordination.report import render_task

    _give(metrics.to_dict(), task_lines(metrics), output, render_task(metrics, given))


@app.command("suite")
@grouped
def suite(
    tasks: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="Tasks: .jsonl, one JSON object a line with 'task' and, as wanted, 'id', 'references', "
            "'family', 'source'; or .txt, one task a line.",
        ),
    ],
    systems: Annotated[
        str, typer.Option(help="Strategies with commas between, such as vote,debate(rounds=1).")
    ] = "parallel",
    margin: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Smallest difference in score that is of use.")
    ] = 0.025,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Stop with a system as soon as it is decided.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Tasks at work at once.")] = 4,
    fail_unless: Annotated[
        Wanted | None, typer.Option(help="Exit code 1 unless at least one system has this verdict.")
    ] = None,
    *,
    team: TeamOptions,
    score: ScoreOptions,
    money: MoneyOptions,
    output: OutputOptions,
) -> None:
    """Measure strategies on many tasks, and say of each: worth it, not worth it, or not enough data.

    Everything that is paid for is kept. After Ctrl-C or a crash the same command goes on where it was, and
    pays for nothing twice. Keys come from CERT_ANTHROPIC_API_KEY and CERT_OPENAI_API_KEY alone.

    Exit codes: 0 measured, whatever the verdict; 1 --fail-unless was not met; 2 bad usage or input; 3 could
    not run, or the estimate is above --max-cost; 130 stopped by Ctrl-C.
    """
    from cert.cli.coordinate_setup import split_systems
    from cert.cli.coordinate_tasks import read_tasks
    from cert.coordination.statistics.verdict import Rules

    read = read_tasks(tasks)
    output.check(tasks)
    run = money.name()
    plan = {
        "systems": split_systems(systems),
        "num_agents": team.agents,
        "rules": Rules(margin=margin),
        "sequential": sequential,
        "concurrency": concurrency,
        "replicates": team.replicates,
        "seed": team.seed,
        "max_cost": money.most(),
        "run": run,
    }
    report = _stoppable(lambda: _suite(read, plan, team, score, money), money, run)
    if report is None:
        return
    from cert.cli.coordinate_view import suite_lines
    from cert.coordination.report import render

    _give(report.to_dict(), suite_lines(report), output, render(report) if output.html else "")
    if not report.findings:
        exit_with(EXIT_COULD_NOT_RUN)
    if fail_unless is not None and all(found.verdict != "worth_it" for found in report.findings):
        exit_with(_FAILED)


async def _task(
    given: Task, strategy: str, team: TeamOptions, score: ScoreOptions, money: MoneyOptions
) -> CoordinationMetrics | None:
    from cert.cli.coordinate_run import agreed
    from cert.cli.coordinate_setup import opened
    from cert.coordination import strategies

    name, parameters = strategies.parse(strategy)
    async with opened([given], team, score, money, kept_as=money.name() or "task") as setup:
        measured = setup.orchestrator
        plan = measured.plan(
            [given], [strategy], num_agents=team.agents, replicates=team.replicates, baseline_replicates=1
        )
        estimate = await measured.estimate(plan, money.answer_tokens)
        if not agreed(estimate, money.most(), yes=money.yes):
            return None
        with stderr().status("asking"):
            return await measured.measure_coordination(
                given, team.agents, name, replicates=team.replicates, seed=team.seed, **parameters
            )


async def _suite(
    tasks: list[Task], options: dict[str, Any], team: TeamOptions, score: ScoreOptions, money: MoneyOptions
) -> CoordinationReport | None:
    from cert.cli.coordinate_run import agreed, suite_progress
    from cert.cli.coordinate_setup import opened

    async with opened(tasks, team, score, money) as setup:
        plan = setup.orchestrator.plan(tasks, **options)
        if not agreed(await _estimate(setup, plan, money), money.most(), yes=money.yes):
            return None
        if money.again:
            stderr().print(f"run: {plan.run}", markup=False, highlight=False)
        with suite_progress() as moved:
            return await setup.orchestrator.measure_suite(
                plan, output_tokens=money.answer_tokens, on_progress=moved
            )


async def _estimate(setup: Setup, plan: SuitePlan, money: MoneyOptions) -> Any:
    with stderr().status("estimating what it costs"):
        return await setup.orchestrator.estimate(plan, money.answer_tokens)


def _stoppable(make: Any, money: MoneyOptions, run: str | None = None) -> Any:
    """Run a measurement; whoever stops it reads how it goes on."""
    from cert.cli.coordinate_run import Stopped, run_stoppable

    try:
        return run_stoppable(make)
    except Stopped:
        if money.place() is None:
            told = "stopped: nothing is kept (--store none)"
        elif money.again and run:
            told = f"stopped: what was paid for is kept; with --run {run} in place of --again it goes on"
        else:
            told = "stopped: what was paid for is kept; the same command, run again, goes on"
        stderr().print(told, markup=False, highlight=False, soft_wrap=True)
        exit_with(EXIT_INTERRUPTED)


def _give(data: dict[str, Any], lines: Any, output: OutputOptions, page: str) -> None:
    from cert.cli.result import as_json_line

    output.write(page)
    with results() as out:
        if output.as_json:
            typer.echo(as_json_line(data))
        else:
            out.print(lines)
