"""An evaluation as one self-contained HTML file."""

from cert.trajectory.evaluation.report.render import render_evaluation

__all__ = ["render_evaluation"]
