"""Three questions of health: does the process live, should requests come here, and what is wrong."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from cert.core.health import HealthRegistry

__all__ = ["health_router"]


def health_router(health: HealthRegistry) -> APIRouter:
    """Return the routes; they need no key, and say nothing of requests."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", operation_id="health_live", summary="Whether the process answers")
    async def live() -> dict[str, Any]:
        return health.liveness()

    @router.get(
        "/health/ready",
        operation_id="health_ready",
        summary="Whether requests should come here",
        responses={503: {"description": "they should not"}},
    )
    async def ready() -> JSONResponse:
        report = await health.check_async()
        content = {"schema_version": 1, "status": report.status, "ready": report.ready}
        return JSONResponse(content, 200 if report.ready else 503)

    @router.get(
        "/health",
        operation_id="health",
        summary="Every check, together",
        responses={503: {"description": "not fit for work"}},
    )
    async def all_checks() -> JSONResponse:
        report = await health.check_async()
        return JSONResponse(report.to_dict(), 200 if report.ready else 503)

    return router
