"""Canonical bytes (RFC 8785), hashes and Ed25519 signatures (RFC 8032) of certificates; keys as PEM files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cert.core.errors import DependencyMissingError, InputError, OutputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "canonical", "check_signature", "load_private_key", "load_public_key", "make_key_pair", "public_bytes",
    "sha256_of", "signed",
]  # fmt: skip

# More than any key of this kind has.
_LARGEST_KEY = 4_096


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return the one form of JSON data that hashes and signatures are of (RFC 8785).

    Raises:
        InputError: it holds what JSON cannot say alike everywhere: a whole number of 2^53 or more, a lone
            surrogate, a number that is not finite.
        DependencyMissingError: without the package rfc8785.
    """
    try:
        import rfc8785  # optional, and `import cert.trajectory` is light
    except ImportError as error:
        raise _missing("certificates need rfc8785") from error
    try:
        return rfc8785.dumps(dict(content))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise InputError(f"the certificate has no canonical form: {error}") from error


def sha256_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(content)).hexdigest()


def signed(content: Mapping[str, Any], private_key: Ed25519PrivateKey) -> bytes:
    """Return the signature of the canonical form."""
    return private_key.sign(canonical(content))


def check_signature(
    content: Mapping[str, Any], value: bytes, inside: bytes, trusted: Ed25519PublicKey | None
) -> None:
    """Make sure that a signature is of this content.

    Args:
        content: what was signed.
        value: the signature.
        inside: the key that stands beside it.
        trusted: the key that it has to be of, ``None`` for the one beside it.

    Raises:
        InputError: it is of another key, or not of this content.
    """
    if trusted is not None and public_bytes(trusted) != inside:
        raise InputError(
            f"the certificate is signed with the key {inside.hex()[:16]}…, not with the one that is trusted",
            hint="take the certificate of whom you trust, or give the public key of whom signed it",
        )
    _, errors, ed25519 = _cryptography()
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(inside).verify(value, canonical(content))
    except (errors.InvalidSignature, ValueError) as error:
        raise InputError(
            "the signature is not of this certificate: it was damaged or edited after it was signed",
            hint="take it from its source again, or calibrate anew",
        ) from error


def make_key_pair(private: str | os.PathLike[str], public: str | os.PathLike[str]) -> Ed25519PrivateKey:
    """Make a key pair and write it as two PEM files; the private one can be read by its owner alone.

    Raises:
        OutputError: a file is there already (a key is never replaced), or cannot be written.
        DependencyMissingError: without the package cryptography.
    """
    serialization, _, ed25519 = _cryptography()
    key: Ed25519PrivateKey = ed25519.Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    shown = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if Path(public).exists():
        raise OutputError(f"'{os.fspath(public)}' is there already", hint="a key is never replaced")
    _write_new(Path(private), secret, 0o600)
    try:
        _write_new(Path(public), shown, 0o644)
    except BaseException:
        Path(private).unlink(missing_ok=True)
        raise
    return key


def load_private_key(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    """Return the private key of a PEM file (PKCS#8, without a password).

    Raises:
        InputError: the file cannot be read or holds no such key.
        DependencyMissingError: without the package cryptography.
    """
    serialization, _, ed25519 = _cryptography()
    key: Ed25519PrivateKey = _key(
        Path(path),
        lambda data: serialization.load_pem_private_key(data, None),
        ed25519.Ed25519PrivateKey,
        "private",
    )
    return key


def load_public_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    """Return the public key of a PEM file.

    Raises:
        InputError: the file cannot be read or holds no such key.
        DependencyMissingError: without the package cryptography.
    """
    serialization, _, ed25519 = _cryptography()
    key: Ed25519PublicKey = _key(
        Path(path), serialization.load_pem_public_key, ed25519.Ed25519PublicKey, "public"
    )
    return key


def public_bytes(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of the public key."""
    public: Any = key.public_key() if hasattr(key, "public_key") else key
    data: bytes = public.public_bytes_raw()
    return data


def _key(path: Path, load: Any, kind: type[Any], name: str) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_KEY + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    wrong = InputError(
        f"'{path}' holds no {name} Ed25519 key in PEM form",
        hint="a key with a password has to be loaded by yourself",
    )
    if len(data) > _LARGEST_KEY:
        raise wrong
    try:
        key = load(data)
    # What the package raises of bytes that are no key differs with what they are instead.
    except Exception as error:
        raise wrong from error
    if not isinstance(key, kind):
        raise wrong
    return key


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        # Never readable by others, not even for the moment before a chmod.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except FileExistsError as error:
        raise OutputError(f"'{path}' is there already", hint="a key is never replaced") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"'{path}' could not be written: {reason}") from error


def _cryptography() -> tuple[Any, Any, Any]:
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise _missing("signatures need cryptography") from error
    return serialization, exceptions, ed25519


def _missing(what: str) -> DependencyMissingError:
    return DependencyMissingError(what, hint="pip install 'cert-framework[calibration]'")
