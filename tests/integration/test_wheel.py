"""The wheel as a user gets it: installed without the checkout, beside only what its metadata asks for.

No index is needed: the packages of the running environment are linked, one distribution at a time, into a
fresh environment that sees nothing else. So a dependency that is used but not declared is missing there.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LARGEST = 12 * 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def required(requirements: list[str], extras: set[str]) -> Iterator[Requirement]:
    """The requirements that apply here with these extras."""
    for text in requirements:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


def closure(requirements: list[str], extras: set[str]) -> set[str]:
    """Every distribution that pip would install for them, by the metadata of those that are installed."""
    found: set[tuple[str, str]] = set()
    queue = list(required(requirements, extras))
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in requirement.extras | {""}:
            if (name, extra) not in found:
                found.add((name, extra))
                queue += required(importlib.metadata.requires(name) or [], {extra})
    return {name for name, _ in found}


class Installation:
    """An environment that holds the wheel, the distributions that it needs, and no other."""

    def __init__(self, folder: Path, wheel: Path, *extras: str) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.bin = folder / "bin"
        self.empty = folder / "empty"
        self.empty.mkdir()
        (packages,) = folder.glob("lib/python*/site-packages")
        install = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet"]
        subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
        (metadata,) = packages.glob("cert_framework-*.dist-info")
        distribution = importlib.metadata.Distribution.at(metadata)
        for name in closure(distribution.requires or [], set(extras)):
            self._link(importlib.metadata.distribution(name), packages)

    @staticmethod
    def _link(distribution: importlib.metadata.Distribution, packages: Path) -> None:
        for top in {
            file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")
        }:
            if not (packages / top).exists():
                (packages / top).symlink_to(str(distribution.locate_file(top)))

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in an empty directory, with nothing of the checkout in sight."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.empty,
            env=environment | {"NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """`pip install cert-framework`."""
    return Installation(tmp_path_factory.mktemp("base"), wheel)


@pytest.fixture(scope="module")
def local(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """`pip install "cert-framework[local]"`."""
    return Installation(tmp_path_factory.mktemp("local"), wheel, "local")


def test_the_wheel_has_the_reference_weights(contents: set[str]) -> None:
    """Without them `cert demo` has no model to watch."""
    assert any(
        name.startswith("cert/reference/weights/") and name.endswith(".safetensors") for name in contents
    )


def test_every_file_of_the_package_is_in_the_wheel(contents: set[str]) -> None:
    """A template, schema or page asset that is left out breaks only for those who installed the wheel."""
    listing = subprocess.run(
        ["git", "ls-files", "src/cert"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode or not listing.stdout:
        pytest.skip("needs git and a checkout")
    assert {name.removeprefix("src/") for name in listing.stdout.splitlines()} - contents == set()


def test_the_wheel_has_nothing_else(contents: set[str]) -> None:
    """Tests, further model seeds and caches would only cost every user time and disk."""
    assert {name.partition("/")[0] for name in contents} == {"cert"} | {
        name.partition("/")[0] for name in contents if ".dist-info/" in name
    }
    assert not [name for name in contents if "__pycache__" in name or name.endswith((".pyc", ".ckpt", ".pt"))]


def test_the_wheel_is_typed_and_licensed(contents: set[str]) -> None:
    """A user's type checker reads our annotations, and a user's lawyer the licence."""
    assert "cert/py.typed" in contents
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents)


def test_the_wheel_is_small(wheel: Path) -> None:
    """The base install stays a light one."""
    assert wheel.stat().st_size <= LARGEST


def test_the_version_is_that_of_the_source(base: Installation) -> None:
    """A bug report from an installation names the code that ran."""
    result = base.run("cert", "--version")
    assert result.returncode == 0, result.stderr
    assert importlib.import_module("cert").__version__ in result.stdout


def test_the_package_comes_from_the_wheel(base: Installation) -> None:
    """The other tests here would prove nothing if the checkout were imported."""
    result = base.run("python", "-c", "import cert; print(cert.__file__)")
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(base.bin.parent)


def test_help_works_in_the_base_install(base: Installation) -> None:
    """Whoever installs the package without extras can still read what it does."""
    result = base.run("cert", "--help")
    assert result.returncode == 0, result.stderr
    assert "analyze" in result.stdout


def test_the_base_install_names_the_missing_extra(base: Installation) -> None:
    """A missing optional package is not a traceback: the message says what to install, and the code is 3."""
    result = base.run("cert", "analyze", "What is the capital of France?")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "cert-framework[local]" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_the_local_extra_is_enough_to_analyze(local: Installation) -> None:
    """The declared dependencies suffice: nothing of a developer's environment is used unnoticed."""
    result = local.run("cert", "analyze", "What is the capital of France?", "--json")
    assert result.returncode in (0, 1, 4), result.stdout + result.stderr
    analysis = json.loads(result.stdout)
    assert analysis["schema_version"]
    assert analysis["verdict"] == {0: "pass", 1: "fail", 4: analysis["verdict"]}[result.returncode]
