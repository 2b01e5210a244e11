"""Texts, sealed: what lies in a database can be read with the operator's key alone."""

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
_ID_BYTES: Final = 8
# The first form names no key: it is of the time when there was one alone.
_WITHOUT_ID: Final = b"\x01"
_WITH_ID: Final = b"\x02"


class Cipher:
    """AES-256-GCM over compressed text, bound to the place where it is kept.

    A sealed text that is moved to another row, tenant or column does not open (NIST SP 800-38D: the place is
    additional authenticated data). Nonces are random, which is safe for 2³² texts under one key. Each text
    names the key that it was sealed with, so that keys can be replaced one by one.

    Args:
        *keys: 32 bytes each; the first seals, all of them open.
        setting: where the operator gives them, for what errors say.

    Attributes:
        key_ids: tell keys apart and say nothing of them, in the order of the keys.
        header: the beginning of whatever is sealed now.

    Raises:
        ConfigurationError: no key, one of another size, or one twice.
        DependencyMissingError: the package cryptography is not installed.
    """

    def __init__(self, *keys: bytes, setting: str = "CERT_JOBS_KEY") -> None:
        sizes = {len(key) for key in keys}
        if sizes != {32} or len(set(keys)) < len(keys):
            raise ConfigurationError(f"{setting} has keys of 32 bytes, each of them once")
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise DependencyMissingError(
                "texts are kept encrypted, which needs the package cryptography",
                hint="pip install 'cert-framework[services]'",
            ) from error
        self.setting = setting
        self.key_ids = tuple(_id(key).hex() for key in keys)
        self.header = _WITH_ID + _id(keys[0])
        self._aes = {_id(key): AESGCM(key) for key in keys}
        self._macs = tuple(hmac.digest(key, b"cert jobs: names", "sha256") for key in keys)

    @classmethod
    def of_text(cls, keys: str | None, setting: str = "CERT_JOBS_KEY") -> Cipher:
        """Return the cipher of keys in base64, with commas between; without one, that of nobody else's key.

        Raises:
            ConfigurationError: they are no such keys.
        """
        if keys is None:
            return cls(secrets.token_bytes(32), setting=setting)
        try:
            given = [base64.b64decode(key.strip(), validate=True) for key in keys.split(",")]
        except ValueError as error:
            raise ConfigurationError(f"{setting} has keys in base64, with commas between") from error
        return cls(*given, setting=setting)

    def seal(self, text: bytes, place: str) -> bytes:
        """Return a text as it is kept at a place."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        aes = self._aes[self.header[1:]]
        return self.header + nonce + aes.encrypt(nonce, zlib.compress(text, 6), place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Return the text that was sealed for a place.

        Raises:
            StoreUnusableError: it was sealed with another key or for another place, or was changed.
        """
        form, rest = sealed[:1], sealed[1:]
        if form == _WITHOUT_ID:
            candidates = list(self._aes.values())
        elif form == _WITH_ID:
            candidates = [aes] if (aes := self._aes.get(rest[:_ID_BYTES])) is not None else []
            rest = rest[_ID_BYTES:]
        else:
            candidates = []
        for aes in candidates:
            text = _opened(aes, rest, place)
            if text is not None:
                return text
        raise StoreUnusableError(
            "a text does not open",
            hint=f"{self.setting} has to have the key that it was written with.",
            context={"reason": "sealed"},
        )

    def name(self, *parts: str) -> str:
        """Return what stands for texts that are only compared: 64 hexadecimal digits."""
        return self.names(*parts)[0]

    def names(self, *parts: str) -> tuple[str, ...]:
        """Return the same under every key, the present one first."""
        told = b"".join(len(part.encode()).to_bytes(8) + part.encode() for part in parts)
        return tuple(hmac.new(mac, told, hashlib.sha256).hexdigest() for mac in self._macs)


def _id(key: bytes) -> bytes:
    return hmac.digest(key, b"cert jobs: id of the key", "sha256")[:_ID_BYTES]


def _opened(aes: object, rest: bytes, place: str) -> bytes | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    assert isinstance(aes, AESGCM)
    try:
        return zlib.decompress(aes.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], place.encode()))
    except (InvalidTag, ValueError, zlib.error):
        return None
