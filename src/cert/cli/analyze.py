"""``cert analyze``: one generation, watched."""

from __future__ import annotations

from typing import Annotated

import typer

from cert.cli.console import generation_progress
from cert.cli.gate_options import EarlyStop, GateOptions
from cert.cli.given_text import PromptFile, given_text
from cert.cli.model_options import Chat, MeasureOptions, ModelOptions, SamplingOptions, Timeout
from cert.cli.option_groups import grouped
from cert.cli.outcome import EXIT_CODES, exit_with
from cert.cli.result import ResultOptions

__all__ = ["analyze"]


@grouped
def analyze(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; '-' reads it from stdin.")] = None,
    file: PromptFile = None,
    chat: Chat = False,
    timeout: Timeout = None,
    early_stop: EarlyStop = False,
    *,
    sampling: SamplingOptions,
    measure: MeasureOptions,
    gate: GateOptions,
    model: ModelOptions,
    result: ResultOptions,
) -> None:
    """Generate from a prompt and say, token by token, how sure the model was.

    When the time of --timeout is over, what was measured so far is printed, with exit code 3. What
    --early-stop ended has failed the gate, and its text is a part of an answer.

    Exit codes: 0 passed the gate, 1 failed it, 2 bad usage or input, 3 could not run, 4 undecided or not
    measured.
    """
    from cert.trajectory import Message

    text = given_text(prompt, file)
    result.check(file)
    decides = gate.made(measure)
    gate.refuse_no_alarm(decides, early_stop=early_stop)
    with (
        result.even_if_late(),
        model.monitor(measure.config(sampling), decides) as monitor,
        generation_progress("generating", sampling.max_new_tokens) as on_step,
    ):
        analysis = monitor.analyze(
            [Message("user", text)] if chat else text,
            seed=sampling.seed,
            timeout=timeout,
            on_step=on_step,
            group=gate.gate_group,
            early_stop=early_stop,
        )
    result.give(analysis)
    exit_with(EXIT_CODES[analysis.verdict])
