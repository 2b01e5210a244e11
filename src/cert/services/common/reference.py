"""``/docs``: the interface in words, from the OpenAPI document, without a script and without the network."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from cert.services.common.principal import Principal, require

__all__ = ["reference_router"]

# Markup escapes what it is formatted with: descriptions are ours, names of models in them are not.
_PAGE = Markup(
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark"><title>{title}</title></head>\n'
    '<body><main><h1>{title}</h1>\n<p>{description}</p>\n<p>The whole, for programs: <a href="/openapi.json">'
    "openapi.json</a></p>\n{sections}</main></body></html>\n"
)
_SECTION = Markup("<h2>{name}</h2>\n<dl>\n{operations}</dl>\n")
_OPERATION = Markup(
    "<dt><code>{method} {path}</code></dt>\n<dd><strong>{summary}</strong> {description}</dd>\n"
)


def reference_router() -> APIRouter:
    """Return the route. It asks for a key as everything else does."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs", response_class=HTMLResponse)
    def docs(request: Request, _principal: Annotated[Principal, Depends(require("read"))]) -> HTMLResponse:
        return HTMLResponse(_page(request.app.openapi()))

    return router


def _page(document: dict[str, Any]) -> str:
    sections: dict[str, list[Markup]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            shown = _OPERATION.format(
                method=method.upper(),
                path=path,
                summary=operation.get("summary", ""),
                description=operation.get("description", ""),
            )
            sections.setdefault(next(iter(operation.get("tags", ())), "other"), []).append(shown)
    told = Markup("").join(
        _SECTION.format(name=name, operations=Markup("").join(shown)) for name, shown in sections.items()
    )
    info = document["info"]
    return str(_PAGE.format(title=info["title"], description=info.get("description", ""), sections=told))
