"""A small logistic model over the signals of one pass: one score made of many.

A weighted sum of standardised signals, as WEPR is one of entropies (arXiv 2509.04492). It is a score like the
others, and plain numbers: what fits it is in `cert.trajectory.calibration.combiner_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InputError
from cert.core.visible import label
from cert.signals import GenerationSignals
from cert.trajectory.calibration.scores import SCORES

if TYPE_CHECKING:
    from cert.trajectory.calibration.combiner_fit import CombinerFit, fit_combiner

__all__ = ["CLIP", "FEATURES", "Combiner", "CombinerFit", "fit_combiner"]

CLIP: Final = 5.0
"""Standardised signals are cut at so many deviations: no outlier decides, infinite ones included."""

# Without what truncation removes, and without perplexities: they are exponentials of surprisals.
FEATURES: Final = tuple(
    name
    for name, score in SCORES.items()
    if score.truncated != "not_measured" and "perplexity" not in score.column
)
"""The scores that are combined, by name."""

_KIND: Final = "logistic_combiner"
_VERSION: Final = 1
_MEMBERS: Final = frozenset(
    {"kind", "schema_version", "name", "features", "mean", "scale", "weights", "intercept"}
)
_LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Combiner:
    """The log-odds of an answer to be wrong, by a logistic model; larger is worse.

    intercept + Σ weight · clip((score − mean) / scale, −5, 5). NaN where one of the scores was not measured.

    Attributes:
        features: names of `SCORES`, each once.
        mean, scale: what standardises each; scales are above 0.
        weights: of each.
        intercept: the log-odds at the means.
        name: for users and certificates.

    Raises:
        InputError: numbers that are not finite, scales that are not above 0, unlike lengths, or features that
            there are not.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    name: str = "combiner"

    def __post_init__(self) -> None:
        if not self.features or len(set(self.features)) != len(self.features):
            raise InputError("a combiner has at least one feature, and each once")
        if unknown := [name for name in self.features if name not in SCORES]:
            raise InputError(f"a combiner of scores that there are not: {label(', '.join(unknown), 100)}")
        columns = (self.mean, self.scale, self.weights)
        if any(len(column) != len(self.features) for column in columns):
            raise InputError("a combiner has one mean, one scale and one weight for each feature")
        if not all(math.isfinite(number) for column in (*columns, (self.intercept,)) for number in column):
            raise InputError("the numbers of a combiner are finite")
        if min(self.scale) <= 0.0:
            raise InputError("the scales of a combiner are above 0")
        if not 0 < len(self.name) <= _LONGEST_NAME or self.name in SCORES:
            raise InputError("a combiner has a name of its own, of at most 200 characters")

    def of(self, signals: GenerationSignals) -> float:
        """Return the log-odds of one generation to be wrong; NaN is not measured."""
        needed = {SCORES[name].column for name in self.features}
        # Through the same arithmetic as columns, so that the bits are the same.
        return float(self.column_of({name: np.array([getattr(signals, name)]) for name in needed})[0])

    def column_of(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return the log-odds of (n,) generations to be wrong; NaN is not measured."""
        total: NDArray[np.float64] | None = None
        parts = zip(self.features, self.mean, self.scale, self.weights, strict=True)
        for name, mean, scale, weight in parts:
            score = SCORES[name].column_of(columns)
            term = weight * np.clip((score - mean) / scale, -CLIP, CLIP)
            total = self.intercept + term if total is None else total + term
        assert total is not None
        return total

    def to_dict(self) -> dict[str, Any]:
        """Return the combiner as JSON-ready data, which `of_dict` reads to the same bits."""
        return {
            "kind": _KIND,
            "schema_version": _VERSION,
            "name": self.name,
            "features": list(self.features),
            "mean": list(self.mean),
            "scale": list(self.scale),
            "weights": list(self.weights),
            "intercept": self.intercept,
        }

    @classmethod
    def of_dict(cls, data: Any) -> Self:
        """Return the combiner that `to_dict` wrote.

        Raises:
            InputError: a member is missing, unknown or of another kind, or the numbers are none that a
                combiner has.
        """
        if not isinstance(data, Mapping) or set(data) != _MEMBERS:
            raise InputError(f"a combiner has exactly the members {', '.join(sorted(_MEMBERS))}")
        version = data["schema_version"]
        if data["kind"] != _KIND or isinstance(version, bool) or version != _VERSION:
            raise InputError(f"this is no {_KIND} of version {_VERSION}")
        features = data["features"]
        if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
            raise InputError("the features of a combiner are a list of names")
        if not isinstance(data["name"], str):
            raise InputError("the name of a combiner is text")
        mean, scale, weights = (_numbers(data[member], member) for member in ("mean", "scale", "weights"))
        (intercept,) = _numbers([data["intercept"]], "intercept")
        return cls(tuple(features), mean, scale, weights, intercept, data["name"])


def _numbers(values: Any, member: str) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) > len(SCORES):
        raise InputError(f"'{member}' of a combiner is a short list of numbers")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise InputError(f"'{member}' of a combiner is no number")
    try:
        return tuple(float(value) for value in values)
    except OverflowError as error:
        raise InputError(f"'{member}' of a combiner is too large a number") from error


def __getattr__(name: str) -> Any:
    if name in ("CombinerFit", "fit_combiner"):  # fitting is seldom, and prediction loads none of it
        from cert.trajectory.calibration import combiner_fit

        return getattr(combiner_fit, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
