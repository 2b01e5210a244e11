"""Version 3's plots and text report of one analysis."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from cert.core.files import write_whole
from cert.trajectory.plots import Guide, Panel, draw_panels, trajectory_panels, verdict_phrase
from cert.trajectory.types import TrajectoryAnalysis as CurrentAnalysis
from cert.trajectory.v3.deprecation import deprecated
from cert.trajectory.v3.report import text_report
from cert.trajectory.v3.types import TrajectoryAnalysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["HamiltonianVisualizer"]


class HamiltonianVisualizer:
    """Draws and describes one analysis, of version 3 or 4. Use `cert.trajectory.plots` and ``report``.

    "Hamiltonian" is a picture, not physics: surprisal drawn as a potential, entropy as a kinetic term.
    """

    @staticmethod
    def plot_trajectory(
        analysis: TrajectoryAnalysis | CurrentAnalysis,
        save_path: str | os.PathLike[str] | None = None,
        show_plot: bool = False,
    ) -> Figure:
        """Draw uncertainty, spread, energy and cumulative surprise over the tokens.

        Args:
            analysis: what to draw.
            save_path: where to write the figure, in the format that the ending names.
            show_plot: open a window with pyplot too, which then decides on the backend.

        Raises:
            DependencyMissingError: matplotlib is not installed.
            OutputError: the file cannot be written, or matplotlib does not know its format.
        """
        deprecated("HamiltonianVisualizer.plot_trajectory", "cert.trajectory.plots.plot_trajectory")
        current = analysis if isinstance(analysis, CurrentAnalysis) else analysis.analysis
        panels = list(trajectory_panels(current))
        if isinstance(analysis, TrajectoryAnalysis):
            panels[1] = _spread(analysis)
        title = f"{current.model_name}: {verdict_phrase(analysis.decision)}"
        figure = draw_panels(panels, title, save_path=save_path)
        if show_plot:
            _show(panels, title)
        return figure

    @staticmethod
    def generate_report(
        analysis: TrajectoryAnalysis | CurrentAnalysis, save_path: str | os.PathLike[str] | None = None
    ) -> str:
        """Return what was measured and what the gate says, as text; see `text_report`.

        Args:
            analysis: what to describe.
            save_path: where to write it as well.

        Raises:
            OutputError: the file cannot be written.
        """
        deprecated("HamiltonianVisualizer.generate_report", "cert.trajectory.report.render_report")
        return _report(analysis, save_path)

    @staticmethod
    def generate_compliance_report(
        analysis: TrajectoryAnalysis | CurrentAnalysis, save_path: str | os.PathLike[str] | None = None
    ) -> str:
        """Return the same as `generate_report`: no text of a program shows compliance with a law.

        Raises:
            OutputError: the file cannot be written.
        """
        deprecated("HamiltonianVisualizer.generate_compliance_report", "cert.trajectory.report.render_report")
        return _report(analysis, save_path)


def _report(analysis: TrajectoryAnalysis | CurrentAnalysis, save_path: str | os.PathLike[str] | None) -> str:
    text = text_report(analysis)
    if save_path is not None:
        write_whole(save_path, text.encode())
    return text


def _spread(analysis: TrajectoryAnalysis) -> Panel:
    """Version 3's panel of the top-K entropy; it says when its threshold cannot be exceeded."""
    top_k = analysis.rules.config.top_k
    threshold = analysis.entropy_threshold
    panel = Panel("Spread", f"top-{top_k} entropy in nats", analysis.analysis.step.top_k_entropy)
    if threshold is None:
        return panel
    panel = replace(panel, guides=(Guide(threshold, f"threshold {threshold:g}"),))
    if analysis.entropy_rule_could_fail:
        return panel
    ceiling = analysis.rules.entropy_ceiling(analysis.analysis.generation.model.vocab_size)
    return replace(
        panel,
        guides=(*panel.guides, Guide(ceiling, f"largest possible {ceiling:.3f}")),
        note=f"This rule could not fail: with K = {top_k} no entropy exceeds {ceiling:.3f}.",
    )


def _show(panels: list[Panel], title: str) -> None:
    from matplotlib import pyplot

    draw_panels(panels, title, figure=pyplot.figure())
    pyplot.show()
