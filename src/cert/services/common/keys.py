"""API keys: made once, shown once, kept as hashes with a tenant, scopes and an end."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cert.core.errors import ConfigurationError, OutputError
from cert.services.common.principal import SCOPES, Principal, Scope

__all__ = ["ApiKey", "KeyFile", "Keys", "new_key"]

PREFIX: Final = "cert_"
SCHEMA_VERSION: Final = 1
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY: Final = re.compile(r"cert_[A-Za-z0-9_-]{43}")
_FIELDS: Final = frozenset({"id", "sha256", "tenant", "scopes", "created_at", "expires_at"})


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key. It has 256 random bits, so that a plain hash of it cannot be guessed back.

    Attributes:
        id: its public name.
        sha256: of the key, in hexadecimal digits.
        tenant: whose key it is.
        scopes: what it may do.
        created_at, expires_at: UTC, RFC 3339; ``None`` never ends.
    """

    id: str
    sha256: str
    tenant: str
    scopes: tuple[Scope, ...]
    created_at: str
    expires_at: str | None = None

    def expired(self, now: datetime) -> bool:
        """Say whether its time is over."""
        return self.expires_at is not None and datetime.fromisoformat(self.expires_at) <= now

    @property
    def principal(self) -> Principal:
        """Who shows it."""
        return Principal(self.tenant, self.id, frozenset(self.scopes))


def new_key(
    tenant: str, scopes: tuple[Scope, ...] = ("read", "write"), expires_at: datetime | None = None
) -> tuple[str, ApiKey]:
    """Make a key: the secret, which is shown once, and what is kept of it.

    Raises:
        ConfigurationError: a tenant's name or a scope that cannot be.
    """
    if not _TENANT.fullmatch(tenant):
        raise ConfigurationError(
            f"{tenant!r} is no name of a tenant", hint="small letters, digits, dots and dashes, at most 64"
        )
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ConfigurationError(f"scopes are some of {', '.join(SCOPES)}, not {', '.join(scopes) or 'none'}")
    secret = PREFIX + secrets.token_urlsafe(32)
    ends = None if expires_at is None else expires_at.astimezone(UTC).isoformat(timespec="seconds")
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return secret, ApiKey(f"k_{secrets.token_hex(4)}", _hash(secret), tenant, scopes, made, ends)


class KeyFile:
    """The file of keys. Written whole or not at all, readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[ApiKey, ...]:
        """Return the keys; none where there is no file.

        Raises:
            ConfigurationError: the file is not one of keys.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the keys in '{self.path}' cannot be read: {error}") from error
        return _parse(text, self.path)

    def write(self, keys: tuple[ApiKey, ...]) -> None:
        """Replace the keys.

        Raises:
            OutputError: the file cannot be written.
        """
        data = {"schema_version": SCHEMA_VERSION, "keys": [asdict(key) for key in keys]}
        partial = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.part")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(json.dumps(data, indent=2) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, self.path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"'{self.path}' cannot be written: {error.strerror or error}") from error


class Keys:
    """The keys in force. A file that changed is read again, so that keys change without a restart."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[ApiKey, ...] = ()
        self.reload()

    def __len__(self) -> int:
        return len(self._keys)

    def reload(self) -> None:
        """Read the file if it changed; one that became unreadable leaves the keys as they were.

        Raises:
            ConfigurationError: it is not a file of keys.
        """
        try:
            found = self._file.path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            stamp = None
        if stamp is None or stamp != self._stamp:
            keys = self._file.read()
            self._keys, self._stamp = keys, stamp

    def in_force(self, key_id: str | None) -> bool:
        """Say whether a key, by its public name, may still be used."""
        now = datetime.now(UTC)
        return any(key.id == key_id and not key.expired(now) for key in self._current())

    def principal(self, secret: str) -> Principal | None:
        """Return who shows a key, or ``None``. Every key in force is compared, in constant time."""
        if not _KEY.fullmatch(secret):
            return None
        digest, now = _hash(secret), datetime.now(UTC)
        found: ApiKey | None = None
        for key in self._current():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return None if found is None or found.expired(now) else found.principal

    def _current(self) -> tuple[ApiKey, ...]:
        with self._lock:
            with contextlib.suppress(ConfigurationError):  # half a file: the keys in force stay in force
                self.reload()
            return self._keys


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _parse(text: str, path: Path) -> tuple[ApiKey, ...]:
    try:
        data: Any = json.loads(text)
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {data['schema_version']!r}, expected {SCHEMA_VERSION}")
        keys = tuple(_key(entry) for entry in data["keys"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            f"'{path}' is no file of keys: {error}", hint="`cert keys new` writes one"
        ) from error
    if len({key.id for key in keys}) != len(keys):
        raise ConfigurationError(f"'{path}' has two keys of one id")
    return keys


def _key(entry: dict[str, Any]) -> ApiKey:
    if set(entry) != _FIELDS:
        raise ValueError(f"a key has the fields {', '.join(sorted(_FIELDS))}")
    key = ApiKey(**{**entry, "scopes": tuple(entry["scopes"])})
    if not (isinstance(entry["id"], str) and isinstance(entry["created_at"], str)):
        raise ValueError("the id and the beginning of a key are text")
    if not _TENANT.fullmatch(key.tenant) or not re.fullmatch(r"[0-9a-f]{64}", key.sha256):
        raise ValueError(f"the key {key.id!r} has no tenant or no SHA-256")
    if not key.scopes or not set(key.scopes) <= set(SCOPES):
        raise ValueError(f"the key {key.id!r} has scopes that there are not")
    if key.expires_at is not None and datetime.fromisoformat(key.expires_at).tzinfo is None:
        raise ValueError(f"the end of the key {key.id!r} has no time zone")
    return key
