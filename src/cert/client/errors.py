"""What can go wrong with a service.

::

    ClientError
    ├── ConnectionFailedError    it was not reached, or the connection broke
    ├── ProtocolError            what came is not what a service of this version says
    └── ProblemError             it says no (problem+json, RFC 9457)
        └── UnauthorizedError    the key is missing, wrong, ended, or may not do this
"""

from __future__ import annotations

from typing import Any

__all__ = ["ClientError", "ConnectionFailedError", "ProblemError", "ProtocolError", "UnauthorizedError"]


class ClientError(Exception):
    """Base of the tree. No error holds the key, a prompt or an answer."""


class ConnectionFailedError(ClientError):
    """The service was not reached, or the connection broke before the answer was whole."""


class ProtocolError(ClientError):
    """What came is not what a service of this version says."""


class ProblemError(ClientError):
    """The service says no.

    Attributes:
        status: of HTTP.
        code: stable name to decide by.
        detail, hint: for people.
        retry_after: seconds, where the service named them.
        correlation_id: under which the service's log knows the request.
        members: the whole problem.
    """

    def __init__(self, status: int, members: dict[str, Any]) -> None:
        self.status = status
        self.code = str(members.get("code", f"http_{status}"))
        self.detail = str(members.get("detail", "the service gave no reason"))
        self.hint: str | None = members.get("hint")
        self.retry_after: float | None = members.get("retry_after")
        self.correlation_id: str | None = members.get("correlation_id")
        self.members = members
        super().__init__(f"{status} {self.code}: {self.detail}" + (f" ({self.hint})" if self.hint else ""))


class UnauthorizedError(ProblemError):
    """The key is missing, wrong, ended, or may not do this."""
