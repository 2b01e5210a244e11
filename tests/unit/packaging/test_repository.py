"""The repository's own promises: documented targets, links that arrive, nothing of one machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE))

# Written in parts, so that this file does not match itself.
FOREIGN = re.compile(
    "|".join(
        [
            r"(?<![\w.~})])/" + r"(?:work|root)/",
            "/opt/" + r"(?:wheels|pypi)",
            "/home/" + r"\w+/",
            r"\bpypi\." + "org",
            r"pythonhosted\." + "org",
            r"\bdeb\.debian\." + "org",
            r"registry\.npmjs\." + "org",
        ]
    )
)


def tracked_files() -> list[Path]:
    """The files that git knows, or a skip where there is no checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip(f"git refused: {listing.stderr.strip()}")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_machine_path_and_no_registry_host_is_tracked() -> None:
    """What holds only on one machine would fail on every other one."""
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if FOREIGN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_no_pickled_file_is_tracked() -> None:
    """Weights come as safetensors: loading a pickle runs what is in it."""
    pickled = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
    assert [str(path.relative_to(ROOT)) for path in tracked_files() if path.suffix in pickled] == []


def test_make_alone_lists_every_target() -> None:
    """A newcomer sees what there is by typing `make`."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines() if line.startswith("  ")} == TARGETS


@pytest.mark.parametrize(
    "path", ["README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml", ".pre-commit-config.yaml"]
)
def test_documents_name_existing_targets(path: str) -> None:
    """A command in a document runs as it stands."""
    text = (ROOT / path).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`|run: )make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert named <= TARGETS


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_documents_link_to_files_that_exist(path: str) -> None:
    """A reader who follows a link arrives."""
    text = (ROOT / path).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_promises_nothing_unconditional() -> None:
    """Words that a buyer would hold us to are not used without what they depend on."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert re.findall(r"\b(?:compliant|compliance|certified|guarantee\w*|hallucination-free)\b", text) == []
