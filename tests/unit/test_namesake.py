"""Another package on the index installs the same module name."""

import os
import subprocess
import sys


def test_a_namesake_beside_this_package_is_told(tmp_path):
    """Two packages in one folder overwrite each other's files; errors far away would be all one sees."""
    info = tmp_path / "cert_sdk-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cert-sdk\nVersion: 1.0\n")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    run = [sys.executable, "-c", "import cert"]
    done = subprocess.run(
        run, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert "uninstall both, then install one" in done.stderr
    assert subprocess.run(run, capture_output=True, text=True, check=True).stderr == ""
