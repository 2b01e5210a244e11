"""The state of a watch as JSON, read as strictly as any file that may have been in other hands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from cert.core.errors import InputError

__all__ = ["StateJson", "read_state", "state_text"]

_LARGEST: Final = 2**22
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Level = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]


class StateJson(msgspec.Struct, forbid_unknown_fields=True):
    """What `GateWatch.to_dict` gives."""

    schema_version: int
    kind: str
    certificate: str
    shift_level: _Level
    risk_level: _Level
    seed: _Count
    drawn: _Count
    seen: _Count
    not_measured: _Count
    shifted_at: _Count | None
    tests: list[dict[str, Any] | None]
    labels: _Count
    void_at: _Count | None
    risks: dict[str, tuple[_Count, _Count]]
    bounds: dict[str, Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]]


def read_state(data: object, certificate: str) -> StateJson:
    """Return the checked state.

    Args:
        data: JSON text as bytes, or what it says.
        certificate: id of the certificate that it has to be of.

    Raises:
        InputError: it is no state, of another version or certificate, or its numbers contradict each other.
    """
    try:
        if isinstance(data, bytes):
            if len(data) > _LARGEST:
                raise InputError("this is no state of a watch: it is too large")
            state = msgspec.json.decode(data, type=StateJson)
        else:
            state = msgspec.convert(data, StateJson)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"this is no state of a watch: {error}") from error
    if state.kind != "gate_watch" or state.schema_version != 1:
        raise InputError(f"this is no state of a watch: {state.kind!r} of version {state.schema_version}")
    if state.certificate != certificate:
        raise InputError(
            "the state is of the watch of another certificate",
            hint="a new certificate begins with a new watch",
            context={"certificate": certificate, "state": state.certificate[:64]},
        )
    _refuse_contradictions(state)
    return state


def _refuse_contradictions(state: StateJson) -> None:
    sound = (
        state.not_measured <= state.seen <= state.drawn
        and (state.shifted_at is None or 1 <= state.shifted_at <= state.seen)
        and (state.void_at is None or 1 <= state.void_at <= state.labels)
        and state.risks.keys() == state.bounds.keys()
        and all(events <= counted <= state.labels for counted, events in state.risks.values())
        and all(_seen(test) in (None, state.seen) for test in state.tests)
    )
    if not sound:
        raise InputError("this is no state of a watch: its numbers contradict each other")


def _seen(test: Mapping[str, Any] | None) -> int | None:
    if test is None:
        return None
    counts = test.get("counts")
    if isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts):
        return sum(counts)
    raise InputError("this is no state of a watch: a test without counts")


def state_text(state: Mapping[str, Any]) -> bytes:
    """Return the JSON of a state."""
    return (json.dumps(state, allow_nan=False) + "\n").encode()
