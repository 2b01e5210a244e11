"""The form of a certificate's JSON: every field with its type and range, and no other field."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec

from cert.trajectory.calibration.certificate_parts import Achieved, Quantiles, Rate
from cert.trajectory.calibration.goals.types import Goal, Threshold
from cert.trajectory.calibration.labelled import Conditions

__all__ = ["CertificateJson"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Inside = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
_Text = Annotated[str, msgspec.Meta(max_length=10_000)]
_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Infinite = Literal["Infinity", "-Infinity"]
_Value = float | _Infinite


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _ThresholdJson(_Strict):
    value: _Value
    n: _Count
    n_units: _Count
    n_wrong: _Count
    details: dict[_Name, int | float | str | None]

    def read(self, goal: Goal, alpha: float, delta: float | None) -> Threshold:
        details = {name: _named(value) for name, value in self.details.items()}
        sizes = (self.n, self.n_units, self.n_wrong)
        return Threshold(goal, float(self.value), alpha, delta, *sizes, details)


class _SamplingJson(_Strict):
    temperature: Annotated[float, msgspec.Meta(ge=0.0)]
    top_p: _Share | msgspec.UnsetType | None = msgspec.UNSET
    top_k: _Count | msgspec.UnsetType | None = msgspec.UNSET


class _ConditionsJson(_Strict):
    model: _Text | None
    revision: _Text | None
    backend: _Text | None
    template: _Text | None
    sampling: _SamplingJson | None
    logprobs_mode: Literal["raw", "processed"] | None
    top_k: _Count | None
    max_new_tokens: _Count | None
    surprise_probability: _Share | None

    def read(self) -> Conditions:
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        sampling = None if self.sampling is None else msgspec.to_builtins(self.sampling)
        return Conditions(**values | {"sampling": sampling})


class _DataJson(_Strict):
    n: _Count
    n_units: _Count
    sha256: _Hash | None
    dropped: dict[_Name, _Count]


class _ShareJson(_Strict):
    n: _Count
    n_units: _Count
    n_wrong: _Count


class _RateJson(_Strict):
    value: _Share | None
    lower: _Share | None
    upper: _Share | None
    n: _Count
    n_units: _Count

    def read(self) -> Rate:
        value, lower, upper = (math.nan if v is None else v for v in (self.value, self.lower, self.upper))
        return Rate(value, lower, upper, self.n, self.n_units)


class _AchievedJson(_Strict):
    n: _Count
    n_units: _Count
    n_wrong: _Count
    not_measured: _Count
    promised: _RateJson
    rates: dict[_Name, _RateJson]
    by_group: dict[_Name, _RateJson]

    def read(self) -> Achieved:
        rates = {name: rate.read() for name, rate in self.rates.items()}
        by_group = {name: rate.read() for name, rate in self.by_group.items()}
        sizes = (self.n, self.n_units, self.n_wrong, self.not_measured)
        return Achieved(*sizes, self.promised.read(), rates, by_group)


class _QuantilesJson(_Strict):
    n: _Count
    values: Annotated[list[_Value], msgspec.Meta(max_length=10_001)]
    below: Annotated[list[_Count], msgspec.Meta(max_length=10_001)]
    at_most: Annotated[list[_Count], msgspec.Meta(max_length=10_001)]

    def read(self) -> Quantiles:
        return Quantiles(self.n, tuple(map(float, self.values)), tuple(self.below), tuple(self.at_most))


class _ScoreQuantilesJson(_Strict):
    all: _QuantilesJson
    correct: _QuantilesJson


def _named(value: Any) -> Any:
    return float(value) if value in ("Infinity", "-Infinity") else value


class _SignatureJson(_Strict):
    algorithm: Literal["ed25519"]
    public_key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    value: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]


class CertificateJson(_Strict):
    """All that the file of a certificate holds, and nothing else."""

    schema_version: int
    kind: str
    id: _Hash
    sha256: _Hash
    signature: _SignatureJson | None
    goal: Goal
    alpha: _Inside
    delta: _Inside | None
    score: _Name
    combiner: dict[str, Any] | None
    threshold: _ThresholdJson | None
    groups: dict[_Name, _ThresholdJson] | None
    conditions: _ConditionsJson
    n: _Count
    n_units: _Count
    n_wrong: _Count
    not_measured: _Count
    data: _DataJson
    split: dict[_Name, _ShareJson]
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    versions: dict[_Name, _Text]
    achieved: _AchievedJson | None
    score_quantiles: _ScoreQuantilesJson
    notes: Annotated[list[_Text], msgspec.Meta(max_length=1_000)]
    created_at: _Text
