"""``cert coordinate inspect``: two evaluation logs of Inspect AI, compared sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cert.cli.console import results, stderr

__all__ = ["inspect_logs"]


def inspect_logs(
    baseline: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="The log (.eval, .json) that is held against."),
    ],
    candidate: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="The log in question, of the same task."),
    ],
    scorer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose scores.", show_default="the one that both logs have"),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Which value, where a score of the scorer has several."),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Smallest difference in score that is of use.")
    ] = 0.025,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
) -> None:
    """Compare two logs of Inspect AI: is the candidate worth it, against the baseline?

    Samples are paired by their ids, and the epochs of a sample are its replicates. Inspect is not needed.

    Exit codes: 0 compared, whatever the verdict; 2 the logs cannot be read or compared; 3 could
    not run.
    """
    from cert.cli.inspect_view import comparison_lines
    from cert.cli.result import as_json_line
    from cert.coordination.statistics.verdict import Rules
    from cert.integrations.inspect_logs import compare_logs, read_log

    with stderr().status("reading the logs"):
        found = compare_logs(
            read_log(baseline), read_log(candidate), scorer=scorer, key=key, rules=Rules(margin=margin)
        )
    with results() as out:
        if as_json:
            typer.echo(as_json_line(found.to_dict()))
        else:
            out.print(comparison_lines(found))
