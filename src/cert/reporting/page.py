"""One self-contained HTML file: a security policy that lets its own content through, and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from cert.core import visible
from cert.reporting.numbers import number, probability

__all__ = ["asset", "environment", "policy"]


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Return the content security policy of a page with these inline scripts and styles, and no others."""
    allowed = f"script-src {_hashes(scripts)}; " if scripts else ""
    return f"default-src 'none'; {allowed}style-src {_hashes(styles)}; base-uri 'none'; form-action 'none'"


def environment(package: str, filters: Mapping[str, Callable[..., Any]] | None = None) -> Environment:
    """Return the template environment of a report: everything is escaped, and nothing undefined passes.

    Args:
        package: whose folder ``assets`` has the templates; those of this package are there too.
        filters: besides ``runs``, ``label``, ``number`` and ``probability``.
    """
    made = Environment(
        loader=ChoiceLoader([PackageLoader(name, "assets") for name in (package, "cert.reporting")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "runs": visible.runs,
        "label": visible.label,
        "number": number,
        "probability": probability,
        **(filters or {}),
    }
    return made


@cache
def asset(name: str, package: str = "cert.reporting") -> str:
    """Return the text of a file in a package's folder ``assets``, such as ``base.css`` of this one."""
    return resources.files(package).joinpath("assets", *name.split("/")).read_text("utf-8")


def _hashes(contents: Sequence[str]) -> str:
    digests = (hashlib.sha256(content.encode()).digest() for content in contents)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
