"""A whole training run, from a seed to a folder of weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cert.core.errors import ConfigurationError, OutputError
from cert.reference.drill import Drill
from cert.reference.export import export, source_state
from cert.reference.recipe import Recipe
from cert.reference.second_stage import DrillTrainer, prepare_drill
from cert.reference.train import Trainer, prepare


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is: ``stage`` is ``facts`` or ``templates``."""

    stage: str
    done: int
    total: int
    loss: float


def train(
    recipe: Recipe,
    out: Path,
    *,
    drill: Drill | None = None,
    work: Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Path:
    """Train both stages, or go on where an interrupted run stopped, and write the model to a folder.

    Args:
        recipe: the first stage, which teaches the facts.
        out: folder of the finished model.
        drill: the second stage, which teaches the coordination templates.
        work: folder of the checkpoints; by default ``<out>.run`` beside it.
        device: torch device; by default a GPU if there is one.
        threads: CPU threads. One is the robust choice on a machine with other work: two threads of torch that
            wait for each other ran at a seventh of the speed of one when a neighbour took a core.
        report: called after each step.

    Raises:
        OutputError: a folder cannot be written; checked before anything is computed.
        ConfigurationError: the checkpoint belongs to another recipe.
    """
    work = work or out.with_name(out.name + ".run")
    for folder in (out, work):
        require_writable(folder)
    if threads is not None:
        torch.set_num_threads(threads)
    drill = drill or Drill()
    code = source_state()
    first = Trainer(prepare(recipe), work, device)
    sources = [_run(first, "facts", code, work, report)]
    second = DrillTrainer(first, work, drill, prepare_drill(first, drill))
    sources.append(_run(second, "templates", code, work, report))
    export(first, second, out, sources)
    return out


def _run(
    trainer: Trainer,
    stage: str,
    code: dict[str, Any],
    work: Path,
    report: Callable[[Progress], None] | None,
) -> dict[str, Any]:
    """Finish a stage and return the state of the code that began it."""
    try:
        resumed = trainer.resume()
    except ValueError as error:
        raise ConfigurationError(
            str(error), hint="Give another --work folder, or delete this one."
        ) from error
    source = _source(work / f"{stage}.json", code, resumed)
    for step in trainer.steps():
        if report is not None:
            report(Progress(stage, step.index, trainer.total, step.loss))
    return source


def require_writable(folder: Path) -> None:
    """Create a folder and a file in it, or raise `OutputError`."""
    probe = folder / ".cert-write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from error


def _source(path: Path, code: dict[str, Any], resumed: bool) -> dict[str, Any]:
    """The state of the code when a stage began; a resumed one keeps that of its first part."""
    if resumed and path.exists():
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return state
    path.write_text(json.dumps(code), encoding="utf-8")
    return code


__all__ = ["Progress", "require_writable", "train"]
