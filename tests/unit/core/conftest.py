"""What the tests of the core share. tests/core_error_paths.py measures them."""

from __future__ import annotations

import sys
from typing import Any

import pytest


@pytest.fixture(scope="session")
def error_paths_script(request: pytest.FixtureRequest) -> Any:
    """scripts/error_paths.py as a module."""
    plugin = request.config.pluginmanager.get_plugin("core_error_paths")
    assert plugin is not None
    return sys.modules[type(plugin).__module__].script()
