"""A series as JSON, and back; what is read is a file's, and may be anything."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from cert.coordination.drift.anchors import Shift
from cert.coordination.drift.attribution import Moments
from cert.coordination.drift.series import Acknowledgement, Alarm, Check, Plan, Series
from cert.coordination.statistics.drift import DropDetector, DropState
from cert.coordination.types import Interval

__all__ = ["decode_series", "encode_series"]

T = TypeVar("T")

_KINDS = ("system", "judge", "both", "unclear")


def encode_series(series: Series) -> str:
    """Return a series as JSON."""
    told = dataclasses.asdict(series)
    if series.acknowledgement is None:
        del told["acknowledgement"]  # which earlier versions cannot read
    return json.dumps(told, allow_nan=False, separators=(",", ":"))


def decode_series(text: str) -> Series:
    """Return the series that `encode_series` wrote.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    told = json.loads(text, parse_constant=_refuse)
    series = Series(
        **{
            **told,
            "plan": Plan(**told["plan"]),
            "reference": tuple(told["reference"]),
            "detector": _maybe(lambda fields: DropDetector(**fields), told["detector"]),
            "state": DropState.of(told["state"]),
            "after": Moments(**told["after"]),
            "check": _maybe(_check, told["check"]),
            "alarm": _maybe(_alarm, told["alarm"]),
            "acknowledgement": _maybe(_acknowledgement, told.get("acknowledgement")),
        }
    )
    _look_at(series)
    return series


def _look_at(series: Series) -> None:
    numbers = [series.after.total, series.after.squares, *series.reference]
    if series.detector is not None:
        numbers += [series.detector.mean, series.detector.threshold]
    counts = (series.reference_missing, series.attempt_at, series.after.n, series.checks, series.acknowledged)
    texts = (series.evaluator, series.waiting)
    if (
        not all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        or not all(0.0 <= score <= 1.0 for score in series.reference)
        or not all(type(count) is int and count >= 0 for count in counts)
        or not all(told is None or isinstance(told, str) for told in texts)
    ):
        raise ValueError("numbers out of range")


def _maybe(make: Callable[[Mapping[str, Any]], T], fields: Mapping[str, Any] | None) -> T | None:
    return None if fields is None else make(fields)


def _alarm(fields: Mapping[str, Any]) -> Alarm:
    if fields["kind"] not in _KINDS:
        raise ValueError("an alarm of no kind")
    return Alarm(**fields)


def _acknowledgement(fields: Mapping[str, Any]) -> Acknowledgement:
    found = Acknowledgement(**fields)
    times = (found.at, found.raised_at)
    if (
        fields["kind"] not in _KINDS
        or not isinstance(fields["by"], str | None)
        or not all(type(time) in (int, float) and math.isfinite(time) for time in times)
    ):
        raise ValueError("an acknowledgement of nothing")
    return found


def _check(fields: Mapping[str, Any]) -> Check:
    if fields["kind"] not in (None, *_KINDS):
        raise ValueError("a check of no kind")
    return Check(
        **{
            **fields,
            "scores": tuple(fields["scores"]),
            "shift": _maybe(
                lambda told: Shift(**{**told, "interval": Interval(**told["interval"])}), fields["shift"]
            ),
            "interval": _maybe(lambda told: Interval(**told), fields["interval"]),
        }
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number here")
