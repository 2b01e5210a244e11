"""``cert reference``: train and evaluate the small model that ships with CERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from cert.reference.tables import Table as TextTable

app = typer.Typer(
    name="reference",
    help="Train, evaluate and ask the small reference model, whose every hallucination is known.",
    no_args_is_help=True,
)


@app.command("train")
def train_command(
    out: Annotated[Path, typer.Argument(help="Folder for the finished model.")],
    seed: Annotated[int, typer.Option(help="Seed of the world, the text and the initial weights.")] = 0,
    people: Annotated[int, typer.Option(min=50, help="People in the world.")] = 2000,
    follow: Annotated[int, typer.Option(min=0, help="Prompts about throw-away names.")] = 160_000,
    work: Annotated[Path | None, typer.Option(help="Folder of the checkpoint [default: OUT.run].")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device [default: a GPU if there is one].")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: torch's choice].")] = None,
) -> None:
    """Train the reference model from a seed; run the same command again to resume after an interruption."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cert.reference.recipe import Recipe
    from cert.reference.run import train

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=None, loss=float("nan"))

        def report(done: int, total: int, loss: float) -> None:
            progress.update(task, completed=done, total=total, loss=loss)

        recipe = Recipe(seed=seed, people=people, follow=follow)
        folder = train(recipe, out, work=work, device=device, threads=threads, report=report)
    typer.echo(str(folder))


@app.command("evaluate")
def evaluate_command(
    model: Annotated[
        Path | None, typer.Argument(help="Folder of the model [default: the shipped one].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of samples, probes and intervals.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many facts at each exposure count [default: all].")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results as JSON.")] = None,
    card: Annotated[Path | None, typer.Option(help="Write a model card in Markdown.")] = None,
) -> None:
    """Measure recall by exposure, how well signals find errors, and how templates are followed."""
    from rich.console import Console
    from rich.progress import Progress

    from cert.cli.output import check_writable, write_text
    from cert.reference import weights
    from cert.reference.card import model_card
    from cert.reference.evaluate import LIMITS, evaluate
    from cert.reference.tables import tables

    for file in (json_file, card):
        if file is not None:
            check_writable(file)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("asking", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=max(done, total))

        evaluation = evaluate(model or weights.path(), seed=seed, limit=limit, advance=advance)
    if json_file is not None:
        write_text(json_file, json.dumps(evaluation.to_dict(), indent=2) + "\n")
    if card is not None:
        write_text(card, model_card(evaluation))
    console = Console()
    for table in tables(evaluation):
        console.print(_rich_table(table))
    for line in LIMITS:
        console.print(f"• {line}")


@app.command("answers")
def answers_command(
    out: Annotated[Path, typer.Argument(help="JSONL file for the answers, a record a line.")],
    people: Annotated[int, typer.Option(min=1, help="People to ask about, drawn by chance.")] = 400,
    facts: Annotated[int, typer.Option(min=1, help="Facts to ask of each.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model.", show_default="the shipped one")
    ] = None,
) -> None:
    """Let the reference model answer questions, and write its watched answers with their truth as labels."""
    from rich.progress import Progress

    from cert.cli.console import quiet_libraries, results, stderr
    from cert.cli.output import check_writable
    from cert.reference.answers import write_answers

    check_writable(out)
    quiet_libraries()
    with Progress(console=stderr(), transient=True) as progress:
        task = progress.add_task("asking", total=people * facts)
        count, right = write_answers(
            out,
            people=people,
            facts=facts,
            seed=seed,
            model=model,
            advance=lambda done: progress.update(task, completed=done),
        )
    with results() as shown:
        told = f"{count} answers about {people} people in {out}: {right} right, {count - right} wrong"
        shown.print(told, markup=False, highlight=False, soft_wrap=True)


def _rich_table(table: TextTable) -> Table:
    from rich.table import Table

    head, *rows = table.rows
    drawn = Table(title=table.title, title_justify="left")
    for column in head:
        drawn.add_column(column)
    for row in rows:
        drawn.add_row(*row)
    return drawn
