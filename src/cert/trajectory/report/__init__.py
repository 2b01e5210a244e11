"""The HTML report: watched generations on one self-contained page."""

from cert.trajectory.report.render import render_report

__all__ = ["render_report"]
