"""Measurements as jobs: made, listed, followed, cancelled, and what they found."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Path, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cert.services.common.drain import drain_of
from cert.services.common.sse import Event, EventStream, event_stream
from cert.services.coordination.cursors import Cursor, cursor_of, place_of
from cert.services.coordination.jobs.records import JobState
from cert.services.coordination.shown import Measurement, MeasurementPage, Report, measurement_of
from cert.services.coordination.state import CoordinationState, Reader, State, Writer
from cert.services.coordination.wire import MeasurementRequest

__all__ = ["router"]

router = APIRouter(prefix="/v1/measurements", tags=["measurements"])

_LOOK_SECONDS: Final = 0.3
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')

Identifier = Annotated[str, Path(min_length=1, max_length=40, examples=["m_0123456789abcdef01234567"])]
_EVENTS = """Server-sent events, each with an id to resume after (`Last-Event-ID`):

- `state`: `state`, and with a failure its `error`; the last one ends the stream
- `progress`: `done`, `total`, `system`, `task_id`, `spent`, `saved`

Of very many events of progress the latest are kept.
"""


@router.post(
    "",
    operation_id="create_measurement",
    summary="Measure systems of agents on tasks",
    status_code=202,
    response_model=Measurement,
    responses={202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
async def create_measurement(
    body: MeasurementRequest,
    response: Response,
    state: State,
    principal: Writer,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="the same key makes one measurement, however often"),
    ] = None,
) -> object:
    """The measurement goes on without its caller. What the same tenant has paid for before costs nothing."""
    await asyncio.to_thread(body.check)
    for name in {body.model or state.chats.names[0], body.judge, body.selector} - {None}:
        state.chats.check(str(name))
    job, made = await state.jobs.create(
        principal.tenant, body.model_dump(mode="json"), body.total, idempotency_key
    )
    if made:
        state.runner.wake()
    response.headers["Location"] = f"/v1/measurements/{job.id}"
    return measurement_of(job, state.chats.names[0])


@router.get(
    "",
    operation_id="list_measurements",
    summary="Measurements, the latest first",
    response_model=MeasurementPage,
)
async def list_measurements(
    state: State,
    principal: Reader,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
    job_state: Annotated[JobState | None, Query(alias="state")] = None,
) -> object:
    """Those of the caller's tenant alone."""
    jobs, more = await state.jobs.page(principal.tenant, limit, place_of(cursor), job_state)
    items = [measurement_of(job, state.chats.names[0]) for job in jobs]
    return MeasurementPage(items=items, next=cursor_of(more))


@router.get(
    "/{measurement_id}",
    operation_id="get_measurement",
    summary="One measurement",
    response_model=Measurement,
)
async def get_measurement(measurement_id: Identifier, state: State, principal: Reader) -> object:
    """Where it is, and in short what was found."""
    return measurement_of(await state.jobs.get(principal.tenant, measurement_id), state.chats.names[0])


@router.get(
    "/{measurement_id}/events",
    operation_id="follow_measurement",
    summary="Follow a measurement",
    description=_EVENTS,
    response_class=EventStream,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def follow_measurement(
    measurement_id: Identifier,
    request: Request,
    state: State,
    principal: Reader,
    last_event_id: Annotated[
        str | None, Header(pattern="^[0-9]{1,9}$", description="of the last event that came")
    ] = None,
) -> Response:
    """See the description of the events."""
    after = 0 if last_event_id is None else int(last_event_id)
    await state.jobs.get(principal.tenant, measurement_id)
    events = _events(state, principal.tenant, measurement_id, after)
    return event_stream(events, drain=drain_of(request.app))


@router.post(
    "/{measurement_id}/cancel",
    operation_id="cancel_measurement",
    summary="End a measurement",
    status_code=202,
    response_model=Measurement,
)
async def cancel_measurement(measurement_id: Identifier, state: State, principal: Writer) -> object:
    """No further call is paid for. What was paid for is kept, and the same request again goes on with it."""
    job = await state.jobs.cancel(principal.tenant, measurement_id)
    state.runner.cancel(job.id)
    return measurement_of(job, state.chats.names[0])


@router.delete(
    "/{measurement_id}",
    operation_id="delete_measurement",
    summary="Delete a measurement that has ended",
    status_code=204,
    response_class=Response,
)
async def delete_measurement(measurement_id: Identifier, state: State, principal: Writer) -> Response:
    """Tasks, result, report and events are deleted, and its `Idempotency-Key` is free again.

    Costs stay in the books. Paid answers stay until the retention is over, since other measurements of the
    tenant are answered from them. One that waits or is at work is not deleted: cancel it first.
    """
    await state.jobs.delete(principal.tenant, measurement_id)
    return Response(status_code=204)


@router.get(
    "/{measurement_id}/result",
    operation_id="get_measurement_result",
    summary="What was found, as JSON",
    response_model=Report,
)
async def get_measurement_result(measurement_id: Identifier, state: State, principal: Reader) -> Response:
    """The whole report, with everything that was said: untrusted text."""
    text = await state.jobs.outcome(principal.tenant, measurement_id, "result")
    return Response(text, media_type="application/json")


@router.get(
    "/{measurement_id}/report",
    operation_id="get_measurement_report",
    summary="What was found, as a page",
    response_class=HTMLResponse,
)
async def get_measurement_report(measurement_id: Identifier, state: State, principal: Reader) -> Response:
    """One file that loads nothing from elsewhere and runs nothing."""
    page = await state.jobs.outcome(principal.tenant, measurement_id, "report")
    # The page's own policy, by the hash of its style, in place of the service's, which would forbid it.
    found = _POLICY.search(page)
    policy = {} if found is None else {"Content-Security-Policy": html.unescape(found[1]) + _FRAMES}
    return HTMLResponse(page, headers=policy)


_FRAMES: Final = "; frame-ancestors 'none'"


async def _events(state: CoordinationState, tenant: str, identifier: str, after: int) -> AsyncIterator[Event]:
    while True:
        told, ended = await state.jobs.events(tenant, identifier, after)
        for one in told:
            yield Event(one.name, one.data, str(one.number))
            after = one.number
        if ended:
            return
        if not told:
            await asyncio.sleep(_LOOK_SECONDS)
