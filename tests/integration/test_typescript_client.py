"""The TypeScript client: its types are those of the documents, and it works against a live service."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.services.conftest import running

from cert.core.config import Settings
from cert.services.coordination.app import create_app as create_coordination
from cert.services.hamiltonian.app import create_app

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "clients" / "typescript"

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def run(folder: Path, *command: str, **environ: str) -> str:
    """Run a command of npm or node; what it says is shown if it fails."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The client, installed from its lock file and built, outside the source tree."""
    assert shutil.which("npm"), "Node 20 and npm are needed (Debian: nodejs, npm)"
    folder = tmp_path_factory.mktemp("ts") / "clients" / "typescript"
    ignored = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(SOURCE, folder, ignore=ignored)
    shutil.copytree(ROOT / "docs/reference/openapi", folder.parents[1] / "docs/reference/openapi")
    run(folder, "npm", "ci", "--no-audit", "--no-fund")
    run(folder, "npm", "run", "build")
    return folder


def test_it_works_against_a_live_service(built):
    """Whoever writes an application in TypeScript gets what the service says, or an error that says why."""
    with running(create_app(Settings())) as live, running(create_coordination(Settings())) as other:
        urls = {"CERT_TEST_URL": live.url, "CERT_TEST_COORDINATION_URL": other.url}
        told = run(built, "node", "--test", "test/", **urls)
    assert "# fail 0" in told


def test_its_types_are_those_of_the_documents(built):
    """A field that the service renamed would be undefined at run time and known to the compiler."""
    before = {path.name: path.read_text() for path in (built / "src").glob("*.schema.ts")}
    run(built, "npm", "run", "generate")
    assert before == {path.name: path.read_text() for path in (built / "src").glob("*.schema.ts")}


def test_the_lock_file_names_no_registry():
    """It would tie everybody to the index that its writer used."""
    assert "resolved" not in (SOURCE / "package-lock.json").read_text()
