"""Values for settings from environment variables and a file, and where each came from.

A setting has one variable of ours, ``CERT_…``, and may have older names. Ours wins over the older ones,
wherever either stands; of the same name, the environment wins over the file. An empty value counts as not
set, since that is what a deployment passes on for a variable that nobody filled in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from cert.core.errors import ConfigurationError

__all__ = [
    "PREFIX",
    "Found",
    "Problem",
    "Reading",
    "Secrecy",
    "SettingsGroup",
    "Variable",
    "as_json",
    "as_text",
    "find_values",
    "problems_of",
    "setting",
    "variables_of",
]

PREFIX = "CERT_"
MASK = "********"
Secrecy: TypeAlias = Literal["open", "secret", "url"]

# What Kubernetes puts into every container for a service whose name starts with "cert-".
_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


class SettingsGroup(BaseModel):
    """A group of settings: frozen, and nothing in it that has no name."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, str_strip_whitespace=True)


def setting(
    default: Any, name: str, description: str, *aliases: str, secrecy: Secrecy = "open", **constraints: Any
) -> Any:
    """Declare a setting of a group.

    Args:
        default: its value when nobody says otherwise.
        name: of its variable, without the prefix.
        description: one line, with the unit.
        aliases: older names of the variable, in full.
        secrecy: what may be shown of it.
        constraints: as `pydantic.Field` takes them.
    """
    extra: Any = {"variable": PREFIX + name, "aliases": list(aliases), "secrecy": secrecy}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


@dataclass(frozen=True)
class Variable:
    """One setting, and the names under which it is looked for."""

    group: str
    field: str
    name: str
    aliases: tuple[str, ...]
    secrecy: Secrecy
    default: Any
    description: str

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the one that wins first."""
        return (self.name, *self.aliases)


@dataclass(frozen=True)
class Found:
    """A value as it was written, and where."""

    name: str
    raw: str
    place: Literal["environment", "file"]


@dataclass(frozen=True)
class Problem:
    """What is wrong with one variable; ``value`` is masked where it is secret."""

    variable: str
    value: str | None
    message: str

    def __str__(self) -> str:
        written = "" if self.value is None else f"={self.value!r}"
        return f"{self.variable}{written}: {self.message}"


@dataclass(frozen=True)
class Reading:
    """What the environment and the file hold.

    Attributes:
        found: by variable name (the ``CERT_…`` one).
        unknown: variables with our prefix that mean nothing, each with the nearest known name if one is near.
    """

    found: Mapping[str, Found]
    unknown: tuple[tuple[str, str | None], ...]


def variables_of(settings: type[BaseModel]) -> Iterator[Variable]:
    """Yield the variables of a class of settings, group by group."""
    for group, group_field in settings.model_fields.items():
        members = group_field.annotation
        assert isinstance(members, type)
        assert issubclass(members, BaseModel)
        for name, info in members.model_fields.items():
            extra: Any = info.json_schema_extra
            yield Variable(
                group,
                name,
                extra["variable"],
                tuple(extra["aliases"]),
                extra["secrecy"],
                info.default,
                info.description or "",
            )


def find_values(
    variables: tuple[Variable, ...], environ: Mapping[str, str], env_file: Path | None
) -> Reading:
    """Look every variable up.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    places: tuple[tuple[Literal["environment", "file"], Mapping[str, str]], ...] = (
        ("environment", environ),
        ("file", _read_file(env_file) if env_file is not None else {}),
    )
    found = {}
    for variable in variables:
        hits = (
            Found(name, values[name], place)
            for name in variable.names
            for place, values in places
            if values.get(name, "").strip()
        )
        if (first := next(hits, None)) is not None:
            found[variable.name] = first
    known = [variable.name for variable in variables]
    strangers = {name for _, values in places for name in values if name.startswith(PREFIX)} - set(known)
    unknown = tuple(
        (name, next(iter(difflib.get_close_matches(name.upper(), known, 1, 0.75)), None))
        for name in sorted(strangers)
        if not _KUBERNETES.fullmatch(name)
    )
    return Reading(found, unknown)


def as_json(variable: Variable, value: Any) -> Any:
    """Return a value as JSON-ready data, with what is secret masked; amounts of money are text."""
    if value is None or variable.secrecy != "open":
        return as_text(variable, value)
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def as_text(variable: Variable, value: Any) -> str | None:
    """Return a value as it may be shown; ``None`` where it is not set."""
    if value is None:
        return None
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if variable.secrecy == "secret":
        return MASK
    if variable.secrecy == "url":
        return _without_password(str(value))
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def problems_of(error: ValidationError, variables: tuple[Variable, ...], reading: Reading) -> list[Problem]:
    """Return what pydantic found, in terms of the variables that people set."""
    by_place = {(variable.group, variable.field): variable for variable in variables}
    problems = []
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        group, name, *_ = detail["loc"]
        variable = by_place[str(group), str(name)]
        message = detail["msg"].removeprefix("Value error, ")
        found = reading.found.get(variable.name)
        if found is None:
            problems.append(Problem(variable.name, None, message))
            continue
        if found.raw.startswith("tcp://"):
            message += " (Kubernetes sets it for a service of that name: set enableServiceLinks to false)"
        problems.append(Problem(found.name, as_text(variable, found.raw), message))
    return problems


def _read_file(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values  # comes with pydantic-settings

    try:
        with path.open(encoding="utf-8-sig") as stream:
            values = dotenv_values(stream=stream, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"the settings file '{path}' cannot be read: {reason}") from error
    return {name: value for name, value in values.items() if value is not None}


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark or not scheme.isalnum():
        # No address: whatever stands there may be a password in the wrong place.
        return MASK
    place, query, options = rest.partition("?")  # redis-py takes a password there too
    if "@" in options:
        return f"{scheme}://{MASK}"  # part of a password, of one kind or the other
    # Up to the last @ of all, since a password that nobody escaped may hold any character.
    _, at, host = place.rpartition("@")
    return f"{scheme}://{MASK if at else ''}{at}{host}{query}{MASK if query else ''}"
