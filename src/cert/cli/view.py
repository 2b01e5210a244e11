"""An analysis in the terminal: the text coloured by surprisal, the numbers, the verdict and why."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cert.core.visible import runs

if TYPE_CHECKING:
    from rich.console import Console

    from cert.trajectory import TrajectoryAnalysis, Verdict

__all__ = [
    "Painter",
    "analysis_view",
    "interval_text",
    "legend",
    "needs_marks",
    "printable",
    "token_text",
    "verdict_lines",
    "verdict_text",
]

# The probability down to which a token has the colour; each is dark enough or light enough for its text.
_SCALE = (
    (0.9, "default"),
    (0.5, "black on #fff3b0"),
    (0.2, "black on #ffd166"),
    (0.05, "black on #f79256"),
    (0.0, "white on #c1121f"),
)
_LIMITS = tuple(-math.log(p) if p else math.inf for p, _ in _SCALE)  # of the surprisal, in nats
# What stands behind a token where there are no colours.
_MARKS = ("", "¹", "²", "³", "⁴")
# Marks that stack on a letter are counted from the letter on, which is among so many characters before.
_CONTEXT = 16
_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "pass": ("✔ PASS", "bold green"),
    "fail": ("✘ FAIL", "bold red"),
    "undecided": ("? UNDECIDED", "bold yellow"),
    "not_measured": ("– NOT MEASURED", "bold yellow"),
}


class Painter:
    """Paints a text token by token as it grows: on the colour of its surprisal, or with a mark behind it.

    Args:
        marked: put less likely tokens in brackets with a mark, for readers without colours.
    """

    def __init__(self, *, marked: bool = False) -> None:
        self._marked = marked
        self._context = ""

    def paint(self, text: str, surprisal: float) -> list[tuple[str, str]]:
        """Return the parts to show for the next token, each with its style; surprisal in nats."""
        before = printable(self._context)
        self._context += text
        shown = printable(self._context)[len(before) :]
        self._context = self._context[-_CONTEXT:]
        level = _level(surprisal)
        if not self._marked:
            return [(shown, "dim" if level is None else _SCALE[level][1])]
        mark = "?" if level is None else _MARKS[level]
        return [(_bracketed(shown, mark) if mark and shown else shown, "")]


def needs_marks(console: Console) -> bool:
    """Whether the console shows no colours."""
    return console.no_color or console.color_system is None


def analysis_view(analysis: TrajectoryAnalysis, *, marked: bool = False) -> RenderableType:
    """Return everything that a person wants to see of one analysis."""
    return Group(
        Panel(
            token_text(analysis, marked=marked),
            title=_title(analysis),
            title_align="left",
            subtitle=legend(marked=marked),
            padding=(0, 1),
        ),
        _numbers(analysis),
        *verdict_lines(analysis),
    )


def verdict_lines(analysis: TrajectoryAnalysis) -> list[Text]:
    """Return the verdict and its reasons."""
    return [
        Text.assemble(verdict_text(analysis), "  ", _profile(analysis)),
        *(Text(line, "bold") for line in _stopped(analysis)),
        *(Text(f"  · {printable(reason)}") for reason in analysis.decision.reasons),
        *(Text(f"  · {printable(note)}", "dim") for note in _notes(analysis)),
    ]


def _title(analysis: TrajectoryAnalysis) -> str:
    if analysis.early_stop is not None:
        return "a part of the answer: stopped at the alarm"
    return "scored text" if analysis.generation.finish_reason == "given" else "generated text"


def _stopped(analysis: TrajectoryAnalysis) -> tuple[str, ...]:
    stop = analysis.early_stop
    if stop is None:
        return ()
    return (
        f"  stopped early: alarm at token {stop.alarm_at}, {stop.delay} tokens after it, "
        f"at most {stop.saved_at_most} saved; this is not the whole answer",
    )


def verdict_text(analysis: TrajectoryAnalysis) -> Text:
    """Return the verdict as a word with its sign and colour."""
    verdict, style = _VERDICTS[analysis.verdict]
    return Text(verdict, style)


def token_text(analysis: TrajectoryAnalysis, *, marked: bool = False) -> Text:
    """Return the generated text, each token on the colour of its surprisal."""
    text = Text()
    painter = Painter(marked=marked)
    spans = analysis.generation.offsets.tolist()
    surprisal = analysis.step.surprisal.tolist()
    # Tokens that share one character share its span: the most surprising of them colours it.
    for span, group in groupby(range(len(spans)), key=lambda index: spans[index]):
        highest = max((surprisal[index] for index in group), key=lambda value: (not math.isnan(value), value))
        text.append_tokens(painter.paint(analysis.generated_text[span[0] : span[1]], highest))
    if not text.plain:
        text.append("(no text)", "dim")
    return text


def printable(text: str) -> str:
    """Make characters visible that would steer a terminal or reorder the text; line feeds and tabs stay."""
    return "".join(f"⟨{run.text}⟩" if run.kind == "hidden" else run.text for run in runs(text))


def legend(*, marked: bool = False) -> Text:
    """Return what the colours or marks mean."""
    if marked:
        bounds = (f"[]{mark} ≤ {p:g}" for mark, (p, _) in zip(_MARKS[1:], _SCALE, strict=False))
        return Text("p: " + "  ".join(bounds))
    labels = ("p > 0.9", "> 0.5", "> 0.2", "> 0.05", "≤ 0.05")
    parts = [(f" {label} ", style) for label, (_, style) in zip(labels, _SCALE, strict=True)]
    return Text.assemble(*parts)


def _level(surprisal: float) -> int | None:
    if math.isnan(surprisal):
        return None
    return next(level for level, limit in enumerate(_LIMITS) if surprisal <= limit)


def _bracketed(shown: str, mark: str) -> str:
    inner = shown.strip(" \n")
    start = len(shown) - len(shown.lstrip(" \n"))
    if not inner:
        return f"[{shown.replace(chr(10), '↵')}]{mark}" + ("\n" if "\n" in shown else "")
    return f"{shown[:start]}[{inner}]{mark}{shown[start + len(inner) :]}"


def _numbers(analysis: TrajectoryAnalysis) -> Table:
    signals = analysis.signals
    rows = (
        ("tokens", str(signals.n_tokens), f"finish: {analysis.generation.finish_reason}"),
        (
            "mean perplexity",
            _number(signals.mean_token_perplexity),
            f"highest {_number(signals.max_token_perplexity)}",
        ),
        (
            "max entropy",
            interval_text(signals.max_entropy_lower, signals.max_entropy_upper, " nats"),
            f"mean {interval_text(signals.mean_entropy_lower, signals.mean_entropy_upper)}",
        ),
        ("cumulative surprise", _number(signals.final_surprise, " nats"), ""),
        ("sequence log-probability", _number(signals.sequence_logprob, " nats"), ""),
    )
    table = Table.grid(padding=(0, 3))
    for _ in rows[0]:
        table.add_column(overflow="fold")  # half a number is a wrong one
    for name, value, note in rows:
        table.add_row(Text(name, "dim"), value, Text(note, "dim"))
    return table


def _profile(analysis: TrajectoryAnalysis) -> str:
    decision = analysis.decision
    if decision.certificate is None:
        return f"profile {decision.profile}" + ("" if decision.calibrated else ", uncalibrated")
    signed = "not signed" if decision.certificate.signed_by is None else "signed"
    standing = "calibrated" if decision.calibrated else "promise void"
    return f"{standing}, certificate {decision.certificate.id[:12]}, {signed}"


def _notes(analysis: TrajectoryAnalysis) -> tuple[str, ...]:
    by = analysis.decision.certificate
    return () if by is None else by.notes


def _number(value: float, unit: str = "") -> str:
    return "not measured" if math.isnan(value) else f"{value:.4g}{unit}"


def interval_text(lower: float, upper: float, unit: str = "") -> str:
    """Return a number that is known, or the bounds between which it lies."""
    if lower == upper or math.isnan(lower):
        return _number(lower, unit)
    return f"{lower:.4g} to {'unknown' if math.isnan(upper) else f'{upper:.4g}'}{unit}"
