"""``cert calibrate label``: a person says of stored answers whether they are right, with one key each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cert.cli.console import results, stderr
from cert.cli.keys import read_key

if TYPE_CHECKING:
    from rich.console import Console

    from cert.trajectory.calibration.labelling import ToLabel
    from cert.trajectory.calibration.session import LabellingSession

__all__ = ["label", "labels_path"]

_KEYS = "y right   n wrong   s skip   u undo   m show all   q quit"
_SHOWN = 3_000
_VERDICTS = {"y": True, "n": False, "s": None}


def labels_path(data: Path) -> Path:
    """Return where the labels of a file are kept unless another place is named."""
    return data.with_name(f"{data.name}.labels.jsonl")


def label(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", exists=True, dir_okay=False, help="Stored answers.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where labels go.", show_default="DATA.labels.jsonl"),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Answers to label, chosen by chance.")] = 400,
    reference: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Also show this field, such as the right answer.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--id", metavar="FIELD", help="The field that names a record.")
    ] = None,
    skipped: Annotated[bool, typer.Option("--skipped", help="Ask again what was skipped.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the chance that chooses and orders them.")] = 0,
) -> None:
    """Label stored answers by hand, one key each.

    Answers come in an order drawn by chance, so that wherever you stop, the labelled ones stand for all. Each
    label is on the disk before the next answer is shown; the same command, run again, goes on.

    Exit codes: 0 all were dealt with or you quit, 2 bad usage or input, 3 could not run, 130 stopped by
    Ctrl-C.
    """
    from cert.trajectory.calibration.label_file import LabelWriter
    from cert.trajectory.calibration.labelling import answers_to_label, drawn
    from cert.trajectory.calibration.session import LabellingSession

    target = out or labels_path(data)
    chosen = drawn(answers_to_label(data, reference=reference, key=key), count, seed)
    with LabelWriter(target, by="person") as writer:
        _ask(LabellingSession(chosen, writer, skipped_too=skipped), stderr())
        values = [one.correct for one in writer.labels.values()]
    right, wrong = values.count(True), values.count(False)
    with results() as shown:
        told = (
            f"{right + wrong} labels in {target}: {right} right, {wrong} wrong; {values.count(None)} skipped"
        )
        shown.print(told, markup=False, highlight=False, soft_wrap=True)


def _ask(session: LabellingSession, console: Console) -> None:
    console.print(_KEYS, style="dim")
    shown: ToLabel | None = None
    while (current := session.current) is not None:
        if current is not shown:
            _show(current, session, console, _SHOWN)
            shown = current
        key = read_key()
        if key in _VERDICTS:
            session.label(_VERDICTS[key])
        elif key == "u":
            shown = None
            if not session.undo():
                console.print("nothing to take back", style="dim")
        elif key == "m":
            _show(current, session, console, None)
        elif key in ("q", ""):
            return
        else:
            console.print(_KEYS, style="dim")


def _show(one: ToLabel, session: LabellingSession, console: Console, longest: int | None) -> None:
    from rich.text import Text

    from cert.core.visible import label as line

    console.rule(Text(f"{session.done + 1} of {session.total}  {line(one.id)}"))
    if one.question:
        _part("question", one.question, console, longest)
    _part("answer", one.answer, console, longest)
    for reference in one.references:
        _part("reference", reference, console, longest)


def _part(title: str, text: str, console: Console, longest: int | None) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from cert.cli.view import printable

    cut = text if longest is None else text[:longest]
    body = Text(printable(cut) or "(empty)")
    if len(cut) < len(text):
        body.append(f"\n… {len(text) - len(cut):,} more characters: m shows them", "dim")
    console.print(Text(title, "bold"))
    console.print(Padding(body, (0, 0, 0, 2)))
