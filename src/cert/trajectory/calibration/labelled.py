"""Answers with their truth, as columns: what thresholds are calibrated and signals are judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import InputError

__all__ = ["Conditions", "LabelledData"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How answers were made: all that a promise about them depends on; ``None`` is not known.

    Attributes:
        model, revision: which model, as `cert.backends.ModelIdentity` names it.
        backend: what ran it.
        template: SHA-256 of the prompt's fixed part, as the user states it.
        sampling: temperature, top_p and top_k; without a seed.
        logprobs_mode: raw or processed log-probabilities.
        top_k: K, the candidates recorded a step.
        max_new_tokens: the limit of an answer's length.
        surprise_probability: of the configuration of the signals.
    """

    model: str | None = None
    revision: str | None = None
    backend: str | None = None
    template: str | None = None
    sampling: Mapping[str, Any] | None = None
    logprobs_mode: str | None = None
    top_k: int | None = None
    max_new_tokens: int | None = None
    surprise_probability: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class LabelledData:
    """n answers with labels and signals.

    Attributes:
        ids: (n,) names, unique.
        correct: (n,) whether each answer is right.
        columns: the signals by name, each (n,), as `cert.signals.signal_columns` gives them; NaN is not
            measured.
        units: (n,) whom or what each answer is about: answers of one unit are not independent, so it is the
            unit of splits, bounds and intervals. Without one each answer is its own.
        groups: (n,) the group of each for promises by group (Mondrian), or ``None``.
        conditions: how all of them were made.
        sha256: of the data that this was read from; empty for data made in memory.
        dropped: records that are not here, by reason: no label, an error, a duplicate.
        unchecked: what nobody could make sure of in these data, in sentences for people.

    Raises:
        InputError: columns of different lengths, labels that are no booleans, or ids that occur twice.
    """

    ids: tuple[str, ...]
    correct: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    units: NDArray[np.int64]
    groups: NDArray[Any] | None = None
    conditions: Conditions = field(default_factory=Conditions)
    sha256: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.correct.dtype != np.bool_:
            raise InputError(f"labels are true or false (1 or 0), not {self.correct.dtype}")
        lengths = {len(self.correct), len(self.units), *(len(column) for column in self.columns.values())}
        if self.groups is not None:
            lengths.add(len(self.groups))
        if lengths != {n}:
            raise InputError(f"the columns of {n} answers have the lengths {sorted(lengths)}")
        if len(set(self.ids)) != n:
            raise InputError("an answer occurs twice: each needs an id of its own")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_units(self) -> int:
        """How many different units there are."""
        return len(np.unique(self.units))

    def take(self, chosen: NDArray[Any] | Sequence[int]) -> Self:
        """Return the chosen answers: indices, or a mask of shape (n,)."""
        picked = np.asarray(chosen)
        places = np.arange(len(self))[picked if picked.size else picked.astype(np.int64)]
        return replace(
            self,
            ids=tuple(self.ids[place] for place in places.tolist()),
            correct=self.correct[places],
            columns={name: column[places] for name, column in self.columns.items()},
            units=self.units[places],
            groups=None if self.groups is None else self.groups[places],
        )
