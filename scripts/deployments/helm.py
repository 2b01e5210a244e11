"""Lint or render the chart with Helm's own engine; for machines that have no ``helm``.

    .venv-deployments/bin/python scripts/deployments/helm.py lint|render CHART < VALUES.json

``render`` prints YAML documents, with a release named ``cert`` in the namespace ``cert``. What Helm refuses
is told on standard error, with exit code 1.
"""

from __future__ import annotations

import json
import sys

import helm_python


def main() -> None:
    """Do what the first argument says."""
    action, path = sys.argv[1:]
    text = sys.stdin.read()
    values = json.loads(text) if text.strip() else {}
    try:
        if action == "lint":
            found = helm_python.lint(path, values=values, strict=True)
            sys.stdout.write(json.dumps(found, indent=1) + "\n")
        else:
            with helm_python.Chart.load(path) as chart:
                rendered = chart.render(values=values, name="cert", namespace="cert")
            for name, document in sorted(rendered.items()):
                if not name.endswith("NOTES.txt"):
                    sys.stdout.write(f"---\n{document}\n")
    except helm_python.HelmError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
