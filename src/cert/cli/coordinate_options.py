"""The options of ``cert coordinate``: who works, who scores, what it may cost, where the result goes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, ClassVar, Final

import typer

from cert.core.errors import ConfigurationError

__all__ = ["DEFAULT_STORE", "MoneyOptions", "OutputOptions", "ScoreOptions", "TeamOptions"]

DEFAULT_STORE: Final = ".cert/coordination.sqlite3"
_MODELS: Final = "'reference', a model directory, a hub id, anthropic:MODEL, or openai:MODEL@URL"


def _dollars(value: str | None) -> str | None:
    try:
        if value is None or Decimal(value) > 0:
            return value
    except InvalidOperation:
        pass
    raise typer.BadParameter(f"'{value}' is no number of dollars above 0")


@dataclass(frozen=True)
class TeamOptions:
    """Who works on the tasks."""

    PANEL: ClassVar[str] = "Agents"
    agents: Annotated[int, typer.Option(min=2, help="Agents of a team.")] = 3
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help=f"{_MODELS}.", show_default="CERT_MODEL, or reference"),
    ] = None
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Of the agents.", show_default="the model's own")
    ] = None
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 1024
    seed: Annotated[int | None, typer.Option(min=0, help="Of all answers, where models have seeds.")] = None
    replicates: Annotated[
        int, typer.Option(min=1, help="Runs of a team on a task; two or more measure Ω without bias.")
    ] = 1
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Version of the templates, or a .json file with some.",
            show_default="v1; reference-v1 for the reference model",
        ),
    ] = None


@dataclass(frozen=True)
class ScoreOptions:
    """Who says how good an answer is."""

    PANEL: ClassVar[str] = "Scores"
    evaluator: Annotated[
        str | None,
        typer.Option(
            help="Compare answers with references: exact, normalized, numeric, choice or regex.",
            show_default="normalized, where all tasks have references and there is no judge",
        ),
    ] = None
    judge: Annotated[str | None, typer.Option(help="Let a model judge; named like --model.")] = None
    judge_repeats: Annotated[int, typer.Option(min=1, help="Judgements of each answer.")] = 1
    selector: Annotated[
        str | None,
        typer.Option(help="Model that picks one of several answers where no rule can; not the judge."),
    ] = None


@dataclass(frozen=True)
class MoneyOptions:
    """What it may cost, and where what was paid for is kept."""

    PANEL: ClassVar[str] = "Money and store"
    max_cost: Annotated[
        str | None,
        typer.Option(
            metavar="DOLLARS",
            callback=_dollars,
            help="Refuse to start if the estimate is above, and never spend more.",
        ),
    ] = None
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODEL=]IN,OUT",
            help="Dollars for a million tokens read and written, of the agents' model or of the one named; "
            "for models without a published price. May be repeated.",
        ),
    ] = None
    answer_tokens: Annotated[
        int, typer.Option(min=1, help="Expected length of an answer, for the estimate.")
    ] = 250
    requests_per_minute: Annotated[
        int | None,
        typer.Option(min=1, help="To each server.", show_default="CERT_REQUESTS_PER_MINUTE, or 50"),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without a question.")] = False
    store: Annotated[
        str,
        typer.Option(
            metavar="PATH|URL", help="Where answers are kept: a SQLite file, a database's URL, or 'none'."
        ),
    ] = DEFAULT_STORE
    run: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the run, in place of one made of its settings.")
    ] = None
    again: Annotated[
        bool, typer.Option("--again", help="Ask anew; what single agents answered before stays.")
    ] = False

    def most(self) -> Decimal | None:
        """Return the most that may be spent."""
        return None if self.max_cost is None else Decimal(self.max_cost)

    def place(self) -> str | None:
        """Return where answers are kept, ``None`` for memory alone."""
        return None if self.store == "none" else self.store

    def name(self) -> str | None:
        """Return the name of the run where it is not made of the settings.

        Raises:
            ConfigurationError: a name and a new one are asked for.
        """
        import secrets

        if not self.again:
            return self.run
        if self.run is not None:
            raise ConfigurationError("--again makes a name of its own: leave out --run")
        return f"again-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class OutputOptions:
    """Where the result goes."""

    PANEL: ClassVar[str] = "Result"
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = (
        False
    )
    html: Annotated[Path | None, typer.Option("--html", help="Also write a self-contained HTML report.")] = (
        None
    )

    def check(self, *inputs: Path) -> None:
        """Make sure, before the work, that the report can be written and takes the place of no input.

        Raises:
            typer.BadParameter: the report would overwrite an input.
            OutputError: it cannot be written.
        """
        from cert.cli.output import check_writable

        if self.html is None:
            return
        check_writable(self.html)
        if any(self.html.exists() and self.html.samefile(file) for file in inputs):
            raise typer.BadParameter("--html names a file that the input comes from")

    def write(self, page: str) -> None:
        """Write the report, where one is wanted.

        Raises:
            OutputError: it cannot be written.
        """
        from cert.cli.console import stderr
        from cert.cli.output import write_text

        if self.html is not None:
            write_text(self.html, page)
            stderr().print(f"report: {self.html}", markup=False, highlight=False, soft_wrap=True)
