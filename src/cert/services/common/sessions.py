"""Sign-ins to the page: a key is exchanged for a cookie that no script can read."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Final

from cert.services.common.principal import Principal

__all__ = ["COOKIE", "CSRF_HEADER", "Session", "Sessions", "cookie_header", "cookie_of"]

COOKIE: Final = "cert_session"
CSRF_HEADER: Final = "x-csrf-token"
_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in.

    Attributes:
        principal: that of the key that it was made with.
        csrf: what requests that change something repeat in a header.
        ends: on the clock of the sessions.
    """

    principal: Principal
    csrf: str
    ends: float


class Sessions:
    """The sign-ins of this process; its end ends them. The cookie's value is kept as a hash alone."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, principal: Principal) -> tuple[str, Session]:
        """Begin one: the cookie's value and the session. Beyond ten thousand, the oldest ends."""
        value = secrets.token_urlsafe(32)
        session = Session(principal, secrets.token_urlsafe(24), self._clock() + self.seconds)
        with self._lock:
            self._sessions[_hash(value)] = session
            while len(self._sessions) > _MOST:
                self._sessions.popitem(last=False)
        return value, session

    def find(self, value: str | None) -> Session | None:
        """Return the session of a cookie, if it has not ended."""
        if not value:
            return None
        with self._lock:
            session = self._sessions.get(_hash(value))
            if session is not None and session.ends <= self._clock():
                del self._sessions[_hash(value)]
                return None
        return session

    def end(self, value: str | None) -> None:
        """Sign out."""
        with self._lock:
            self._sessions.pop(_hash(value or ""), None)


def cookie_of(header: str) -> str | None:
    """Return our cookie's value of a ``Cookie`` header."""
    cookie = SimpleCookie()
    try:
        cookie.load(header)
    except CookieError:
        return None
    return cookie[COOKIE].value if COOKIE in cookie else None


def cookie_header(value: str, seconds: float, *, secure: bool) -> str:
    """Return the ``Set-Cookie`` of a sign-in; an empty value and 0 seconds sign out."""
    parts = [f"{COOKIE}={value}", "Path=/", f"Max-Age={int(seconds)}", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*parts, "Secure"] if secure else parts)


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
