"""Declared, pinned and imported dependencies agree, so that an installation is complete."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = canonicalize_name(PROJECT["name"])
LOCKS = ["requirements/demo.lock", "requirements/dev.lock"]
LOCKED_FOR = {"python_version": "3.11", "python_full_version": "3.11.0", "extra": ""}
TORCH_COMPANIONS = re.compile(r"^(torch|triton|nvidia-.*|cuda-.*)$")


def lines(path: str) -> list[str]:
    """The logical lines of a requirements file, without comments."""
    text = (ROOT / path).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pins(path: str) -> dict[str, str]:
    """Name and version of each line; anything but a plain pin fails."""
    found: dict[str, str] = {}
    for line in lines(path):
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][^\s]*)(\s+--hash=sha256:[0-9a-f]{64})*", line)
        assert match, f"{path}: not a pin: {line[:80]}"
        found[canonicalize_name(match.group(1))] = match.group(2)
    return found


def declared() -> dict[str, list[Requirement]]:
    """The requirements of the base install ("") and of each extra."""
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return {group: [Requirement(text) for text in texts] for group, texts in groups.items()}


def needed_by(name: str) -> Iterator[str]:
    """What an installed distribution needs on the Python that the locks are made for."""
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        needed = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate(LOCKED_FOR)
        if applies and not TORCH_COMPANIONS.match(needed):
            yield needed


def test_the_files_agree() -> None:
    """Demo, tests and a plain `pip install -r requirements.txt` run the same versions."""
    complete, dev, demo, torch = (
        pins(path) for path in ("requirements.txt", *reversed(LOCKS), "requirements/torch.txt")
    )
    assert complete == dev | torch
    assert demo.items() <= dev.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_file_has_its_hash(lock: str) -> None:
    """A file that was replaced on the index is refused."""
    assert [line for line in lines(lock) if "--hash=sha256:" not in line] == []


def test_torch_is_pinned_without_a_hash_and_in_no_lock() -> None:
    """Torch's wheel differs from index to index: its hash would forbid either the CPU or the CUDA build."""
    for path in ("requirements.txt", "requirements/torch.txt"):
        assert "torch" in pins(path)
        assert not any("--hash" in line for line in lines(path))
    assert not any("torch" in pins(lock) for lock in LOCKS)


@pytest.mark.parametrize("path", ["requirements.txt", "requirements/torch.txt", *LOCKS])
def test_no_address_and_no_local_path(path: str) -> None:
    """The files install from any index, on any machine."""
    assert not re.search(r"://|^-|@ |\bfile:", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("group", declared())
def test_every_declared_range_has_a_pin_inside(group: str) -> None:
    """A range and its pin cannot contradict each other."""
    complete = pins("requirements.txt")
    for requirement in declared()[group]:
        if canonicalize_name(requirement.name) != OWN:
            assert requirement.specifier.contains(complete[canonicalize_name(requirement.name)]), str(
                requirement
            )


@pytest.mark.parametrize("lock", LOCKS)
def test_each_lock_is_complete(lock: str) -> None:
    """Locks are installed without resolving: what is missing there would be missing at run time."""
    locked = pins(lock)
    installed = {
        canonicalize_name(str(found.metadata["Name"])) for found in importlib.metadata.distributions()
    }
    gaps = {
        f"{name} needs {needed}"
        for name in (*locked, "torch")
        if name in installed
        for needed in needed_by(name)
        if needed not in locked
    }
    assert gaps == set()


def imported_modules() -> set[str]:
    """The top-level modules that the source imports, in any function too."""
    names = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"cert"}


def test_every_import_is_declared() -> None:
    """A module that only happens to be installed with another one vanishes with that one's next release."""
    users = {
        canonicalize_name(requirement.name)
        for group, requirements in declared().items()
        if group != "dev"
        for requirement in requirements
    }
    providers = importlib.metadata.packages_distributions()
    undeclared = {
        module
        for module in imported_modules()
        if not users & {canonicalize_name(provider) for provider in providers.get(module, [module])}
    }
    assert undeclared == set()


def test_every_declared_base_dependency_is_imported() -> None:
    """The base install brings nothing that nobody uses."""
    providers = importlib.metadata.packages_distributions()
    used = {canonicalize_name(name) for module in imported_modules() for name in providers.get(module, [])}
    assert {canonicalize_name(requirement.name) for requirement in declared()[""]} <= used


def test_all_holds_every_extra() -> None:
    """`cert-framework[all]` leaves no part of the library out."""
    (everything,) = declared()["all"]
    assert everything.extras == declared().keys() - {"", "all", "dev"}
