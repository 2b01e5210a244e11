"""What every test of the deployment uses: the tools that really deploy, where they are installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-deployments" / "bin"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def deployments(root: Path) -> Path:
    """The folder of what is deployed."""
    return root / "deployments"


@pytest.fixture(scope="session")
def tool() -> Callable[[str], Path]:
    """Find a program; one that is missing fails the test, since a check that did not run says nothing."""

    def find(name: str) -> Path:
        own = TOOLS / name
        if own.is_file():
            return own
        found = shutil.which(name)
        if found is None:
            pytest.fail(f"{name} is not installed: make verify-deployments installs it")
        return Path(found)

    return find
