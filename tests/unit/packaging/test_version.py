"""One version in one place, so that a bug report names the code that ran."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

import cert
from cert._version import __version__

ROOT = Path(__file__).parents[3]


def test_package_and_file_agree() -> None:
    """`cert.__version__` is what the file says."""
    assert cert.__version__ == __version__


def test_installed_metadata_agrees() -> None:
    """The version that pip shows is the one that the code reports."""
    try:
        installed = importlib.metadata.version("cert-framework")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("runs from the checkout without an installation")
    assert installed == __version__


def test_no_second_version_in_the_source() -> None:
    """A version that is written twice goes stale in one of the two places."""
    copies = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src").rglob("*.py")
        if path.name != "_version.py" and __version__ in path.read_text(encoding="utf-8")
    ]
    assert copies == []


def test_changelog_has_the_next_release() -> None:
    """Whoever upgrades finds what changed."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    release = re.escape(__version__.partition(".dev")[0])
    assert re.search(rf"^## .*{release}", changelog, re.MULTILINE)
