"""Generate and analyse: one prompt, many, token by token; and read a text that is there."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cert.services.common.direct import Direct
from cert.services.common.principal import Principal
from cert.services.common.sse import EventStream, event_stream
from cert.services.hamiltonian import answers
from cert.services.hamiltonian.live import events_of
from cert.services.hamiltonian.presence import while_present
from cert.services.hamiltonian.shown import AnalysisRecord, BatchAnswer
from cert.services.hamiltonian.state import HamiltonianState, State, Writer
from cert.services.hamiltonian.wire import AnalyzeRequest, BatchRequest, ScoreRequest, StreamRequest

__all__ = ["direct", "router"]

router = APIRouter(prefix="/v1", tags=["analyses"])

# Of each event, as OpenAPI 3.2 describes streams of them; `data` holds JSON.
_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["token", "alarm", "analysis", "error"]},
        "data": {"type": "string"},
        "id": {"type": "string"},
    },
}
_EVENTS = """Server-sent events:

- `token`: `text`, `token_id`, `alarm`, `entropy_lower`, `entropy_upper`, and `signals`
  (null for a last piece of text)
- `alarm`: the `token` at which the gate raised its alarm, once
- `analysis`: the record of the whole, as `POST /v1/analyze` returns it; the end
- `error`: a problem, with what was measured until then as `partial`; the end
"""


@router.post(
    "/analyze",
    operation_id="analyze",
    summary="Generate from a prompt and analyse the generation",
    response_model=AnalysisRecord,
)
async def analyze(body: AnalyzeRequest, request: Request, state: State, principal: Writer) -> Response:
    """An equal greedy or seeded question of the same tenant is answered from the cache, with the same id."""
    return await _analyze(body, request, state, principal)


async def _analyze(
    body: AnalyzeRequest, request: Request, state: HamiltonianState, principal: Principal
) -> Response:
    async with while_present(request):
        entry = await answers.analyze(state, principal.tenant, body)
    return _json(answers.record_bytes(entry, body.detail))


async def _analyze_directly(body: AnalyzeRequest, request: Request, principal: Principal) -> Response:
    return await _analyze(body, request, request.app.state.cert, principal)


direct = (Direct("/v1/analyze", AnalyzeRequest, "write", _analyze_directly),)


@router.post(
    "/analyze/batch",
    operation_id="analyze_batch",
    summary="Analyse many prompts at once",
    response_model=BatchAnswer,
)
async def analyze_batch(body: BatchRequest, request: Request, state: State, principal: Writer) -> Response:
    """Each prompt has an outcome of its own: a record, or a problem."""
    async with while_present(request):
        return _json(await answers.analyze_batch(state, principal.tenant, body))


@router.post(
    "/analyze/stream",
    operation_id="analyze_stream",
    summary="Generate and analyse token by token",
    description=_EVENTS,
    response_class=EventStream,
    responses={200: {"content": {"text/event-stream": {"schema": _EVENT}}}},
)
async def analyze_stream(body: StreamRequest, state: State, principal: Writer) -> Response:
    """See the description of the events."""
    name, tokens = answers.stream(state, principal.tenant, body)
    return event_stream(
        events_of(state, principal.tenant, name, tokens, group=body.group, detail=body.detail)
    )


@router.post(
    "/score",
    operation_id="score",
    summary="Read a text that is there already",
    response_model=AnalysisRecord,
)
async def score(body: ScoreRequest, request: Request, state: State, principal: Writer) -> Response:
    """The signals are those of the text as if the model had written it."""
    async with while_present(request):
        entry = await answers.score(state, principal.tenant, body)
    return _json(answers.record_bytes(entry, body.detail))


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
