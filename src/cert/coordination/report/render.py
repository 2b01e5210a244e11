"""The page of a suite or of one task: one file, no network, no script at all."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from cert.coordination.metrics import CoordinationMetrics
from cert.coordination.report.view import suite_view, task_view
from cert.coordination.suite.report import CoordinationReport
from cert.coordination.types import Task
from cert.reporting.page import asset, environment, policy

__all__ = ["render", "render_task"]

_PACKAGE = "cert.coordination.report"


def render(report: CoordinationReport) -> str:
    """Return the page of a suite as a complete HTML document.

    The same report gives the same text. The page loads nothing and runs nothing: its security policy lets
    its own style through, by its hash, and no script. Of transcripts beyond
    `cert.coordination.report.transcripts.MOST_CHARS` it says that they are left out.
    """
    return _page("suite.html.j2", suite_view(report))


def render_task(metrics: CoordinationMetrics, task: Task | None = None) -> str:
    """Return the page of one task; see `render`.

    Args:
        metrics: of the task.
        task: itself, to be shown; metrics hold its id alone.
    """
    return _page("task.html.j2", task_view(metrics, task))


def _page(template: str, view: dict[str, Any]) -> str:
    style = asset("base.css") + asset("charts.css") + asset("report.css", _PACKAGE)
    return (
        _environment()
        .get_template(template)
        .render(
            **view,
            style=Markup(style),  # noqa: S704 - package data, not input
            policy=policy([], [style]),
        )
    )


@cache
def _environment() -> Environment:
    return environment(_PACKAGE)
