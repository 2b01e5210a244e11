"""What the tests of logs, metrics and traces share."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from cert.observability.logging import configure_logging


@pytest.fixture
def configure() -> Iterator[Callable[..., Any]]:
    """`configure_logging`, undone at the end of the test."""
    restores: list[Callable[[], None]] = []

    def call(*arguments: Any, **options: Any) -> None:
        restores.append(configure_logging(*arguments, **options))

    yield call
    for restore in reversed(restores):
        restore()
    assert not structlog.is_configured()
    assert logging.getLogger("cert").level == logging.NOTSET


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Read a JSON log, each line on its own."""

    def read(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]

    return read
