"""Sets of prompts read from the package, from a file, or from a mapping."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from cert.coordination.prompts.templates import PromptSet
from cert.core.errors import InputError

__all__ = ["known_prompts", "load_prompts"]

SCHEMA_VERSION: Final = 1
_MOST_BYTES = 1 << 20
_KEYS = {"schema_version", "version", "templates", "item"}


def known_prompts() -> tuple[str, ...]:
    """Return the versions that come with the package."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


def load_prompts(source: str | Path | Mapping[str, Any] | PromptSet = "v1") -> PromptSet:
    """Return a set of prompts.

    Args:
        source: the version of one that comes with the package; the path of a JSON file (a `Path`, or a text
            that ends in ``.json``); or what such a file holds: ``schema_version`` 1, ``version``,
            ``templates`` and ``item``, as in `PromptSet`.

    Raises:
        InputError: there is no such version or file, or it holds no set of prompts.
    """
    if isinstance(source, PromptSet):
        return source
    if isinstance(source, Mapping):
        return _made(source, "the mapping")
    if isinstance(source, Path) or source.endswith(".json"):
        return _made(_read(Path(source)), str(source))
    return _of_the_package(source)


@cache
def _of_the_package(version: str) -> PromptSet:
    if version not in known_prompts():
        raise InputError(
            f"there are no prompts {version!r}",
            hint=f"{', '.join(known_prompts())}, or the path of a .json file",
        )
    return _made(json.loads(resources.files(__package__).joinpath(f"{version}.json").read_bytes()), version)


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > _MOST_BYTES:
        raise InputError(f"{path} has more than {_MOST_BYTES} bytes")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error


def _made(data: Any, where: str) -> PromptSet:
    if not isinstance(data, Mapping) or set(data) != _KEYS:
        raise InputError(f"{where} is no set of prompts", hint=f"its keys are {', '.join(sorted(_KEYS))}")
    if data["schema_version"] != SCHEMA_VERSION:
        raise InputError(f"{where} has schema_version {data['schema_version']!r}, not {SCHEMA_VERSION}")
    if not isinstance(data["templates"], Mapping):
        raise InputError(f"the templates of {where} are no mapping of roles to texts")
    return PromptSet(version=data["version"], templates=data["templates"], item=data["item"])
