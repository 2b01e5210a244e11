"""Texts of jobs, sealed: what lies in the database can be read with the operator's key alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import zlib
from typing import Final

from cert.core.errors import ConfigurationError, DependencyMissingError, StoreUnusableError

__all__ = ["Cipher"]

_NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"


class Cipher:
    """AES-256-GCM over compressed text, bound to the place where it is kept.

    A sealed text that is moved to another job, tenant or column does not open (NIST SP 800-38D: the place is
    additional authenticated data). Nonces are random, which is safe for 2³² texts under one key.

    Args:
        key: 32 bytes.

    Attributes:
        key_id: tells keys apart and says nothing of them.

    Raises:
        ConfigurationError: the key has another size.
        DependencyMissingError: the package cryptography is not installed.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ConfigurationError(f"a key of jobs has 32 bytes, not {len(key)}")
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise DependencyMissingError(
                "jobs are kept encrypted, which needs the package cryptography",
                hint="pip install 'cert-framework[services]'",
            ) from error
        self._aes = AESGCM(key)
        self._mac = hmac.digest(key, b"cert jobs: names", "sha256")
        self.key_id = hmac.digest(key, b"cert jobs: id of the key", "sha256").hex()[:16]

    @classmethod
    def of_text(cls, key: str | None) -> Cipher:
        """Return the cipher of a key in base64; without one, that of a key which nobody else has."""
        return cls(secrets.token_bytes(32) if key is None else base64.b64decode(key))

    def seal(self, text: bytes, place: str) -> bytes:
        """Return a text as it is kept at a place."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._aes.encrypt(nonce, zlib.compress(text, 6), place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Return the text that was sealed for a place.

        Raises:
            StoreUnusableError: it was sealed with another key or for another place, or was changed.
        """
        from cryptography.exceptions import InvalidTag

        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _VERSION:
                raise ValueError("of another version")
            return zlib.decompress(self._aes.decrypt(nonce, rest, place.encode()))
        except (InvalidTag, ValueError, zlib.error) as error:
            raise StoreUnusableError(
                "a text of a job does not open",
                hint="CERT_JOBS_KEY has to be the key that it was written with.",
                context={"reason": "sealed"},
            ) from error

    def name(self, *parts: str) -> str:
        """Return what stands for texts that are only compared: 64 hexadecimal digits."""
        told = b"".join(len(part.encode()).to_bytes(8) + part.encode() for part in parts)
        return hmac.new(self._mac, told, hashlib.sha256).hexdigest()
