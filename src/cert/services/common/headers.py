"""Headers that make a browser careful, on every answer."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CONTENT_SECURITY_POLICY", "SecurityHeaders"]

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


class SecurityHeaders:
    """Adds them. No CORS header is ever sent, so that no other origin reads an answer.

    A route that sends a policy of its own, such as a self-contained report, keeps it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with them."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                wanted = _ALWAYS if scope["path"].startswith("/ui/assets/") else _NOT_STORED
                if not any(name == b"content-type" and value.startswith(_DATA) for name, value in headers):
                    wanted = (*wanted, *_OF_PAGES)
                if scope.get("scheme") == "https":
                    wanted = (*wanted, _STRICT)
                headers += [pair for pair in wanted if pair[0] not in present]
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, careful)
