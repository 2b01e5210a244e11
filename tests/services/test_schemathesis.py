"""What the OpenAPI document says of a service is what it does, on whatever is sent to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.services.conftest import running

from cert.core.config import Settings
from cert.services.coordination.app import create_app as create_coordination
from cert.services.hamiltonian.app import create_app as create_hamiltonian

# What JSON Schema cannot say (a prompt or messages and not both, a model that is there) is refused with 422.
UNSAYABLE = "positive_data_acceptance"
# A caller's own time-out that is over, and a service that has no room, are answers and no defects.
SETTINGS = """\
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "create_app", [create_hamiltonian, create_coordination], ids=["hamiltonian", "coordination"]
)
def test_a_service_does_what_its_document_says(create_app, tmp_path):
    """Clients are generated from it: what it does not know is an error in each of them, and a 500 is ours."""
    program = shutil.which("schemathesis", path=Path(sys.executable).parent)
    assert program
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    with running(create_app(Settings())) as live:
        command = [
            program, "run", f"{live.url}/openapi.json", "--no-color", "--seed", "7", "--max-examples", "5",
            "--phases", "examples,coverage,fuzzing", "--exclude-path-regex", "/stream$|/events$|^/ui",
            "--exclude-checks", UNSAYABLE, "--suppress-health-check", "all", "--request-timeout", "30",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
