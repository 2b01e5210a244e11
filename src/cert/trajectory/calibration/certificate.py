"""The certificate of a calibrated gate: a threshold, what it promises, and all that this depends on."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from cert.core.errors import InputError
from cert.trajectory.calibration.certificate_parts import Achieved, Rate, ScoreQuantiles, Share
from cert.trajectory.calibration.goals.types import GOALS, Goal, Threshold
from cert.trajectory.calibration.labelled import Conditions

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["SCHEMA_VERSION", "Achieved", "Certificate", "Rate", "ScoreQuantiles", "Share", "Signature"]

SCHEMA_VERSION: Final = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Signature:
    """An Ed25519 signature (RFC 8032) of a certificate.

    Attributes:
        public_key: the 32 bytes of the key that it is checked with. Whoever edits a certificate can put a
            key of his own here: it says who signed only to those who know the key from elsewhere.
        value: the 64 bytes of the signature.
    """

    public_key: bytes
    value: bytes

    def __post_init__(self) -> None:
        if len(self.public_key) != 32 or len(self.value) != 64:
            raise InputError("an Ed25519 key has 32 bytes and its signature 64")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a calibration found, as it is saved and as a gate is made of it.

    Attributes:
        goal, alpha, delta: which promise, as `Threshold` has them.
        score: the name of the score that is compared with the threshold.
        combiner: the plain JSON of the combiner that gives the score; ``None`` for a score of `SCORES`.
        threshold: λ for every answer; ``None`` where each group has its own.
        groups: a threshold for each group (Mondrian), by the group's name; ``None`` without groups.
        conditions: how the answers were made; ``None`` in a field is not known.
        n, n_units, n_wrong: of the answers that the thresholds were computed from.
        not_measured: how many of the n have no score.
        data_n, data_units: of all the labelled answers that were given.
        data_sha256: of the labelled data; empty where they were made in memory.
        dropped: records that took no part, by reason.
        split: the parts of the data, by name: ``tuning``, ``calibration``, ``held_out``.
        seed: of the split and of everything random.
        created_at: UTC, RFC 3339.
        versions: of the packages that computed it.
        achieved: what the gate did on answers that played no part in it; ``None`` is not measured.
        score_quantiles: of the scores of answers that no choice was made on: to notice a shift by.
        notes: what its reader must know, one sentence each.
        signature: ``None`` where nobody signed: then its hashes protect against accidents only.

    Raises:
        InputError: a value that no calibration gives, or values that contradict each other.
    """

    goal: Goal
    alpha: float
    delta: float | None
    score: str
    threshold: Threshold | None
    conditions: Conditions
    n: int
    n_units: int
    n_wrong: int
    data_n: int
    data_units: int
    seed: int
    created_at: str
    versions: Mapping[str, str]
    score_quantiles: ScoreQuantiles
    combiner: Mapping[str, Any] | None = None
    groups: Mapping[str, Threshold] | None = None
    not_measured: int = 0
    data_sha256: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    split: Mapping[str, Share] = field(default_factory=dict)
    achieved: Achieved | None = None
    notes: tuple[str, ...] = ()
    signature: Signature | None = None

    def __post_init__(self) -> None:
        _check(self)

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """Every threshold of it."""
        return (self.threshold,) if self.threshold is not None else tuple((self.groups or {}).values())

    @cached_property
    def id(self) -> str:
        """SHA-256 of all but the date and the signature: the same calibration has the same id."""
        from cert.trajectory.calibration.signing import sha256_of

        return sha256_of(self._content(dated=False))

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of all but itself and the signature: it shows damage, and stops nobody who edits it too."""
        from cert.trajectory.calibration.signing import sha256_of

        return sha256_of(self._content())

    def sign(self, private_key: Ed25519PrivateKey) -> Self:
        """Return the same certificate, signed.

        Raises:
            DependencyMissingError: without the package cryptography.
        """
        from cert.trajectory.calibration.signing import public_bytes, signed

        content = self._content()
        return replace(self, signature=Signature(public_bytes(private_key), signed(content, private_key)))

    def verify(self, public_key: Ed25519PublicKey | None = None) -> None:
        """Make sure that nobody changed it after it was signed.

        Args:
            public_key: of whom one trusts. Without it the signature is checked with the key that stands in
                the certificate itself: this shows damage, and not who signed.

        Raises:
            InputError: it is not signed, or signed with another key, or the signature is not of this content.
            DependencyMissingError: without the package cryptography.
        """
        from cert.trajectory.calibration.signing import check_signature

        if self.signature is None:
            raise InputError(
                "the certificate is not signed",
                hint="sign it, or load it without a key: its hash protects it against accidents alone",
            )
        check_signature(self._content(), self.signature.value, self.signature.public_key, public_key)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data as the schema ``gate-certificate.v1.json`` describes it."""
        signature = None
        if self.signature is not None:
            signature = {
                "algorithm": "ed25519",
                "public_key": self.signature.public_key.hex(),
                "value": self.signature.value.hex(),
            }
        return {"id": self.id, "sha256": self.checksum, "signature": signature} | self._content()

    @classmethod
    def of_dict(cls, data: object) -> Self:
        """Return the certificate of data that `to_dict` gave, after any number of hands.

        Raises:
            InputError: they are no certificate, of another version, or were changed since.
        """
        from cert.trajectory.calibration.certificate_json import certificate_of

        return certificate_of(cls, data)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, public_key: Ed25519PublicKey | str | Path | None = None
    ) -> Self:
        """Read a certificate, and make sure that it is whole.

        Args:
            path: the file.
            public_key: of whom one trusts, or the PEM file of it: then a certificate without a signature, or
                with another one, is refused. Without it a signature is still checked, as `verify` says.

        Raises:
            InputError: the file cannot be read, is no certificate or of another version, was changed since
                it was made, or is not signed with this key.
        """
        from cert.trajectory.calibration.certificate_json import read_certificate
        from cert.trajectory.calibration.signing import load_public_key

        key = load_public_key(public_key) if isinstance(public_key, str | Path) else public_key
        certificate = read_certificate(cls, Path(path))
        if key is not None:
            certificate.verify(key)
        return certificate

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it whole or not at all, and return the path.

        Raises:
            OutputError: it cannot be written.
        """
        from cert.core.files import write_whole
        from cert.trajectory.calibration.certificate_json import text_of

        return write_whole(path, text_of(self).encode())

    def _content(self, *, dated: bool = True) -> dict[str, Any]:
        from cert.trajectory.calibration.certificate_json import content_of

        return content_of(self, dated=dated)


def _check(c: Certificate) -> None:
    def refuse(what: str) -> InputError:
        return InputError(f"no certificate says this: {what}")

    if c.goal not in GOALS:
        raise refuse(f"the goal '{c.goal}'")
    if not 0.0 < c.alpha < 1.0 or not (c.delta is None or 0.0 < c.delta < 1.0):
        raise refuse(f"alpha {c.alpha} and delta {c.delta}; both are above 0 and below 1")
    if (c.threshold is None) == (c.groups is None) or not c.thresholds:
        raise refuse("neither one threshold nor one for each group, or both")
    for threshold in c.thresholds:
        if math.isnan(threshold.value):
            raise refuse("a threshold that is no number")
        if (threshold.goal, threshold.alpha, threshold.delta) != (c.goal, c.alpha, c.delta):
            raise refuse("a threshold with a promise other than the certificate's")
    if not (1 <= c.n_units <= c.n <= c.data_n and 0 <= c.n_wrong <= c.n and 0 <= c.not_measured <= c.n):
        raise refuse(f"{c.n} answers about {c.n_units} units, {c.n_wrong} wrong, of {c.data_n} in all")
    if not c.n_units <= c.data_units <= c.data_n:
        raise refuse(f"{c.data_units} units of {c.data_n} answers")
    if c.data_sha256 and not _SHA256.fullmatch(c.data_sha256):
        raise refuse("a data hash that is no SHA-256")
    try:
        zone = datetime.fromisoformat(c.created_at).utcoffset()
    except ValueError:
        zone = None
    if zone is None:
        raise refuse("a date that is not in the form of RFC 3339")
