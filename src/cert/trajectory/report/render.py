"""The HTML report of watched generations: one file, no network, nothing in it that could run but its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from cert.reporting.page import asset, environment, policy
from cert.trajectory.report.view import SURPRISAL_CLASSES, legend, section
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["render_report", "report_data"]

_PACKAGE = "cert.trajectory.report"


def render_report(analyses: TrajectoryAnalysis | Sequence[TrajectoryAnalysis]) -> str:
    """Return the page for one analysis or several, as a complete HTML document.

    The same analyses give the same text. The page loads nothing; its security policy lets only its own
    inline script and style through, by their hashes.

    Raises:
        ValueError: no analysis is given.
    """
    several = (analyses,) if isinstance(analyses, TrajectoryAnalysis) else tuple(analyses)
    if not several:
        raise ValueError("a report needs at least one analysis")
    sections = [section(analysis, position) for position, analysis in enumerate(several, 1)]
    style, library, script = _style(), _library(), _asset("report.js")
    return _template().render(
        sections=sections,
        style=Markup(style),  # noqa: S704 - package data, not input
        library=Markup(library),  # noqa: S704 - the same
        script=Markup(script),  # noqa: S704 - the same
        data=report_data([entry["data"] for entry in sections]),
        policy=policy([library, script], [style]),
        classes=range(SURPRISAL_CLASSES),
        legend=legend(),
    )


def report_data(data: Any) -> Markup:
    """Return JSON that can end neither the script element nor, in old parsers, a line of script."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - what could end the element is escaped above


@cache
def _style() -> str:
    return _asset("uplot/uPlot.min.css") + asset("base.css") + _asset("report.css")


@cache
def _library() -> str:
    # The licence asks to go with every copy, and every report is one.
    return f"/*\n{_asset('uplot/LICENSE')}*/\n{_asset('uplot/uPlot.iife.min.js')}"


def _asset(name: str) -> str:
    return asset(name, _PACKAGE)


@cache
def _template() -> Template:
    return environment(_PACKAGE).get_template("report.html.j2")
