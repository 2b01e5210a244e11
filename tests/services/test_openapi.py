"""The committed OpenAPI documents are those that the services serve."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted((ROOT / "docs/reference/openapi").glob("*.json"))


def test_the_documents_are_up_to_date():
    """Clients are generated from them."""
    script = [sys.executable, str(ROOT / "scripts/openapi.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_route_can_be_generated_from(path):
    """A client without names for its methods, or without types, is none."""
    document = json.loads(path.read_text(encoding="utf-8"))
    routes = [route for methods in document["paths"].values() for route in methods.values()]
    names = [route["operationId"] for route in routes]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalnum() and name == name.lower() for name in names)
    for route in routes:
        assert route["summary"]
        assert route["responses"]
