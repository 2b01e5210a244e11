"""Who is let in: keys, sessions of the page, and whom a service without keys answers."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from cert.core.errors import ConfigurationError
from cert.services.common.errors import problem_bytes
from cert.services.common.keys import Keys
from cert.services.common.principal import ANONYMOUS, Principal
from cert.services.common.sessions import COOKIE, CSRF_HEADER, Sessions, cookie_of

__all__ = ["AccessPolicy", "AuthenticationMiddleware", "is_loopback"]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Always open: probes have no key. The page of sign-in and what it is drawn with hold nothing of anybody.
_OPEN: Final = ("/health", "/ui/sign-in", "/ui/assets/")
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AccessPolicy:
    """How requests are let in.

    Attributes:
        keys: those in force, or ``None`` for a service without keys.
        local_only: without keys and not open to all: it listens on loopback and answers loopback's names
            alone, so that a page elsewhere cannot reach it through a name of its own (DNS rebinding).

    Raises:
        ConfigurationError: no keys, an address that others reach, and nobody said that all may ask.
    """

    def __init__(self, host: str, keys: Keys | None, allow_anonymous: bool = False) -> None:
        if keys is not None and len(keys) == 0 and not allow_anonymous:
            raise ConfigurationError(
                "there is no key in the file of CERT_API_KEYS_FILE, so that nobody could ask",
                hint="cert keys new --tenant NAME",
            )
        self.keys = keys
        self.anonymous = keys is None or allow_anonymous
        self.local_only = keys is None and not allow_anonymous
        if self.local_only and not is_loopback(host):
            raise ConfigurationError(
                f"CERT_HOST is {host}, which others reach, and no keys are configured",
                hint="CERT_API_KEYS_FILE with keys of `cert keys new`, or CERT_ALLOW_ANONYMOUS=true",
                context={"host": host},
            )

    def describe(self) -> str:
        """One line for the log and the terminal."""
        if self.local_only:
            return (
                "no keys are configured: this machine alone may ask, and whoever is on it may do everything"
            )
        if self.anonymous:
            return "ANONYMOUS: everybody who reaches this address may do everything"
        return "an API key is needed"

    def of_headers(self, headers: Mapping[str, str]) -> Principal | None:
        """Return who shows a key in ``Authorization: Bearer`` or ``X-API-Key``; ``None``: nobody."""
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
        if not secret:
            return ANONYMOUS if self.anonymous else None
        if self.keys is None:
            return ANONYMOUS
        return self.keys.principal(secret) or (ANONYMOUS if self.anonymous else None)


class AuthenticationMiddleware:
    """Puts the `Principal` into ``scope["cert.principal"]``; routes ask for it by `require`.

    A cookie of the page counts as the key that it was exchanged for. What it does beyond reading needs the
    session's CSRF token in a header, which no other site can send.
    """

    def __init__(self, app: ASGIApp, policy: AccessPolicy, sessions: Sessions) -> None:
        self._app = app
        self._policy = policy
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who asks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._admit(scope, headers)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        fields, body = problem_bytes(*refusal)
        await send({"type": "http.response.start", "status": refusal[0], "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def _admit(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        if self._policy.local_only and _host_of(headers.get("host", "")) not in _LOCAL_NAMES:
            return 421, "misdirected", "without keys this service answers to the names of this machine alone"
        principal = self._policy.of_headers(headers)
        shown = "authorization" in headers or "x-api-key" in headers
        if not shown and (session := self._sessions.find(cookie_of(headers.get("cookie", "")))) is not None:
            principal = session.principal
            scope["cert.session"] = session
            token = headers.get(CSRF_HEADER, "")
            if scope["method"] not in _SAFE and not hmac.compare_digest(
                token.encode(), session.csrf.encode()
            ):
                return 403, "csrf", f"a request with the cookie {COOKIE} needs its token in {CSRF_HEADER}"
        scope["cert.principal"] = principal
        if principal is None and not scope["path"].startswith(_OPEN):
            if scope["path"].startswith("/ui") and scope["method"] == "GET":
                return None  # the page itself leads to its sign-in
            return 401, "unauthorized", "an API key is needed: Authorization: Bearer cert_…"
        return None


def _host_of(value: str) -> str:
    host, bracket, _ = value.partition("]")
    return (host + bracket if bracket else value.partition(":")[0]).lower()
