"""`import cert` stays light: what is heavy, or some vendor's, loads when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "anthropic",
    "fastapi",
    "genai_prices",
    "httpx2",
    "huggingface_hub",
    "openai",
    "ray",
    "safetensors",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "tokenizers",
    "torch",
    "transformers",
}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `statement`."""
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import cert",
        "import cert.signals",
        "import cert.answers",
        "import cert.core.errors",
        "import cert.trajectory",
        "import cert.coordination",
        "import cert.coordination.client",
        "import cert.cli.main",
    ],
)
def test_no_heavy_module_loads(statement: str) -> None:
    """A user who only reads stored records, or asks for --help, does not wait seconds for torch."""
    assert not modules_after(statement) & HEAVY


def test_import_needs_no_terminal() -> None:
    """A service that imports the library does not load the command line's parts."""
    assert not modules_after("import cert") & {"typer", "rich", "jinja2"}
