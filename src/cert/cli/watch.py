"""``cert watch``: the tokens of one generation as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cert.cli.console import results
from cert.cli.gate_options import EarlyStop, GateOptions
from cert.cli.given_text import PromptFile, given_text
from cert.cli.interrupt import stopped_by_ctrl_c
from cert.cli.model_options import Chat, MeasureOptions, ModelOptions, SamplingOptions, Timeout
from cert.cli.option_groups import grouped
from cert.cli.outcome import EXIT_CODES, EXIT_INTERRUPTED, exit_with
from cert.core.errors import GenerationCancelledError, GenerationTimeoutError

if TYPE_CHECKING:
    from cert.cli.watch_view import View
    from cert.trajectory.streaming import TrajectoryStream

__all__ = ["watch"]


@grouped
def watch(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; '-' reads it from stdin.")] = None,
    file: PromptFile = None,
    chat: Chat = False,
    timeout: Timeout = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a token, then the analysis as one.")
    ] = False,
    early_stop: EarlyStop = False,
    *,
    sampling: SamplingOptions,
    measure: MeasureOptions,
    gate: GateOptions,
    model: ModelOptions,
) -> None:
    """Generate from a prompt and show each token as it comes, with how sure the model was.

    Ctrl-C stops the generation and shows what there is. In a pipe there is one line a token. What
    --early-stop ended has failed the gate, and its text is a part of an answer.

    Exit codes: 0 passed the gate, 1 failed it, 2 bad usage or input, 3 could not run, 4 undecided or not
    measured, 130 stopped by Ctrl-C.
    """
    from cert.cli.watch_view import choose_view
    from cert.trajectory import Message

    text = given_text(prompt, file)
    asked = [Message("user", text)] if chat else text
    decides = gate.made(measure)
    gate.refuse_no_alarm(decides, early_stop=early_stop)
    options: dict[str, Any] = {"seed": sampling.seed, "group": gate.gate_group, "early_stop": early_stop}
    with (
        results() as out,
        model.monitor(measure.config(sampling), decides) as monitor,
        monitor.stream(asked, timeout=timeout, **options) as stream,
        stopped_by_ctrl_c(stream.stop) as interrupt,
    ):
        try:
            _show(stream, choose_view(out, as_json=as_json))
        except GenerationCancelledError:
            if not interrupt.happened:
                raise
    exit_with(EXIT_INTERRUPTED if interrupt.happened else EXIT_CODES[stream.analysis.verdict])


def _show(stream: TrajectoryStream, view: View) -> None:
    try:
        with view.tokens():
            for token in stream:
                view.token(token)
    except (GenerationTimeoutError, GenerationCancelledError) as error:
        if error.partial is not None:
            view.end(error.partial)
        raise
    view.end(stream.analysis)
