"""``cert analyze``: one generation, watched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cert.cli.console import generation_progress, quiet_libraries, results, stderr
from cert.cli.outcome import EXIT_CODES, exit_with
from cert.core.errors import InputError

__all__ = ["analyze"]

# No prompt within any sensible limit is larger; a wrong file must not be read into memory whole.
_MOST_BYTES = 16 * 1024 * 1024


def analyze(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; '-' reads it from stdin.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", exists=True, dir_okay=False, help="Read the prompt from a file."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="'reference', a model directory or a hub id.")
    ] = "reference",
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a chat message, not as plain text.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=0, help="Generate at most so many tokens.")] = 150,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy; above 0 samples.")] = 0.0,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    sampling_top_k: Annotated[
        int | None, typer.Option(min=0, help="Sample among the k likeliest tokens.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampling.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Candidates to record a token.")] = 20,
    perplexity_threshold: Annotated[
        float, typer.Option(help="Largest mean token perplexity that passes.")
    ] = 50.0,
    entropy_threshold: Annotated[
        float, typer.Option(help="Largest entropy of a token that passes, in nats.")
    ] = 2.5,
    surprise_threshold: Annotated[
        float, typer.Option(help="Largest cumulative surprise that passes, in nats.")
    ] = 10.0,
    top_k_entropy_threshold: Annotated[
        float | None, typer.Option(help="Largest top-K entropy of a token that passes, in nats.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights of a model that has no safetensors.")
    ] = False,
    allow_remote_code: Annotated[
        bool, typer.Option("--allow-remote-code", help="Run Python code that comes with the model.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the analysis as JSON, and nothing else.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a self-contained HTML report.")
    ] = None,
) -> None:
    """Generate from a prompt and say, token by token, how sure the model was.

    Exit codes: 0 passed the gate, 1 failed it, 2 bad usage or input, 3 could not run, 4 undecided or not
    measured.
    """
    from rich.text import Text

    from cert.cli.output import check_writable, write_text
    from cert.cli.view import analysis_view, printable
    from cert.trajectory import HamiltonianMonitor, LoadOptions, Message, TrajectoryConfig

    text = _read_prompt(prompt, file)
    if html is not None:
        check_writable(html)
        if file is not None and html.exists() and html.samefile(file):
            raise typer.BadParameter("--html names the file that the prompt comes from")
    config = TrajectoryConfig(
        perplexity_threshold=perplexity_threshold,
        entropy_threshold=entropy_threshold,
        surprise_threshold=surprise_threshold,
        top_k_entropy_threshold=top_k_entropy_threshold,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        sampling_top_k=sampling_top_k,
        top_k=top_k,
    )
    options = LoadOptions(
        device, dtype, revision, allow_pickle=allow_pickle, allow_remote_code=allow_remote_code
    )
    monitor = HamiltonianMonitor(model, config=config, options=options)
    with stderr().status(Text(f"loading {printable(model)}")):
        quiet_libraries()
        monitor.load()
    with generation_progress("generating", max_new_tokens) as on_step:
        analysis = monitor.analyze([Message("user", text)] if chat else text, seed=seed, on_step=on_step)
    if html is not None:
        from cert.trajectory.report import render_report

        write_text(html, render_report(analysis))
    with results() as out:
        if as_json:
            # Escaped: what a model writes could steer the terminal that shows it.
            typer.echo(json.dumps(analysis.to_dict(), allow_nan=False))
        else:
            out.print(analysis_view(analysis))
    if html is not None:
        stderr().print(f"report: {html}", markup=False, highlight=False, soft_wrap=True)
    exit_with(EXIT_CODES[analysis.verdict])


def _read_prompt(prompt: str | None, file: Path | None) -> str:
    if (prompt is None) == (file is None):
        raise typer.BadParameter("give a prompt, '-' for stdin, or --file, and just one of them")
    if file is None and prompt != "-":
        return str(prompt)
    try:
        if file is not None:
            with file.open("rb") as stream:
                raw = stream.read(_MOST_BYTES + 1)
        elif sys.stdin is None:
            raise InputError("the prompt cannot be read: standard input is closed")
        else:
            raw = sys.stdin.buffer.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"the prompt cannot be read: {error.strerror or error}") from error
    if len(raw) > _MOST_BYTES:
        raise InputError(f"the prompt is larger than {_MOST_BYTES:,} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt is not UTF-8 text: byte {error.start}") from error
