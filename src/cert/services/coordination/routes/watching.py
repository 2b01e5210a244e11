"""Models that may be asked for, drift of systems, baselines."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from cert.core.errors import CertError
from cert.services.coordination.cursors import Cursor, cursor_of, place_of
from cert.services.coordination.shown import (
    BaselineList,
    Drift,
    DriftList,
    ModelCard,
    ModelList,
    baselines_of,
    drift_of,
)
from cert.services.coordination.state import CoordinationState, Reader, State, Writer
from cert.services.coordination.wire import Acknowledgement

__all__ = ["router"]

router = APIRouter(prefix="/v1")


@router.get(
    "/models",
    operation_id="list_models",
    summary="Models that may be asked for",
    response_model=ModelList,
    tags=["models"],
)
async def list_models(state: State, principal: Reader) -> object:  # noqa: ARG001  # the key is what matters
    """The allow-list of the operator."""
    names = state.chats.names
    return ModelList(
        items=[
            ModelCard(name=name, default=name == names[0], usable=_is_usable(state, name)) for name in names
        ]
    )


@router.get(
    "/drift",
    operation_id="get_drift",
    summary="Whether systems got worse",
    response_model=DriftList,
    tags=["drift"],
)
async def get_drift(state: State, principal: Reader) -> object:
    """Of the measurements that were asked for with `watch_drift`."""
    states = await state.drift.states(principal.tenant)
    return DriftList(items=[drift_of(system, status) for system, status in states])


@router.post(
    "/drift/{drift_id}/acknowledge",
    operation_id="acknowledge_drift",
    summary="Take an alarm off: somebody has seen it",
    response_model=Drift,
    tags=["drift"],
)
async def acknowledge_drift(
    drift_id: Annotated[str, Path(min_length=1, max_length=40, examples=["d_0123456789abcdef01234567"])],
    state: State,
    principal: Writer,
    body: Acknowledgement | None = None,
) -> object:
    """Who (the id of the key) and when is kept with the series. Without an alarm nothing happens.

    The reference stays, and the promise begins anew: what is still as it was found alarms again.
    """
    seen = None if body is None else body.raised_at
    system, status = await state.drift.acknowledge(
        principal.tenant, drift_id, by=principal.key_id, raised_at=seen
    )
    return drift_of(system, status)


@router.get(
    "/baselines",
    operation_id="list_baselines",
    summary="What one agent alone reached",
    response_model=BaselineList,
    tags=["baselines"],
)
async def list_baselines(
    state: State,
    principal: Reader,
    limit: Annotated[int, Query(ge=1, le=100, description="measurements, each with its baselines")] = 20,
    cursor: Cursor = None,
) -> object:
    """Of the caller's measurements that succeeded and are kept."""
    jobs, more = await state.jobs.page(principal.tenant, limit, place_of(cursor), "succeeded")
    return BaselineList(items=[one for job in jobs for one in baselines_of(job)], next=cursor_of(more))


def _is_usable(state: CoordinationState, name: str) -> bool:
    try:
        state.chats.check(name)
    except CertError:
        return False
    return True
