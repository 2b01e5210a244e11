"""What a suite or one task showed, as one self-contained HTML file."""

from cert.coordination.report.render import render, render_task

__all__ = ["render", "render_task"]
