"""Sign-in to the page: a key for a cookie, who is signed in, sign-out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.requests import Request
from starlette.responses import Response

from cert.services.common.app_state import Base, base_of
from cert.services.common.errors import UnauthorizedError
from cert.services.common.policy import SIGN_IN, is_loopback
from cert.services.common.principal import Principal, require
from cert.services.common.sessions import cookie_header, cookie_of

__all__ = ["SessionState", "SignIn", "sign_in_router"]


class SignIn(BaseModel):
    """A key, for a cookie."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"key": "cert_0000000000000000000000000000000000000000000"}]},
    )

    key: SecretStr = Field(max_length=200, description="an API key")


class SessionState(BaseModel):
    """Who is signed in.

    Attributes:
        csrf: what requests of the page that change something send in ``X-CSRF-Token``; empty where they need
            none, since the service has no keys.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "schema_version": 1,
                    "tenant": "acme",
                    "scopes": ["read", "write"],
                    "csrf": "h0…",
                    "key_id": "k_1",
                }
            ]
        }
    )

    schema_version: int = 1
    tenant: str
    key_id: str | None
    scopes: list[str]
    csrf: str


def sign_in_router() -> APIRouter:
    """Return the routes of the page's sessions."""
    router = APIRouter(tags=["page"])

    @router.post(SIGN_IN, operation_id="sign_in", summary="Exchange a key for a cookie")
    def sign_in(
        asked: SignIn, request: Request, response: Response, base: Annotated[Base, Depends(base_of)]
    ) -> SessionState:
        keys = base.policy.keys
        principal = None if keys is None else keys.principal(asked.key.get_secret_value())
        if principal is None:
            raise UnauthorizedError("this is no key of this service")
        value, session = base.sessions.begin(principal)
        response.headers["Set-Cookie"] = cookie_header(value, base.sessions.seconds, secure=_secure(request))
        return _state(principal, session.csrf)

    @router.get(SIGN_IN, operation_id="session", summary="Who is signed in")
    def session(request: Request, principal: Annotated[Principal, Depends(require("read"))]) -> SessionState:
        found = request.scope.get("cert.session")
        return _state(principal, "" if found is None else found.csrf)

    @router.delete(SIGN_IN, operation_id="sign_out", summary="End the session", status_code=204)
    def sign_out(request: Request, base: Annotated[Base, Depends(base_of)]) -> Response:
        base.sessions.end(cookie_of(request.headers.get("cookie", "")))
        return Response(
            status_code=204, headers={"Set-Cookie": cookie_header("", 0, secure=_secure(request))}
        )

    return router


def _state(principal: Principal, csrf: str) -> SessionState:
    return SessionState(
        tenant=principal.tenant, key_id=principal.key_id, scopes=sorted(principal.scopes), csrf=csrf
    )


def _secure(request: Request) -> bool:
    """Whether the cookie is for TLS alone: always, but where the service is asked on its own machine."""
    return request.url.scheme == "https" or not is_loopback(request.url.hostname or "")
