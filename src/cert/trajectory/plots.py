"""Four panels of a watched generation, drawn by matplotlib (the extra ``plots``).

The figures belong to no window and no global state: neither pyplot nor the caller's choice of a backend is
touched. Text of models and users is never read as markup.
"""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cert.core.errors import DependencyMissingError, OutputError
from cert.core.files import write_whole
from cert.core.visible import label
from cert.signals.steps import FloatArray
from cert.trajectory.gate import GateDecision
from cert.trajectory.types import TrajectoryAnalysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Guide", "Panel", "draw_panels", "plot_trajectory", "trajectory_panels", "verdict_phrase"]

_SIZE = (11.0, 7.0)  # inches
_DPI = 150
_LINE, _BAND, _GUIDE = "#1f5a96", "#9db9d6", "#b3402a"
_STYLES = ("--", ":")
_WIDTH_OF_NOTES = 84
# Without these, two files of one figure differ.
_UNDATED: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "ps": {"CreationDate": None},
}


@dataclass(frozen=True, slots=True)
class Guide:
    """A horizontal line, such as a threshold."""

    value: float
    label: str


@dataclass(frozen=True, eq=False, slots=True)
class Panel:
    """One curve over the tokens.

    Attributes:
        values: (T,) what is drawn; NaN and infinite values are gaps, which the panel names.
        upper: (T,) upper bounds where ``values`` are lower ones, or ``None``.
        logarithmic: the values and guides are drawn on a logarithmic scale.
        stepped: the curve is a running sum.
        note: one sentence below the panel.
    """

    title: str
    unit: str
    values: FloatArray
    upper: FloatArray | None = None
    guides: tuple[Guide, ...] = ()
    logarithmic: bool = False
    stepped: bool = False
    note: str = ""


def plot_trajectory(analysis: TrajectoryAnalysis, save_path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw uncertainty, spread, energy and cumulative surprise over the tokens of a generation.

    Args:
        analysis: what to draw.
        save_path: where to write the figure, in the format that the ending names; PNG without an ending.

    Raises:
        DependencyMissingError: matplotlib is not installed.
        OutputError: the file cannot be written, or matplotlib does not know its format.
    """
    title = f"{analysis.model_name}: {verdict_phrase(analysis.decision)}"
    return draw_panels(trajectory_panels(analysis), title, save_path=save_path)


def verdict_phrase(decision: GateDecision) -> str:
    """Return what a verdict says and no more, such as "passed an uncalibrated gate"."""
    gate = f"{'a calibrated' if decision.calibrated else 'an uncalibrated'} gate"
    return {
        "pass": f"passed {gate}",
        "fail": f"failed {gate}",
        "undecided": f"undecided by {gate}",
        "not_measured": "not measured",
    }[decision.verdict]


def trajectory_panels(analysis: TrajectoryAnalysis) -> tuple[Panel, ...]:
    """Return the four panels in order: uncertainty, spread, energy, cumulative surprise."""
    config, step = analysis.config, analysis.step
    exact = bool((np.isnan(step.entropy_lower) | (step.entropy_lower == step.entropy_upper)).all())
    below = config.surprise_probability_threshold
    return (
        Panel(
            "Uncertainty",
            "token perplexity",
            step.perplexity,
            guides=_threshold(config.perplexity_threshold)
            + _guide(analysis.avg_perplexity, "mean, which the rule is on"),
            logarithmic=True,
        ),
        Panel(
            "Spread",
            "entropy in nats",
            step.entropy_lower,
            upper=None if exact else step.entropy_upper,
            guides=_threshold(config.entropy_threshold),
            note="" if exact else "Only the likeliest tokens were seen: these are bounds.",
        ),
        Panel(
            "Energy",
            "no unit",
            analysis.energy,
            guides=(Guide(1.0, "one term at its threshold"), Guide(2.0, "both at their thresholds")),
            note="Surprisal and entropy, each divided by its threshold. No rule is set on it.",
        ),
        Panel(
            "Cumulative surprise",
            "nats",
            analysis.running.cumulative_surprise,
            guides=_threshold(config.surprise_threshold),
            stepped=True,
            note=f"Summed over tokens less likely than {below:g}; grows with length.",
        ),
    )


def draw_panels(
    panels: Sequence[Panel],
    title: str,
    *,
    save_path: str | os.PathLike[str] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw panels two in a row; errors as in `plot_trajectory`.

    Args:
        panels: what to draw, in order.
        title: one line above them.
        save_path: as in `plot_trajectory`.
        figure: an empty figure to draw into; by default one that belongs to no window.
    """
    figure = _new_figure() if figure is None else figure
    figure.set_layout_engine("constrained")
    # matplotlib's fonts lack most scripts, and a name is data: nothing in it is markup.
    plain = label(title, 100).encode("ascii", "backslashreplace").decode()
    figure.suptitle(plain, parse_math=False)
    grid = figure.subplots(math.ceil(len(panels) / 2), 2, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel)
    if save_path is not None:
        _save(figure, Path(save_path))
    return figure


def _threshold(value: float | None) -> tuple[Guide, ...]:
    return () if value is None else (Guide(value, f"threshold {value:g}"),)


def _guide(value: float, text: str) -> tuple[Guide, ...]:
    return (Guide(value, text),) if math.isfinite(value) else ()


def _new_figure() -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyMissingError(
            f"plots need the package '{error.name}'",
            hint="pip install 'cert-framework[plots]'",
            context={"package": error.name},
        ) from error
    figure = Figure(figsize=_SIZE)
    FigureCanvasAgg(figure)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    tokens = len(panel.values)
    values = np.where(np.isfinite(panel.values), panel.values, np.nan)
    measured = bool(np.isfinite(values).any())
    axes.set_title(panel.title, loc="left")
    axes.set_ylabel(panel.unit)
    axes.set_xlim(-0.5, max(tokens, 1) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel(_caption(panel), fontsize="small")
    if panel.logarithmic and measured:
        axes.set_yscale("log")
    else:
        axes.update_datalim([(0.0, 0.0)])
    if measured:
        _curve(axes, values, panel)
    else:
        axes.text(0.5, 0.3, _nothing(tokens), ha="center", transform=axes.transAxes)
    for guide, style in zip(panel.guides, _STYLES, strict=False):
        axes.axhline(guide.value, color=_GUIDE, linestyle=style, linewidth=1.0, label=guide.label)
    if panel.guides:
        axes.legend(fontsize="small", loc="best" if tokens < 1000 else "upper left")


def _curve(axes: Axes, values: FloatArray, panel: Panel) -> None:
    x = np.arange(len(values))
    style = "steps-post" if panel.stepped else "default"
    axes.plot(x, values, color=_LINE, linewidth=1.2, drawstyle=style)
    # A token between two gaps has no line.
    known = np.concatenate(([False], np.isfinite(values), [False]))
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    axes.plot(x[alone], values[alone], color=_LINE, marker="o", markersize=4, linestyle="none")
    if panel.upper is not None:
        upper = np.where(np.isfinite(panel.upper), panel.upper, np.nan)
        axes.fill_between(x, values, upper, color=_BAND, step="mid" if len(values) == 1 else None)
        both = alone & np.isfinite(upper)
        axes.vlines(x[both], values[both], upper[both], color=_BAND, linewidth=4)


def _nothing(tokens: int) -> str:
    return "not measured" if tokens else "not measured: no token was generated"


def _caption(panel: Panel) -> str:
    """Return the label below a panel: the note, and how many of the tokens are gaps."""
    tokens = len(panel.values)
    missing, infinite = int(np.isnan(panel.values).sum()), int(np.isinf(panel.values).sum())
    parts = [panel.note]
    if missing:
        parts.append(f"Not measured: {missing:,} of {tokens:,} tokens.")
    if infinite:
        parts.append(f"Beyond the scale: {infinite:,} of {tokens:,} tokens.")
    if panel.upper is not None:
        unbounded = int((np.isnan(panel.upper) & ~np.isnan(panel.values)).sum())
        parts.append(f"Upper bound not known: {unbounded:,} of {tokens:,} tokens." if unbounded else "")
    return "\n".join(["token", *textwrap.wrap(" ".join(filter(None, parts)), _WIDTH_OF_NOTES)])


def _save(figure: Figure, path: Path) -> None:
    import matplotlib

    kind = path.suffix.lower().removeprefix(".") or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise OutputError(f"'{path}' cannot be drawn: unknown format '{kind}'", hint="png, svg or pdf")
    buffer = io.BytesIO()
    # Text stays text in SVG: smaller, and a reader can search it.
    with matplotlib.rc_context({"svg.hashsalt": "cert", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=_UNDATED.get(kind))
    write_whole(path, buffer.getvalue())
