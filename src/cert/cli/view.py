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
    from cert.trajectory import TrajectoryAnalysis, Verdict

__all__ = ["analysis_view", "printable", "token_text", "verdict_text"]

# Surprisal in nats from which on a token has the colour; each is dark enough or light enough for its text.
_SCALE = (
    (0.105, "default"),  # p > 0.9
    (0.7, "black on #fff3b0"),  # p > 0.5
    (1.61, "black on #ffd166"),  # p > 0.2
    (3.0, "black on #f79256"),  # p > 0.05
    (math.inf, "white on #c1121f"),
)
_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "pass": ("✔ PASS", "bold green"),
    "fail": ("✘ FAIL", "bold red"),
    "undecided": ("? UNDECIDED", "bold yellow"),
    "not_measured": ("– NOT MEASURED", "bold yellow"),
}


def analysis_view(analysis: TrajectoryAnalysis) -> RenderableType:
    """Return everything that a person wants to see of one analysis."""
    verdict, style = _VERDICTS[analysis.verdict]
    return Group(
        Panel(
            token_text(analysis),
            title="generated text",
            title_align="left",
            subtitle=_legend(),
            padding=(0, 1),
        ),
        _numbers(analysis),
        Text.assemble((verdict, style), "  ", _profile(analysis)),
        *(Text(f"  · {printable(reason)}") for reason in analysis.decision.reasons),
    )


def verdict_text(analysis: TrajectoryAnalysis) -> Text:
    """Return the verdict as a word with its sign and colour."""
    verdict, style = _VERDICTS[analysis.verdict]
    return Text(verdict, style)


def token_text(analysis: TrajectoryAnalysis) -> Text:
    """Return the generated text, each token on the colour of its surprisal."""
    text = Text()
    spans = analysis.generation.offsets.tolist()
    surprisal = analysis.step.surprisal.tolist()
    # Tokens that share one character share its span: the most surprising of them colours it.
    for span, group in groupby(range(len(spans)), key=lambda index: spans[index]):
        highest = max((surprisal[index] for index in group), key=lambda value: (not math.isnan(value), value))
        text.append(printable(analysis.generated_text[span[0] : span[1]]), _colour(highest))
    if not text.plain:
        text.append("(no text)", "dim")
    return text


def printable(text: str) -> str:
    """Make characters visible that would steer a terminal or reorder the text; line feeds and tabs stay."""
    return "".join(f"⟨{run.text}⟩" if run.kind == "hidden" else run.text for run in runs(text))


def _colour(surprisal: float) -> str:
    if math.isnan(surprisal):
        return "dim"
    return next(style for limit, style in _SCALE if surprisal <= limit)


def _legend() -> Text:
    labels = ("p > 0.9", "> 0.5", "> 0.2", "> 0.05", "≤ 0.05")
    parts = [(f" {label} ", style) for label, (_, style) in zip(labels, _SCALE, strict=True)]
    return Text.assemble(*parts)


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
            _interval(signals.max_entropy_lower, signals.max_entropy_upper, " nats"),
            f"mean {_interval(signals.mean_entropy_lower, signals.mean_entropy_upper)}",
        ),
        ("cumulative surprise", _number(signals.final_surprise, " nats"), ""),
        ("sequence log-probability", _number(signals.sequence_logprob, " nats"), ""),
    )
    table = Table.grid(padding=(0, 3))
    for name, value, note in rows:
        table.add_row(Text(name, "dim"), value, Text(note, "dim"))
    return table


def _profile(analysis: TrajectoryAnalysis) -> str:
    decision = analysis.decision
    return f"profile {decision.profile}" + ("" if decision.calibrated else ", uncalibrated")


def _number(value: float, unit: str = "") -> str:
    return "not measured" if math.isnan(value) else f"{value:.4g}{unit}"


def _interval(lower: float, upper: float, unit: str = "") -> str:
    if lower == upper or math.isnan(lower):
        return _number(lower, unit)
    return f"{lower:.4g} to {'unknown' if math.isnan(upper) else f'{upper:.4g}'}{unit}"
