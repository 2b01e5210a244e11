"""What pages are drawn with: styles, scripts and the icon, at an address made of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Final

from cert.reporting.page import asset

__all__ = ["MEDIA_TYPES", "address", "contents", "version"]

_REPORT: Final = "cert.trajectory.report"
_TEAMS: Final = "cert.coordination.report"
_PAGE: Final = "cert.services.page"
_OWN: Final = (
    "page.js",
    "dom.js",
    "stream.js",
    "watch.js",
    "pace.js",
    "label.js",
    "measure.js",
    "progress.js",
    "delete.js",
    "acknowledge.js",
    "sign-in.js",
    "icon.svg",
)
MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def contents() -> Mapping[str, bytes]:
    """Return every file by its name.

    The styles of the reports come first and the page's own last, so that a page looks like the report that
    somebody was sent.
    """
    base, own = asset("base.css"), asset("page.css", _PAGE)
    library = f"/*\n{asset('uplot/LICENSE', _REPORT)}*/\n{asset('uplot/uPlot.iife.min.js', _REPORT)}"
    texts = {
        "hamiltonian.css": asset("uplot/uPlot.min.css", _REPORT) + base + asset("report.css", _REPORT) + own,
        "coordination.css": base + asset("charts.css") + asset("report.css", _TEAMS) + own,
        "curves.js": library,
        "report.js": asset("report.js", _REPORT),
        **{name: asset(name, _PAGE) for name in _OWN},
    }
    return {name: text.encode() for name, text in texts.items()}


@cache
def version() -> str:
    """Return the hash of all of them: another release has other addresses, and browsers may keep these."""
    digest = hashlib.sha256()
    for name, content in sorted(contents().items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:20]


def address(name: str) -> str:
    """Return where a file is served; scripts of the same version import each other by their names."""
    if name not in contents():
        raise KeyError(name)
    return f"/ui/assets/{version()}/{name}"
