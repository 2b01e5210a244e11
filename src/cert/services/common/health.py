"""Three questions of health: does the process live, should requests come here, and what is wrong."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse

from cert.core.health import HealthRegistry, Status

__all__ = ["Alive", "CheckState", "HealthState", "Readiness", "health_router"]


def _example(**members: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [members]})


class Alive(BaseModel):
    """The process answers."""

    model_config = _example(schema_version=1, status="alive", uptime_seconds=12.5)

    schema_version: int
    status: str
    uptime_seconds: float


class Readiness(BaseModel):
    """Whether requests should come here."""

    model_config = _example(schema_version=1, status="healthy", ready=True)

    schema_version: int
    status: Status
    ready: bool


class CheckState(BaseModel):
    """What one check found. It names no host, path or model of the operator."""

    status: Status
    critical: bool
    code: str | None
    seconds: float


class HealthState(BaseModel):
    """Every check; ``at`` is seconds since 1970, UTC."""

    model_config = _example(
        schema_version=1,
        status="healthy",
        ready=True,
        at=1796000000.0,
        checks={"models": {"status": "healthy", "critical": True, "code": None, "seconds": 0.001}},
    )

    schema_version: int
    status: Status
    ready: bool
    at: float
    checks: dict[str, CheckState]


def health_router(health: HealthRegistry) -> APIRouter:
    """Return the routes; they need no key, and say nothing of requests or of what the service works with."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", operation_id="health_live", summary="Whether the process answers")
    async def live() -> Alive:
        return Alive(**health.liveness())

    @router.get(
        "/health/ready",
        operation_id="health_ready",
        summary="Whether requests should come here",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "they should not"}},
    )
    async def ready() -> JSONResponse:
        report = await health.check_async()
        state = Readiness(schema_version=1, status=report.status, ready=report.ready)
        return JSONResponse(state.model_dump(), 200 if report.ready else 503)

    @router.get(
        "/health",
        operation_id="health",
        summary="Every check, together",
        response_model=HealthState,
        responses={503: {"model": HealthState, "description": "not fit for work"}},
    )
    async def all_checks() -> JSONResponse:
        report = await health.check_async()
        # Details of a check may quote an error, with a host or a path in it; here everybody reads.
        state = HealthState.model_validate(report.to_dict())
        return JSONResponse(state.model_dump(), 200 if report.ready else 503)

    return router
