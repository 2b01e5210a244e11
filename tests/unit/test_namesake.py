"""Another package on the index installs the same module name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cert


def test_a_namesake_in_the_same_folder_is_told(tmp_path):
    """Two packages in one folder overwrite each other's files; errors far away would be all one sees."""
    package = tmp_path / "cert"
    package.mkdir()
    for name in ("__init__.py", "_version.py"):
        shutil.copy(Path(cert.__file__).parent / name, package)
    run = [sys.executable, "-c", "import cert"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    assert subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stderr == ""
    (tmp_path / "cert_sdk-1.0.dist-info").mkdir()
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert "uninstall both, then install one" in done.stderr
