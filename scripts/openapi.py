"""Write the OpenAPI documents of the services; ``--check`` fails when one is out of date.

python scripts/openapi.py [--check]
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from cert.core.config import Settings

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "openapi"
SERVICES = ("hamiltonian", "coordination")


def document(service: str) -> str:
    """Return the document of a service as it is served, but for the version, which each release changes."""
    create_app = importlib.import_module(f"cert.services.{service}.app").create_app
    found = create_app(Settings()).openapi()
    found["info"]["version"] = "4"
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    stale = []
    for service in SERVICES:
        target, text = FOLDER / f"{service}.json", document(service)
        if "--check" in sys.argv[1:]:
            if not target.exists() or target.read_text(encoding="utf-8") != text:
                stale.append(target.name)
        else:
            target.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"{', '.join(stale)} out of date: run python scripts/openapi.py")


if __name__ == "__main__":
    main()
