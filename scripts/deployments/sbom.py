"""Write what is installed beside this interpreter as a software bill of materials (CycloneDX 1.6, JSON).

    /opt/cert/bin/python scripts/deployments/sbom.py NAME FILE

Names, versions, licences as the packages state them, package URLs, and the SHA-256 of each package's own list
of its files (``RECORD``). The same environment gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def component(found: metadata.Distribution) -> dict[str, Any]:
    """Describe one package."""
    name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
    address = f"pkg:pypi/{name}@{found.version}"
    entry: dict[str, Any] = {
        "type": "library",
        "bom-ref": address,
        "name": name,
        "version": found.version,
        "purl": address,
    }
    stated = found.metadata.get("License-Expression") or found.metadata.get("License")
    if stated and len(stated) <= 100 and "\n" not in stated:
        key = "expression" if found.metadata.get("License-Expression") else "license"
        entry["licenses"] = [{key: stated if key == "expression" else {"name": stated}}]
    if (record := found.read_text("RECORD")) is not None:
        entry["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(record.encode()).hexdigest()}]
    return entry


def main() -> None:
    """Write the document."""
    name, path = sys.argv[1], Path(sys.argv[2])
    entries = sorted((component(found) for found in metadata.distributions()), key=lambda one: one["bom-ref"])
    own = next(entry for entry in entries if entry["name"] == "cert-framework")
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": name,
                "name": name,
                "version": own["version"],
            }
        },
        "components": entries,
        "dependencies": [{"ref": name, "dependsOn": [entry["bom-ref"] for entry in entries]}],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
