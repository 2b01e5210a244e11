"""Pages of the Hamiltonian service: ask and watch, what was analysed, certificates."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Annotated, Any, Final

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from cert.backends.loading import REFERENCE
from cert.core.errors import StoreError
from cert.services.common.principal import Principal
from cert.services.hamiltonian.calibrations import calibrations_of
from cert.services.hamiltonian.recent import Listed, cursor_of, place_of
from cert.services.hamiltonian.state import HamiltonianState, Reader, State
from cert.services.page.frame import pages, shown
from cert.trajectory.report.render import report_data
from cert.trajectory.report.view import SURPRISAL_CLASSES, legend, section

__all__ = ["router"]

router = pages("hamiltonian")
_LATEST: Final = 12
_A_PAGE: Final = 50
_WORDS: Final = {"pass": "Pass", "fail": "Fail", "undecided": "Undecided", "not_measured": "Not measured"}


@router.get("")
async def watch(request: Request, state: State, principal: Reader) -> Response:
    """Ask a model and watch its answer come; below it, what was analysed of late."""
    examples = await asyncio.to_thread(_examples) if REFERENCE in state.models.names[:1] else ()
    return shown(
        request,
        "watch.html.j2",
        models=state.models.names,
        most_new_tokens=state.options.most_new_tokens,
        examples=examples,
        classes=range(SURPRISAL_CLASSES),
        legend=legend(),
        **await _listed(state, principal, _LATEST),
    )


@router.get("/latest")
async def latest(request: Request, state: State, principal: Reader) -> Response:
    """The list of the first page, for the script that keeps it fresh."""
    return shown(request, "latest.html.j2", **await _listed(state, principal, _LATEST))


@router.get("/analyses")
async def analyses(
    request: Request,
    state: State,
    principal: Reader,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """All that are kept, by pages."""
    found = await _listed(state, principal, _A_PAGE, cursor)
    return shown(request, "analyses.html.j2", first=cursor is None, **found)


@router.get("/analyses/{analysis_id}")
async def analysis(analysis_id: str, request: Request, state: State, principal: Reader) -> Response:
    """One, as its report shows it."""
    entry = await state.recent.get(principal.tenant, analysis_id)
    seen = await asyncio.to_thread(section, entry.analysis, 1)
    return shown(
        request,
        "analysis.html.j2",
        sections=[seen],
        one=True,
        data=report_data([seen["data"]]),
        classes=range(SURPRISAL_CLASSES),
        legend=legend(),
        entry=entry,
    )


@router.get("/certificates")
async def certificates(request: Request, state: State, principal: Reader) -> Response:
    """What is promised of each model's verdicts, and whether it still stands."""
    return shown(request, "certificates.html.j2", found=calibrations_of(state.models, principal.tenant))


async def _listed(
    state: HamiltonianState, principal: Principal, limit: int, cursor: str | None = None
) -> dict[str, Any]:
    try:
        page = await state.recent.page(principal.tenant, limit, place_of(cursor))
    except StoreError:  # asking and watching goes on without the list, which says so
        return {"entries": None, "next": None}
    return {"entries": [_line(entry) for entry in page.entries], "next": cursor_of(page.next)}


def _line(entry: Listed) -> dict[str, Any]:
    return {
        "id": entry.id,
        "verdict": entry.verdict,
        "word": _WORDS[entry.verdict],
        "asked": entry.asked,
        "text": entry.text.strip(),
        "model": entry.model,
        "source": entry.source,
        "tokens": entry.tokens,
        "created_at": entry.created_at,
        "label": entry.label,
    }


@cache
def _examples() -> tuple[tuple[str, str], ...]:
    """Questions to the reference model: of a fact that it saw often, seldom, and of somebody it never saw."""
    from cert.reference.world import load_world

    facts = load_world().facts
    asked = [fact for fact in facts if fact.person.question_person]
    often = max(asked, key=lambda fact: fact.exposures)
    seldom = min((fact for fact in asked if fact.exposures > 0), key=lambda fact: fact.exposures)
    never = next(fact for fact in facts if fact.person.never_seen)
    return (
        ("it saw this often", often.question()),
        ("it saw this seldom", seldom.question()),
        ("it never saw this", never.question()),
    )
