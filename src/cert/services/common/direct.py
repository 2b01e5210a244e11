"""Routes whose work may be shorter than the way to them: they are reached past the framework's layers.

Such a route is declared to FastAPI as any other, for the OpenAPI document and for every request that is not
plain. A plain one (JSON of the right form, a principal with the scope) is answered here: FastAPI's own way
from the last middleware to the endpoint takes longer than an analysis that is in the cache
(``benchmarks/service.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cert.core.errors import CertError
from cert.services.common import principal as principals
from cert.services.common.errors import error_response
from cert.services.common.head import headers_of

__all__ = ["JSON_BODY", "Direct", "DirectMiddleware"]

JSON_BODY: Final = "cert.json"  # where the scope has the decoded body, once it was checked


@dataclass(frozen=True, slots=True)
class Direct:
    """One route.

    Attributes:
        path: as the route is declared; metrics and logs name it.
        body: the form of what is sent.
        scope: what the key must be good for.
        answer: of the body, the request and the principal.
    """

    path: str
    body: type[BaseModel]
    scope: principals.Scope
    answer: Callable[[Any, Request, principals.Principal], Awaitable[Response]]


class DirectMiddleware:
    """The innermost layer: answers plain requests of direct routes, and hands all others on.

    Args:
        app: the framework.
        routes: which ones.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[Direct]) -> None:
        self._app = app
        self._routes = {route.path: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        body = None if route is None or scope["method"] != "POST" else _plain(route, scope)
        if route is None or body is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        await receive()  # the body, which is decoded already; what comes after it is the end
        try:
            response = await route.answer(body, request, scope["cert.principal"])
        except CertError as error:
            response = error_response(request, error)
        await response(scope, receive, send)


def _plain(route: Direct, scope: Scope) -> BaseModel | None:
    principal: principals.Principal | None = scope.get("cert.principal")
    if principal is None or not principal.may(route.scope) or JSON_BODY not in scope:
        return None
    if headers_of(scope).get("content-type") != "application/json":
        return None
    try:
        return route.body.model_validate(scope[JSON_BODY])
    except ValidationError:
        return None  # the framework tells where and why
