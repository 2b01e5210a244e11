"""The page of both services at ``/ui``: one design, rendered here, with a little script of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fastapi import APIRouter

__all__ = ["page_router"]


def page_router(kind: Literal["hamiltonian", "coordination"]) -> APIRouter:
    """Return the routes of a service's page.

    Args:
        kind: which service the page is of; its resources are taken from ``app.state.cert``.
    """
    from fastapi import APIRouter

    from cert.services.page.frame import common_router

    if kind == "hamiltonian":
        from cert.services.page.generations import router as own
    else:
        from cert.services.page.measurements import router as own
    router = APIRouter()
    router.include_router(common_router(kind))
    router.include_router(own)
    return router
