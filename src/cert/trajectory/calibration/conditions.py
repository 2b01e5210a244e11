"""How answers were made, as their records and a running monitor say it: in one form, to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Protocol

from cert.core.errors import InputError
from cert.core.visible import label
from cert.trajectory.calibration.labelled import Conditions

__all__ = ["Agreement", "recorded_conditions"]

_UNKNOWN = "unknown"
# What a record of an API's response has where nobody wrote down who answered.
_STORED = "stored"


class _Model(Protocol):
    """Who answered, as `cert.backends.ModelIdentity` and the records of it have it."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def backend(self) -> str: ...


class _Sampling(Protocol):
    """How tokens were chosen, as `cert.backends.Sampling` and the records of it have it."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float | None: ...
    @property
    def top_k(self) -> int | None: ...


def recorded_conditions(
    model: _Model,
    sampling: _Sampling | None,
    logprobs_mode: str,
    *,
    top_k: int | None,
    surprise_probability: float,
    max_new_tokens: int | None = None,
) -> Conditions:
    """Return conditions in the form in which they are compared; what is ``unknown`` is ``None``.

    The sampling has no seed, and of greedy decoding the temperature alone: the rest plays no part then.
    """
    return Conditions(
        model=None if model.name == _UNKNOWN else model.name,
        revision=model.revision,
        backend=None if model.backend == _STORED else model.backend,
        sampling=None if sampling is None else _sampling(sampling),
        logprobs_mode=None if logprobs_mode == _UNKNOWN else logprobs_mode,
        top_k=top_k,
        max_new_tokens=max_new_tokens,
        surprise_probability=surprise_probability,
    )


class Agreement:
    """Finds out whether all records were made in one way.

    Args:
        given: what the records do not say; ``None`` in a field leaves it to them.

    Raises:
        InputError: from `add`: two records differ, or one contradicts what was given.
    """

    def __init__(self, given: Conditions | None = None) -> None:
        self._given = given or Conditions()
        self._seen: Conditions | None = None
        self._first: tuple[Conditions, str] | None = None

    @property
    def conditions(self) -> Conditions:
        """How all records so far were made."""
        return self._first[0] if self._first else self._given

    def add(self, found: Conditions, where: str) -> None:
        """Take the conditions of one record.

        Args:
            found: of the record.
            where: its place, for the message.
        """
        if found == self._seen:  # as nearly all of them are
            return
        whole = self._filled(found, where)
        if self._first is None:
            self._first = whole, where
        first, first_where = self._first
        for field in fields(Conditions):
            a, b = getattr(first, field.name), getattr(whole, field.name)
            if a != b:
                raise InputError(
                    f"the answers were made in different ways: {field.name} is {_shown(a)} at {first_where} "
                    f"and {_shown(b)} at {where}",
                    hint="a promise holds for one way of making answers: calibrate each by itself",
                )
        self._seen = found

    def _filled(self, found: Conditions, where: str) -> Conditions:
        """Return conditions with what was given in the place of what is not recorded."""
        stated = {}
        for field in fields(Conditions):
            given, recorded = getattr(self._given, field.name), getattr(found, field.name)
            if given is None:
                continue
            if recorded is not None and given != recorded:
                raise InputError(
                    f"{field.name} is stated as {_shown(given)}, and {where} records {_shown(recorded)}"
                )
            stated[field.name] = given
        return replace(found, **stated)


def _sampling(sampling: _Sampling) -> Mapping[str, Any]:
    if sampling.temperature == 0.0:
        return {"temperature": 0.0}
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}


def _shown(value: Any) -> str:
    if value is None:
        return "not recorded"
    return f"'{label(value, 120)}'" if isinstance(value, str) else label(str(value), 120)
