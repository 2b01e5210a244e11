"""The headers of a request, decoded once for every layer that asks for them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

__all__ = ["headers_of"]

_PLACE = "cert.headers"


def headers_of(scope: Scope) -> Mapping[str, str]:
    """Return the headers by their names in lower case; of one that comes twice, the first."""
    found: dict[str, str] | None = scope.get(_PLACE)
    if found is None:
        found = {}
        for name, value in scope["headers"]:
            found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        scope[_PLACE] = found
    return found
