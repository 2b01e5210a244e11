"""Recent analyses: a list by pages, one by its id, its report, its label."""

from __future__ import annotations

import asyncio
import html
import re
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import HTMLResponse, Response

from cert.core.errors import CertError
from cert.services.hamiltonian import answers
from cert.services.hamiltonian.recent import place_of
from cert.services.hamiltonian.shown import AnalysisPage, AnalysisRecord
from cert.services.hamiltonian.state import Reader, State, Writer
from cert.services.hamiltonian.wire import Detail, LabelRequest

__all__ = ["router"]

router = APIRouter(prefix="/v1/analyses", tags=["analyses"])

Identifier = Annotated[str, Path(min_length=1, max_length=64, examples=["an_0123456789abcdef01234567"])]
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')


@router.get(
    "",
    operation_id="list_analyses",
    summary="Recent analyses, the latest first",
    response_model=AnalysisPage,
)
async def list_analyses(
    state: State,
    principal: Reader,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before")] = None,
) -> object:
    """Those of the caller's tenant alone."""
    return answers.page_of(await state.recent.page(principal.tenant, limit, place_of(cursor)))


@router.get(
    "/{analysis_id}",
    operation_id="get_analysis",
    summary="One analysis",
    response_model=AnalysisRecord,
)
async def get_analysis(
    analysis_id: Identifier, state: State, principal: Reader, detail: Annotated[Detail, Query()] = "full"
) -> Response:
    """As `POST /v1/analyze` returned it, with its label."""
    entry = await state.recent.get(principal.tenant, analysis_id)
    return Response(answers.record_bytes(entry, detail), media_type="application/json")


@router.get(
    "/{analysis_id}/report",
    operation_id="get_report",
    summary="The report of an analysis as a page",
    response_class=HTMLResponse,
)
async def get_report(analysis_id: Identifier, state: State, principal: Reader) -> Response:
    """One file that loads nothing from elsewhere."""
    from cert.trajectory.report import render_report

    entry = await state.recent.get(principal.tenant, analysis_id)
    page = await asyncio.to_thread(render_report, entry.analysis)
    # The page's own policy, by the hashes of its scripts, in place of the service's, which would forbid them.
    found = _POLICY.search(page)
    headers = {} if found is None else {"Content-Security-Policy": _policy(found[1])}
    return HTMLResponse(page, headers=headers)


@router.post(
    "/{analysis_id}/label",
    operation_id="label_analysis",
    summary="Say whether an answer turned out right",
    response_model=AnalysisRecord,
)
async def label_analysis(
    analysis_id: Identifier, body: LabelRequest, state: State, principal: Writer
) -> Response:
    """Once for each answer. Labels can refute the promise of the model's gate, where it has one."""
    tenant = principal.tenant
    entry = await state.recent.label(tenant, analysis_id, body.correct)
    watch = state.watch_of(entry, tenant)
    if watch is not None:
        try:
            watch.observe_label(watch.gate.score.of(entry.analysis.signals), body.correct, entry.group)
        except CertError:
            await state.recent.unlabel(tenant, entry.id)
            raise
    return Response(answers.record_bytes(entry, "summary"), media_type="application/json")


def _policy(written: str) -> str:
    return html.unescape(written) + "; frame-ancestors 'none'"
