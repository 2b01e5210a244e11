"""Headers that make a browser careful, on every answer."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

__all__ = ["CONTENT_SECURITY_POLICY", "with_care"]

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
)
# Of what a browser shows as a page of its own; data has no frame, no opener and no camera.
_OF_PAGES: Final = (
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_NOT_STORED: Final = (*_ALWAYS, (b"cache-control", b"no-store"))
_DATA: Final = (b"application/json", b"application/problem+json", b"text/event-stream")
_STRICT: Final = (b"strict-transport-security", b"max-age=31536000")


def with_care(scope: Scope, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer with those that make a browser careful.

    No CORS header is ever sent, so that no other origin reads an answer. A route that sends a policy of its
    own, such as a self-contained report, keeps it.
    """
    present = {name.lower() for name, _ in headers}
    wanted = _ALWAYS if scope["path"].startswith("/ui/assets/") else _NOT_STORED
    if not any(name == b"content-type" and value.startswith(_DATA) for name, value in headers):
        wanted = (*wanted, *_OF_PAGES)
    if scope.get("scheme") == "https":
        wanted = (*wanted, _STRICT)
    return headers + [pair for pair in wanted if pair[0] not in present]
