"""The page of an evaluation: one file, no network, no script at all."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment
from markupsafe import Markup

from cert.reporting.page import asset, environment, policy
from cert.trajectory.evaluation.report.view import view
from cert.trajectory.evaluation.types import EvaluationReport

__all__ = ["render_evaluation"]

_PACKAGE = "cert.trajectory.evaluation.report"


def render_evaluation(report: EvaluationReport) -> str:
    """Return the page as a complete HTML document.

    The same report gives the same text. The page loads nothing and runs nothing: its security policy lets
    its own style through, by its hash, and no script.
    """
    style = asset("base.css") + asset("charts.css") + asset("evaluation.css", _PACKAGE)
    return (
        _environment()
        .get_template("evaluation.html.j2")
        .render(
            **view(report),
            style=Markup(style),  # noqa: S704 - package data, not input
            policy=policy([], [style]),
        )
    )


@cache
def _environment() -> Environment:
    return environment(_PACKAGE)
