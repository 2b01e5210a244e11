"""What every page has: its frame, who looks at it, where one signs in, what stands in place of an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from decimal import Decimal
from functools import cache
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.routing import APIRoute
from jinja2 import ChoiceLoader, Environment, PackageLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cert.reporting.page import environment
from cert.services.common.app_state import Base
from cert.services.common.errors import ForbiddenError, NotFoundError, UnauthorizedError
from cert.services.common.principal import Principal
from cert.services.page.bundle import MEDIA_TYPES, address, contents, version

__all__ = ["Kind", "PageRoute", "common_router", "pages", "shown"]

Kind: TypeAlias = Literal["hamiltonian", "coordination"]

_SIGN_IN: Final = "/ui/sign-in"
_KIND: Final = "cert.page"
# Only addresses of the page itself are gone to after a sign-in.
_WITHIN: Final = re.compile(r"/ui(?:/[A-Za-z0-9_-]{1,80}){0,4}")
_PAGES: Final[dict[Kind, tuple[tuple[str, str], ...]]] = {
    "hamiltonian": (
        ("/ui", "Watch"),
        ("/ui/analyses", "Analyses"),
        ("/ui/certificates", "Certificates"),
        ("/ui/health", "Health"),
    ),
    "coordination": (
        ("/ui", "Measurements"),
        ("/ui/costs", "Costs"),
        ("/ui/drift", "Drift"),
        ("/ui/health", "Health"),
    ),
}
_NAMES: Final[dict[Kind, str]] = {"hamiltonian": "Hamiltonian", "coordination": "Coordination"}


class PageRoute(APIRoute):
    """A route whose errors are pages: whoever is not signed in is led to where one signs in."""

    kind: Kind

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def as_page(request: Request) -> Response:
            request.scope[_KIND] = self.kind
            try:
                return await answer(request)
            except UnauthorizedError:
                wanted = request.url.path
                after = f"?next={quote(wanted)}" if _WITHIN.fullmatch(wanted) and wanted != "/ui" else ""
                return RedirectResponse(_SIGN_IN + after, 303)
            except (ForbiddenError, NotFoundError) as error:
                status = 404 if isinstance(error, NotFoundError) else 403
                return shown(request, "trouble.html.j2", status=status, error=error)

        return as_page


class _HamiltonianRoute(PageRoute):
    kind = "hamiltonian"


class _CoordinationRoute(PageRoute):
    kind = "coordination"


def pages(kind: Kind) -> APIRouter:
    """Return a router for pages, which are no part of the API and of its document."""
    of = _HamiltonianRoute if kind == "hamiltonian" else _CoordinationRoute
    return APIRouter(prefix="/ui", route_class=of, include_in_schema=False)


def common_router(kind: Kind) -> APIRouter:
    """Return the routes that the page of every service has: files, sign-in and health."""
    router = pages(kind)

    @router.get("/assets/{of}/{name}")
    async def asset_of(of: str, name: str) -> Response:
        content = contents().get(name)
        if content is None:
            raise NotFoundError("there is no such file")
        # An address of another release, while replicas are exchanged: served, and not kept.
        kept = "public, max-age=31536000, immutable" if of == version() else "no-store"
        return Response(
            content, media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": kept}
        )

    @router.get("/sign-in")
    async def sign_in(request: Request, next: str = "/ui") -> Response:
        after = next if _WITHIN.fullmatch(next) else "/ui"
        if request.scope.get("cert.principal") is not None:
            return RedirectResponse(after, 303)
        return shown(request, "sign-in.html.j2", after=after)

    @router.get("/health")
    async def health(request: Request) -> Response:
        _known(request)
        report = await _base(request).health.check_async()
        return shown(request, "health.html.j2", report=report)

    return router


def shown(request: Request, template: str, *, status: int = 200, **view: Any) -> Response:
    """Render a page.

    Args:
        request: that it answers.
        template: its name.
        status: of the answer.
        view: what the template shows, beside what every page has.
    """
    base, principal = _base(request), _principal(request)
    session = request.scope.get("cert.session")
    kind: Kind = request.scope[_KIND]
    text = (
        _templates()
        .get_template(template)
        .render(
            kind=kind,
            service=_NAMES[kind],
            pages=_PAGES[kind],
            here=request.url.path,
            csrf="" if session is None else session.csrf,
            signed_in=session is not None,
            anonymous=base.policy.anonymous,
            access=base.policy.describe(),
            principal=principal,
            may_write=principal is not None and principal.may("write"),
            **view,
        )
    )
    return HTMLResponse(text, status)


def _known(request: Request) -> Principal:
    principal = _principal(request)
    if principal is None:
        raise UnauthorizedError("an API key is needed")
    return principal


def _base(request: Request) -> Base:
    base: Base = request.app.state.base
    return base


def _principal(request: Request) -> Principal | None:
    found: Principal | None = request.scope.get("cert.principal")
    return found


@cache
def _templates() -> Environment:
    made = environment("cert.services.page")
    packages = ("cert.services.page", "cert.trajectory.report", "cert.coordination.report", "cert.reporting")
    made.loader = ChoiceLoader([PackageLoader(name, "assets") for name in packages])
    made.globals["address"] = address
    made.filters["dollars"] = _dollars
    return made


def _dollars(exact: str) -> str:
    """Write an amount with as many digits as say something."""
    amount = Decimal(exact)
    return f"${amount:,.2f}" if amount == 0 or amount >= 1 else f"${amount:,.4f}"
