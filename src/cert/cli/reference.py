"""``cert reference``: train and evaluate the small model that ships with CERT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="reference",
    help="Train and evaluate the small reference model, whose every hallucination is known.",
    no_args_is_help=True,
)


@app.command("train")
def train_command(
    out: Annotated[Path, typer.Argument(help="Folder for the finished model.")],
    seed: Annotated[int, typer.Option(help="Seed of the world, the text and the initial weights.")] = 0,
    people: Annotated[int, typer.Option(min=50, help="People in the world.")] = 2000,
    follow: Annotated[int, typer.Option(min=0, help="Prompts about throw-away names.")] = 40_000,
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
