"""A whole training run, from a seed to a folder of weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from cert.core.errors import ConfigurationError, OutputError
from cert.reference.export import export, source_state
from cert.reference.recipe import Recipe
from cert.reference.train import CHECKPOINT, Trainer, prepare

SOURCE: Final = "source.json"


def train(
    recipe: Recipe,
    out: Path,
    *,
    work: Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    report: Callable[[int, int, float], None] | None = None,
) -> Path:
    """Train a recipe, or go on where an interrupted run of it stopped, and write the model to a folder.

    Args:
        recipe: what to train.
        out: folder of the finished model.
        work: folder of the checkpoint; by default ``<out>.run`` beside it.
        device: torch device; by default a GPU if there is one.
        threads: CPU threads. One is the robust choice on a machine with other work: two threads of torch that
            wait for each other ran at a seventh of the speed of one when a neighbour took a core.
        report: called with (steps done, all steps, loss) after each step.

    Raises:
        OutputError: a folder cannot be written; checked before anything is computed.
        ConfigurationError: the checkpoint belongs to another recipe.
    """
    work = work or out.with_name(out.name + ".run")
    for folder in (out, work):
        require_writable(folder)
    if threads is not None:
        torch.set_num_threads(threads)
    code = source_state()
    trainer = Trainer(prepare(recipe), work, device)
    try:
        resumed = trainer.resume()
    except ValueError as error:
        raise ConfigurationError(
            str(error), hint="Give another --work folder, or delete this one."
        ) from error
    source = _source(work, code, resumed)
    for step in trainer.steps():
        if report is not None:
            report(step.index, trainer.total, step.loss)
    export(trainer, out, source)
    return out


def require_writable(folder: Path) -> None:
    """Create a folder and a file in it, or raise `OutputError`."""
    probe = folder / ".cert-write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from error


def _source(work: Path, code: dict[str, Any], resumed: bool) -> dict[str, Any]:
    """The state of the code when the run began; a resumed run keeps that of its first part."""
    path = work / SOURCE
    if resumed and path.exists():
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return state
    path.write_text(json.dumps(code), encoding="utf-8")
    return code


__all__ = ["CHECKPOINT", "require_writable", "train"]
