"""``cert batch``: a file of prompts, each answered, watched and kept; begun again, it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from cert.cli.console import results, stderr
from cert.cli.gate_options import GateOptions
from cert.cli.interrupt import stopped_by_ctrl_c
from cert.cli.model_options import Chat, MeasureOptions, ModelOptions, SamplingOptions, Timeout
from cert.cli.option_groups import grouped
from cert.cli.outcome import EXIT_INTERRUPTED, exit_with
from cert.cli.result import as_json_line
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.cli.batch_run import Counts, Run
    from cert.cli.batch_target import Target
    from cert.trajectory import TrajectoryConfig
    from cert.trajectory.calibration.gate import CalibratedGate

__all__ = ["batch"]

_SOME_FAILED = 1


class FailingVerdict(StrEnum):
    """A verdict that can be a reason to stop a pipeline."""

    FAIL = "fail"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True)
class BatchOptions:
    """What becomes of the output, and of the exit code."""

    PANEL: ClassVar[str] = "Batch"
    stored: Annotated[
        bool,
        typer.Option(
            "--stored", help="IN holds answers with log-probabilities: measure them, generate nothing."
        ),
    ] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew, and forget what OUT has.")] = (
        False
    )
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try items again whose record in OUT is an error.")
    ] = False
    fail_on_verdict: Annotated[
        list[FailingVerdict] | None,
        typer.Option(help="Exit code 1 if an item has this verdict; may be repeated."),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False


@grouped
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            exists=True,
            help="Prompts: .txt, one a line; .jsonl, one JSON object a line; .parquet, one a row.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Records: .jsonl, one a line; or .parquet.")],
    chat: Chat = False,
    timeout: Timeout = None,
    *,
    how: BatchOptions,
    sampling: SamplingOptions,
    measure: MeasureOptions,
    gate: GateOptions,
    model: ModelOptions,
) -> None:
    """Generate from every prompt of a file, and keep one record an item.

    A second run with the same OUT does only what is missing: after Ctrl-C, a crash, or when IN has grown.
    An item that fails is a record with its error; where that may pass by itself (a server was busy), the
    next run tries the item again.

    A line of .jsonl has "prompt" or "messages", and may have "id", and "max_new_tokens", "temperature",
    "top_p", "sampling_top_k" and "seed" of its own. --timeout is for one item.

    Exit codes: 0 all done, 1 some items are errors or have a verdict of --fail-on-verdict, 2 bad usage or
    input, 3 could not run, 130 stopped by Ctrl-C.
    """
    from cert.cli.batch_items import FORMATS, STORED_FORMATS, check_input, count_items
    from cert.cli.batch_run import Counts
    from cert.cli.batch_target import Target, check_output

    if how.stored:
        _refuse_unused(model, sampling, chat=chat, timeout=timeout)
    check_input(source, STORED_FORMATS if how.stored else FORMATS)
    check_output(output, source)
    config = measure.config(sampling)
    decides = gate.made(measure)
    settings = _settings(how, model, config, chat=chat, seed=sampling.seed) | gate.settings(decides)
    total = count_items(source)
    with Target(output, settings, overwrite=how.overwrite, retry_errors=how.retry_errors) as target:
        counts = Counts.of(target.done)
        if how.stored:
            begun = _measured(source, model, config, target, counts, decides, gate.gate_group)
        else:
            begun = _asked(
                source,
                model,
                config,
                target,
                counts,
                decides,
                seed=sampling.seed,
                timeout=timeout,
                chat=chat,
                group=gate.gate_group,
            )
        with begun as run:
            try:
                stopped = _follow(run, counts, total)
                if not stopped:
                    target.finish()
            finally:
                _summarize(counts, total, target.kept, as_json=how.as_json)
    if stopped:
        stderr().print("stopped: the same command, run again, goes on")
    exit_with(EXIT_INTERRUPTED if stopped else _code(counts, how))


def _refuse_unused(
    model: ModelOptions, sampling: SamplingOptions, *, chat: bool, timeout: float | None
) -> None:
    """Refuse what plays no part with --stored: whoever gives it believes that it does."""
    why = "plays no part with --stored, which generates nothing"
    model.refuse_all_but_vocab_size(why)
    given = asdict(sampling) | {"chat": chat, "timeout": timeout}
    usual = asdict(SamplingOptions()) | {"chat": False, "timeout": None}
    for name, value in given.items():
        if value != usual[name]:
            raise ConfigurationError(f"--{name.replace('_', '-')} {why}")


def _settings(
    how: BatchOptions, model: ModelOptions, config: TrajectoryConfig, *, chat: bool, seed: int | None
) -> dict[str, Any]:
    settings: dict[str, Any] = {"stored": how.stored, "config": config.to_dict()}
    if how.stored:
        return settings | {"vocab_size": model.vocab_size}
    weights = {"revision": model.revision, "quantization": model.quantization}
    return settings | {"model": model.name(), **weights, "chat": chat, "seed": seed}


@contextlib.contextmanager
def _asked(
    source: Path,
    model: ModelOptions,
    config: TrajectoryConfig,
    target: Target,
    counts: Counts,
    gate: CalibratedGate | None,
    **options: Any,
) -> Iterator[Run]:
    from cert.cli.batch_items import prompts_of
    from cert.cli.batch_run import BatchRun, Keeper, missing

    with model.monitor(config, gate) as monitor:
        with monitor.resource.acquire() as backend:
            identity = asdict(backend.identity)
        del identity["device"]  # a run may go on elsewhere; each record names its own
        target.begin(identity)
        items = missing(prompts_of(source), target.done, counts)
        yield BatchRun(monitor, items, Keeper(target.add, counts), **options)


@contextlib.contextmanager
def _measured(
    source: Path,
    model: ModelOptions,
    config: TrajectoryConfig,
    target: Target,
    counts: Counts,
    gate: CalibratedGate | None,
    group: str | None,
) -> Iterator[Run]:
    from cert.backends.stored import StoredOptions
    from cert.cli.batch_run import Keeper
    from cert.cli.batch_stored import StoredRun

    target.begin({})
    options = StoredOptions(vocab_size=model.vocab_size)
    keeper = Keeper(target.add, counts)
    yield StoredRun(source, options, config, target.done, counts, keeper, gate=gate, group=group)


def _follow(run: Run, counts: Counts, total: int | None) -> bool:
    """Do the work and show how far it is; return whether Ctrl-C ended it."""
    from cert.cli.batch_progress import batch_progress

    with (
        stopped_by_ctrl_c(run.stop) as interrupt,
        batch_progress(total, counts) as moved,
        contextlib.closing(run.run()) as work,
    ):
        for _ in work:
            moved()
    return interrupt.happened


def _summarize(counts: Counts, total: int | None, output: Path, *, as_json: bool) -> None:
    verdicts = {name: counts.verdicts[name] for name in ("pass", "fail", "undecided", "not_measured")}
    if counts.first_error is not None:
        from cert.cli.view import printable

        told = f"the first error of this run: {counts.first_error}"
        stderr().print(printable(told), markup=False, highlight=False)
    with results() as out:
        if as_json:
            summary = {
                **{"schema_version": 1, "kind": "batch_summary", "output": str(output), "items": total},
                **{"done": counts.before + counts.now, "done_before": counts.before},
                **{"errors": counts.errors, "verdicts": verdicts},
            }
            typer.echo(as_json_line(summary))
            return
        for line in _lines(counts, total, verdicts, output):
            out.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(counts: Counts, total: int | None, verdicts: dict[str, int], output: Path) -> Iterator[str]:
    of = "" if total is None else f" of {total:,}"
    before = f", {counts.before:,} of them before" if counts.before else ""
    yield f"{counts.before + counts.now:,}{of} items done{before}"
    told = [f"{count:,} {name.replace('_', ' ')}" for name, count in verdicts.items()]
    yield ", ".join([*told, f"{counts.errors:,} errors"])
    yield f"records: {output}"


def _code(counts: Counts, how: BatchOptions) -> int:
    failed = counts.errors + sum(counts.verdicts[verdict] for verdict in how.fail_on_verdict or ())
    return _SOME_FAILED if failed else 0
