"""``cert score``: a text that is there already, read as if the model had written it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cert.cli.console import stderr
from cert.cli.gate_options import GateOptions
from cert.cli.given_text import given_text, read_json
from cert.cli.model_options import Chat, MeasureOptions, ModelOptions, Timeout
from cert.cli.option_groups import grouped
from cert.cli.outcome import EXIT_CODES, exit_with
from cert.cli.result import ResultOptions
from cert.core.errors import InputError

if TYPE_CHECKING:
    from cert.trajectory.api import PromptLike

__all__ = ["score"]


@grouped
def score(
    prompt: Annotated[str | None, typer.Argument(help="What comes before the text.")] = None,
    completion: Annotated[
        str | None, typer.Argument(help="The text to score; '-' reads it from stdin.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", exists=True, dir_okay=False, help="Read the text to score from a file."),
    ] = None,
    messages: Annotated[
        Path | None,
        typer.Option(
            "--messages",
            exists=True,
            dir_okay=False,
            help="A JSON file with the messages of a chat; the last one, of the assistant, is scored.",
        ),
    ] = None,
    chat: Chat = False,
    timeout: Timeout = None,
    *,
    measure: MeasureOptions,
    gate: GateOptions,
    model: ModelOptions,
    result: ResultOptions,
) -> None:
    """Read a given text token by token and say how much it surprises the model (teacher forcing).

    Nothing is generated: one pass of the model over the prompt and the text.

    Exit codes: 0 passed the gate, 1 failed it, 2 bad usage or input, 3 could not run, 4 undecided or not
    measured.
    """
    before: PromptLike
    if messages is not None:
        if chat or any(given is not None for given in (prompt, completion, file)):
            raise typer.BadParameter("--messages goes with no prompt, no text and no --chat")
        before, text = _conversation(read_json(messages, "conversation")), None
    else:
        if prompt is None:
            raise typer.BadParameter("give a prompt and the text to score, or --messages")
        before = [{"role": "user", "content": prompt}] if chat else prompt
        text = given_text(completion, file, "text to score")
    result.check(file, messages)
    with (
        result.even_if_late(),
        model.monitor(measure.config(), gate.made(measure)) as monitor,
        stderr().status("scoring"),
    ):
        analysis = monitor.score(before, text, timeout=timeout, group=gate.gate_group)
    result.give(analysis)
    exit_with(EXIT_CODES[analysis.verdict])


def _conversation(data: Any) -> PromptLike:
    if isinstance(data, Mapping):  # the body of a request to an API
        data = data.get("messages")
    if not isinstance(data, list):
        raise InputError("the conversation must be a JSON list of messages, or an object with 'messages'")
    return data
