"""What a judge looks at, as data: criteria with weights, and what the points of the scale mean."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

from cert.core.errors import ConfigurationError

__all__ = ["Criteria", "Criterion", "Rubric"]

CURRENT = "v1"
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing to look at.

    Attributes:
        name: for the judge and for records.
        weight: of its score in the whole, relative to the others.
        description: for the judge; may be empty.

    Raises:
        ConfigurationError: the weight is not positive, or the name is empty, long or more than a line.
    """

    name: str
    weight: float = 1.0
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable() or len(self.name) > _LONGEST_NAME:
            raise ConfigurationError(f"a criterion is named on one line, not {self.name[:40]!r}")
        if not (math.isfinite(self.weight) and self.weight > 0.0):
            raise ConfigurationError(
                f"the weight of criterion {self.name!r} must be positive, not {self.weight}"
            )


Criteria: TypeAlias = Mapping[str, float] | Sequence[Criterion | str]


@dataclass(frozen=True, slots=True)
class Rubric:
    """How points are given.

    Attributes:
        version: of the rubric, for records.
        criteria: each is scored by itself; one or more, with different names.
        most: points of a perfect answer; the scale is the whole numbers from 0.
        levels: what some of the points mean, such as ``(0, "of no use")``.

    Raises:
        ConfigurationError: no criterion, two of one name, or a scale that cannot be right.
    """

    version: str
    criteria: tuple[Criterion, ...]
    most: int = 10
    levels: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        names = {criterion.name for criterion in self.criteria}
        if not self.criteria or len(names) < len(self.criteria):
            raise ConfigurationError("a rubric needs one criterion or more, with different names")
        if type(self.most) is not int or not 1 <= self.most <= 100:
            raise ConfigurationError(f"a scale goes from 0 to 1…100 points, not to {self.most!r}")
        if any(type(points) is not int or not 0 <= points <= self.most for points, _ in self.levels):
            raise ConfigurationError(f"a level of the rubric is off its scale, 0 to {self.most}")

    @classmethod
    def default(cls) -> Rubric:
        """Return the rubric of the package."""
        return _packaged()

    @classmethod
    def load(cls, path: str | Path) -> Rubric:
        """Read a rubric from a JSON file of the form of the package's own, ``rubric.v1.json``.

        Raises:
            ConfigurationError: it cannot be read or is of another form.
        """
        try:
            return _parsed(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path} is no rubric: {error!r}") from error

    @classmethod
    def of(cls, rubric: Rubric | str | Path | None, criteria: Criteria | None) -> Rubric:
        """Return a rubric, a file's or the package's own, with other criteria where they are given."""
        if rubric is None:
            chosen = cls.default()
        else:
            chosen = rubric if isinstance(rubric, Rubric) else cls.load(rubric)
        return chosen if criteria is None else chosen.looking_at(criteria)

    def looking_at(self, criteria: Criteria) -> Rubric:
        """Return the same scale with other criteria: a mapping of names to weights, names, or `Criterion`."""
        if isinstance(criteria, str):
            raise ConfigurationError("criteria are a list or a mapping, not one string")
        if isinstance(criteria, Mapping):
            made = tuple(Criterion(name, weight) for name, weight in criteria.items())
        else:
            made = tuple(one if isinstance(one, Criterion) else Criterion(one) for one in criteria)
        return replace(self, criteria=made)

    @property
    def keys(self) -> tuple[str, ...]:
        """A name of each criterion that every vendor takes for a key of a schema."""
        found: dict[str, None] = {}
        for number, criterion in enumerate(self.criteria, 1):
            key = re.sub("[^a-z0-9]+", "_", criterion.name.casefold()).strip("_")[:48]
            found[key if key and key not in found else f"criterion_{number}"] = None
        return tuple(found)

    @property
    def sha256(self) -> str:
        """Of everything that a judge reads of it, and of the weights."""
        criteria = [[one.name, float(one.weight), one.description] for one in self.criteria]
        read = [self.version, self.most, [list(level) for level in self.levels], criteria]
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()

    def described(self) -> str:
        """Return criteria and scale in words."""
        lines = ["Criteria:"]
        for key, criterion in zip(self.keys, self.criteria, strict=True):
            name = "" if criterion.name == key else f" ({criterion.name})"
            lines.append(f"- {key}{name}{f': {criterion.description}' if criterion.description else ''}")
        lines.append(f"Give each criterion a whole number of points from 0 to {self.most}.")
        lines += [f"{points} points: {meaning}" for points, meaning in self.levels]
        return "\n".join(lines)

    def in_order(self) -> str:
        """Return the criteria in words, the weightiest first, without a scale."""
        ranked = sorted(self.criteria, key=lambda criterion: -criterion.weight)
        each = (f"- {one.name}{f': {one.description}' if one.description else ''}" for one in ranked)
        return "\n".join(["Criteria, the most important ones first:", *each])

    def score(self, points: Sequence[int]) -> float:
        """Return the weighted mean of the criteria's points, in [0, 1]."""
        total = math.fsum(one.weight for one in self.criteria)
        earned = math.fsum(one.weight * n for one, n in zip(self.criteria, points, strict=True))
        return min(1.0, earned / (total * self.most))


def _parsed(data: Any) -> Rubric:
    return Rubric(
        version=str(data["version"]),
        criteria=tuple(
            Criterion(one["name"], one.get("weight", 1.0), one.get("description", ""))
            for one in data["criteria"]
        ),
        most=data["most"],
        levels=tuple((int(points), str(meaning)) for points, meaning in data["levels"].items()),
    )


@cache
def _packaged() -> Rubric:
    raw = (
        resources.files("cert.coordination.evaluators").joinpath(f"rubric.{CURRENT}.json").read_text("utf-8")
    )
    return _parsed(json.loads(raw))
