"""Who is let in: keys, sessions of the page, and whom a service without keys answers."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from cert.core.errors import ConfigurationError
from cert.services.common.errors import problem_bytes
from cert.services.common.head import headers_of
from cert.services.common.keys import Keys
from cert.services.common.principal import ANONYMOUS, Principal
from cert.services.common.sessions import COOKIE, CSRF_HEADER, Session, Sessions, cookie_of

__all__ = ["AccessPolicy", "AuthenticationMiddleware", "is_loopback"]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Always open: probes have no key. The page of sign-in and what it is drawn with hold nothing of anybody.
SIGN_IN: Final = "/ui/session"
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

    def __init__(
        self, host: str, keys: Keys | None, allow_anonymous: bool = False, *, await_keys: bool = False
    ) -> None:
        if keys is not None and len(keys) == 0 and not allow_anonymous and not await_keys:
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
        if self.keys is not None and len(self.keys) == 0:
            return "NO KEY IS THERE YET: nobody is answered until the file of CERT_API_KEYS_FILE has one"
        return "an API key is needed"

    def of_headers(self, headers: Mapping[str, str]) -> Principal | None:
        """Return who shows a key in ``Authorization: Bearer`` or ``X-API-Key``; ``None``: nobody.

        Where there are keys, a wrong one is nobody's even if all may ask: its owner would not notice that
        he works as somebody else.
        """
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
        if not secret:
            return ANONYMOUS if self.anonymous else None
        return ANONYMOUS if self.keys is None else self.keys.principal(secret)

    def still(self, principal: Principal) -> bool:
        """Say whether a principal of a while ago is still one: its key is neither revoked nor over."""
        if principal.key_id is None or self.keys is None:
            return self.anonymous
        return self.keys.in_force(principal.key_id)


class AuthenticationMiddleware:
    """Puts the `Principal` into ``scope["cert.principal"]``; routes ask for it by `require`.

    A cookie of the page counts as the key that it was exchanged for. What it does beyond reading needs the
    session's CSRF token in a header, which no other site can send. Without keys there is no cookie either:
    then whatever a browser sends for a page of another site may change nothing.
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
        headers = headers_of(scope)
        refusal = self._admit(scope, headers)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        fields, body = problem_bytes(*refusal)
        await send({"type": "http.response.start", "status": refusal[0], "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def _admit(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, str] | None:
        """Put the principal into the scope, or return why the request is refused."""
        if self._policy.local_only and _host_of(headers.get("host", "")) not in _LOCAL_NAMES:
            return 421, "misdirected", "without keys this service answers to the names of this machine alone"
        path, changes = scope["path"], scope["method"] not in _SAFE
        principal = self._policy.of_headers(headers)
        if "authorization" not in headers and "x-api-key" not in headers:
            session = None if path == SIGN_IN and scope["method"] == "POST" else self._session(headers)
            if session is not None:
                principal, scope["cert.session"] = session.principal, session
            if changes and _is_foreign(headers):
                return 403, "foreign", "a page of another site may not do this"
            token = headers.get(CSRF_HEADER, "").encode()
            if session is not None and changes and not hmac.compare_digest(token, session.csrf.encode()):
                return 403, "csrf", f"a request with the cookie {COOKIE} needs its token in {CSRF_HEADER}"
        scope["cert.principal"] = principal
        if principal is not None or path == SIGN_IN or path.startswith(_OPEN):
            return None
        if path.startswith("/ui") and not changes and "text/html" in headers.get("accept", ""):
            return None  # the page itself leads to its sign-in
        return 401, "unauthorized", "an API key is needed: Authorization: Bearer cert_…"

    def _session(self, headers: Mapping[str, str]) -> Session | None:
        cookie = cookie_of(headers.get("cookie", ""))
        session = self._sessions.find(cookie)
        if session is not None and not self._policy.still(session.principal):
            self._sessions.end(cookie)
            return None
        return session


def _is_foreign(headers: Mapping[str, str]) -> bool:
    """Say whether a browser sends this for a page of another site. Programs send neither header."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


def _host_of(value: str) -> str:
    host, bracket, _ = value.partition("]")
    return (host + bracket if bracket else value.partition(":")[0]).lower()
