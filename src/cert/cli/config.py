"""``cert config``: what the settings are, where each came from, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cert.cli.outcome import EXIT_USAGE

if TYPE_CHECKING:
    from cert.core.config import Settings
    from cert.core.environment import Reading, Variable

app = typer.Typer(
    name="config",
    help="The settings of this process: environment variables, a file, and defaults.",
    no_args_is_help=True,
)

EnvFile = Annotated[
    Path | None, typer.Option("--env-file", help="A file of lines NAME=value; the environment wins over it.")
]


@app.command("show")
def show(
    env_file: EnvFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print each setting with its value and where it came from; secrets are masked."""
    from cert.core.config import VARIABLES

    settings, reading = _read(env_file)
    if as_json:
        typer.echo(json.dumps(_as_json(settings, reading, env_file), indent=2))
        return
    rows = [
        (variable.name, _told(variable, settings), _origin(variable, reading, env_file))
        for variable in VARIABLES
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        typer.echo(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
    _warn_of_strangers(reading)


@app.command("check")
def check(env_file: EnvFile = None) -> None:
    """Say whether the settings are right; exit code 2, and every problem at once, if they are not."""
    _, reading = _read(env_file)
    _warn_of_strangers(reading)
    typer.echo(f"the settings are right ({len(reading.found)} set, the others by default)")


def _read(env_file: Path | None) -> tuple[Settings, Reading]:
    from cert.core.config import read_settings

    settings, reading, problems = read_settings(env_file=env_file)
    if settings is None:
        for problem in problems:
            typer.echo(f"error: {_one_line(str(problem))}", err=True)
        _warn_of_strangers(reading)
        raise typer.Exit(EXIT_USAGE)
    return settings, reading


def _told(variable: Variable, settings: Settings) -> str:
    from cert.core.environment import as_text

    text = as_text(variable, _value(variable, settings))
    return _one_line(text) if text else "(not set)"


def _value(variable: Variable, settings: Settings) -> object:
    return getattr(getattr(settings, variable.group), variable.field)


def _origin(variable: Variable, reading: Reading, env_file: Path | None) -> str:
    found = reading.found.get(variable.name)
    if found is None:
        return "default"
    return (
        f"environment variable {found.name}"
        if found.place == "environment"
        else f"{found.name} in file {env_file}"
    )


def _as_json(settings: Settings, reading: Reading, env_file: Path | None) -> dict[str, object]:
    from cert.core.config import VARIABLES
    from cert.core.environment import as_json

    return {
        "schema_version": 1,
        "settings": {
            variable.name: {
                "value": as_json(variable, _value(variable, settings)),
                "origin": found.place if (found := reading.found.get(variable.name)) else "default",
                "name": found.name if found else None,
                "file": str(env_file) if found and found.place == "file" else None,
            }
            for variable in VARIABLES
        },
        "unknown": [{"name": name, "nearest": nearest} for name, nearest in reading.unknown],
    }


def _warn_of_strangers(reading: Reading) -> None:
    for name, nearest in reading.unknown:
        told = f"; did you mean {nearest}?" if nearest else ""
        typer.echo(f"warning: {_one_line(name)} means nothing to CERT{told}", err=True)


def _one_line(text: str) -> str:
    from cert.cli.view import printable

    return printable(text).replace("\n", "\\n")
