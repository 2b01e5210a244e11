"""Certificates as JSON: written by name, and read as strictly as a file of strangers has to be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import msgspec

from cert._version import __version__
from cert.core.errors import InputError
from cert.core.visible import label
from cert.trajectory.calibration import certificate as kinds
from cert.trajectory.calibration.certificate_parts import Achieved, Quantiles, Rate, ScoreQuantiles, Share
from cert.trajectory.calibration.certificate_wire import CertificateJson
from cert.trajectory.calibration.goals.types import Threshold
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.gate import json_number

if TYPE_CHECKING:
    from cert.trajectory.calibration.certificate import Certificate

__all__ = ["KIND", "LARGEST", "certificate_of", "content_of", "read_certificate", "text_of"]

KIND: Final = "gate_certificate"
LARGEST: Final = 2**22
"""Bytes of the largest file that is read: many times what a certificate with a hundred groups has."""

_C = TypeVar("_C", bound="Certificate")

_ANEW = "take it from its source again, or calibrate anew"


# --- out ---


def content_of(c: Certificate, *, dated: bool = True) -> dict[str, Any]:
    """Return all but the id, the checksum and the signature, ready for JSON."""
    content: dict[str, Any] = {
        "schema_version": kinds.SCHEMA_VERSION,
        "kind": KIND,
        "goal": c.goal,
        "alpha": c.alpha,
        "delta": c.delta,
        "score": c.score,
        "combiner": c.combiner,
        "threshold": None if c.threshold is None else _threshold(c.threshold),
        "groups": None if c.groups is None else {name: _threshold(t) for name, t in c.groups.items()},
        "conditions": {**asdict(c.conditions), "sampling": _sampling(c.conditions)},
        "n": c.n,
        "n_units": c.n_units,
        "n_wrong": c.n_wrong,
        "not_measured": c.not_measured,
        "data": {
            "n": c.data_n,
            "n_units": c.data_units,
            "sha256": c.data_sha256 or None,
            "dropped": dict(c.dropped),
        },
        "split": {name: asdict(share) for name, share in c.split.items()},
        "seed": c.seed,
        "versions": dict(c.versions),
        "achieved": None if c.achieved is None else _achieved(c.achieved),
        "score_quantiles": {"all": _quantiles(c.score_quantiles.all),
                            "correct": _quantiles(c.score_quantiles.correct)},
        "notes": list(c.notes),
    }  # fmt: skip
    return content | {"created_at": c.created_at} if dated else content


def text_of(c: Certificate) -> str:
    """Return the text of its file."""
    return json.dumps(c.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _sampling(conditions: Conditions) -> dict[str, Any] | None:
    return None if conditions.sampling is None else dict(conditions.sampling)


def _threshold(t: Threshold) -> dict[str, Any]:
    details = {name: json_number(v) if isinstance(v, float) else v for name, v in t.details.items()}
    return {"value": json_number(t.value), "n": t.n, "n_units": t.n_units, "n_wrong": t.n_wrong,
            "details": details}  # fmt: skip


def _rate(rate: Rate) -> dict[str, Any]:
    return {name: json_number(v) if isinstance(v, float) else v for name, v in asdict(rate).items()}


def _achieved(a: Achieved) -> dict[str, Any]:
    return {
        "n": a.n,
        "n_units": a.n_units,
        "n_wrong": a.n_wrong,
        "not_measured": a.not_measured,
        "promised": _rate(a.promised),
        "rates": {name: _rate(rate) for name, rate in a.rates.items()},
        "by_group": {name: _rate(rate) for name, rate in a.by_group.items()},
    }


def _quantiles(q: Quantiles) -> dict[str, Any]:
    values = [json_number(value) for value in q.values]
    return {"n": q.n, "values": values, "below": list(q.below), "at_most": list(q.at_most)}


# --- in ---


def read_certificate(cls: type[_C], path: Path) -> _C:
    """Return the certificate of a file.

    Raises:
        InputError: it cannot be read, is too large, is no JSON or no certificate, or was changed.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > LARGEST:
        raise InputError(f"'{path}' is no certificate: it has more than {LARGEST:,} bytes")
    try:
        return certificate_of(cls, _parsed(data))
    except InputError as error:
        raise InputError(f"'{path}': {error.message}", hint=error.hint, context=error.context) from error


def certificate_of(cls: type[_C], data: object) -> _C:
    """Return the certificate of parsed JSON, once its hashes and its signature are right.

    Raises:
        InputError: it is no certificate, of another version, or was changed.
    """
    if not isinstance(data, Mapping) or data.get("kind") != KIND:
        raise InputError("this is no certificate of a gate", hint="`cert calibrate` makes one")
    version = data.get("schema_version")
    if type(version) is not int or version != kinds.SCHEMA_VERSION:
        raise InputError(
            f"the certificate has version {label(str(version), 40)}, and this CERT ({__version__}) reads "
            f"version {kinds.SCHEMA_VERSION}",
            hint="calibrate anew, or update CERT",
        )
    try:
        wire = msgspec.convert(dict(data), CertificateJson)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InputError(f"the certificate is not in its form: {label(str(error), 300)}") from error
    certificate = _made(cls, wire)
    if (certificate.id, certificate.checksum) != (wire.id, wire.sha256):
        raise InputError("the certificate was damaged or edited: its hash is not of its content", hint=_ANEW)
    if certificate.signature is not None:
        certificate.verify()
    return certificate


def _made(cls: type[_C], w: CertificateJson) -> _C:
    promise = (w.goal, w.alpha, w.delta)
    signature = None
    if w.signature is not None:
        key, value = bytes.fromhex(w.signature.public_key), bytes.fromhex(w.signature.value)
        signature = kinds.Signature(key, value)
    return cls(
        goal=w.goal,
        alpha=w.alpha,
        delta=w.delta,
        score=w.score,
        combiner=w.combiner,
        threshold=None if w.threshold is None else w.threshold.read(*promise),
        groups=None if w.groups is None else {name: t.read(*promise) for name, t in w.groups.items()},
        conditions=w.conditions.read(),
        n=w.n,
        n_units=w.n_units,
        n_wrong=w.n_wrong,
        not_measured=w.not_measured,
        data_n=w.data.n,
        data_units=w.data.n_units,
        data_sha256=w.data.sha256 or "",
        dropped=w.data.dropped,
        split={name: Share(s.n, s.n_units, s.n_wrong) for name, s in w.split.items()},
        seed=w.seed,
        created_at=w.created_at,
        versions=w.versions,
        achieved=None if w.achieved is None else w.achieved.read(),
        score_quantiles=ScoreQuantiles(w.score_quantiles.all.read(), w.score_quantiles.correct.read()),
        notes=tuple(w.notes),
        signature=signature,
    )


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is no JSON: {label(str(error), 200)}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two readers may each believe another of the two.
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise InputError(f"the name '{label(twice)}' occurs twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise InputError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InputError(f"{label(text)} is larger than any number")
    return value
