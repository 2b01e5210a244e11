"""Who asks: the tenant behind a request and what it may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from starlette.requests import Request

from cert.services.common.errors import ForbiddenError, UnauthorizedError

__all__ = ["ANONYMOUS", "SCOPES", "Principal", "Scope", "require"]

Scope: TypeAlias = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
# What a scope may do beside its own.
_IMPLIED: dict[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset(SCOPES),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        tenant: whose analyses, jobs and caches these are; nobody else sees them.
        key_id: public name of the key, ``None`` without one.
        scopes: what it may do: ``write`` includes ``read``, ``admin`` both.
    """

    tenant: str
    key_id: str | None
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        """Say whether it has a scope, or one that includes it."""
        return any(scope in _IMPLIED.get(own, ()) for own in self.scopes)


ANONYMOUS = Principal("anonymous", None, frozenset(SCOPES))


def require(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """Return the dependency of a route that needs a scope: it gives the `Principal`.

    Raises:
        UnauthorizedError: (401) nobody has shown a valid key.
        ForbiddenError: (403) the key does not have the scope.
    """

    async def principal(request: Request) -> Principal:  # asynchronous, since any other takes a thread
        found: Principal | None = request.scope.get("cert.principal")
        if found is None:
            raise UnauthorizedError("an API key is needed", hint="Authorization: Bearer cert_…")
        if not found.may(scope):
            raise ForbiddenError(f"this key has no '{scope}' scope")
        return found

    return principal
