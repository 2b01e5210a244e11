"""Pages of the Coordination service: measurements of teams, what they cost, drift."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Annotated, Any, Final

from fastapi import Query
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from cert.coordination import strategies
from cert.services.coordination.cursors import cursor_of, place_of
from cert.services.coordination.jobs.records import FINAL
from cert.services.coordination.routes import money, watching
from cert.services.coordination.shown import Budget, measurement_of
from cert.services.coordination.state import CoordinationState, Reader, State
from cert.services.coordination.wire import MOST_PARAMETER
from cert.services.page.frame import pages, shown

__all__ = ["router"]

router = pages("coordination")
_A_PAGE: Final = 20
_DAYS: Final = 30
_TOLD: Final = {
    "sequential": "each corrects the draft before it",
    "parallel": "independent answers, put together by one more",
    "debate": "they see each other's answers, and answer again",
    "vote": "the answer of the most",
    "best_of_n": "a model picks one of the answers",
}


@router.get("")
async def measurements(
    request: Request,
    state: State,
    principal: Reader,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Begin a measurement, and see those that there are."""
    return shown(
        request,
        "measurements.html.j2",
        models=(await watching.list_models(state, principal)).items,  # type: ignore[attr-defined]
        systems=_systems(),
        most_parameter=MOST_PARAMETER,
        first=cursor is None,
        budget=_meter(await money.get_budget(state, principal)),  # type: ignore[arg-type]
        **await _listed(state, principal.tenant, cursor),
    )


@router.get("/latest")
async def latest(request: Request, state: State, principal: Reader) -> Response:
    """The list of the first page, for the script that keeps it fresh."""
    return shown(request, "jobs.html.j2", first=True, **await _listed(state, principal.tenant, None))


@router.get("/measurements/{measurement_id}")
async def measurement(measurement_id: str, request: Request, state: State, principal: Reader) -> Response:
    """One: where it is, and what it found as its report shows it."""
    job = await state.jobs.get(principal.tenant, measurement_id)
    found = None
    if job.state == "succeeded":
        found = _inner(await state.jobs.outcome(principal.tenant, measurement_id, "report"))
    return shown(
        request,
        "measurement.html.j2",
        m=measurement_of(job, state.chats.names[0]),
        ended=job.state in FINAL,
        found=found,
    )


@router.get("/costs")
async def costs(request: Request, state: State, principal: Reader) -> Response:
    """What may be spent, and what was."""
    return shown(
        request,
        "costs.html.j2",
        budget=_meter(await money.get_budget(state, principal)),  # type: ignore[arg-type]
        costs=await money.get_costs(state, principal, _DAYS),
    )


@router.get("/drift")
async def drift(request: Request, state: State, principal: Reader) -> Response:
    """Whether systems got worse, and what one agent alone reached."""
    return shown(
        request,
        "drift.html.j2",
        series=(await watching.get_drift(state, principal)).items,  # type: ignore[attr-defined]
        baselines=(await watching.list_baselines(state, principal, 50, None)).items,  # type: ignore[attr-defined]
    )


@cache
def _systems() -> tuple[dict[str, Any], ...]:
    """Return the strategies with what they do, and their numbers with the usual values."""
    found = []
    for name in strategies.names():
        numbers = inspect.signature(type(strategies.get(name))).parameters.values()
        parameters = [{"name": one.name, "value": one.default} for one in numbers if type(one.default) is int]
        found.append({"name": name, "told": _TOLD.get(name, ""), "parameters": parameters})
    return tuple(found)


async def _listed(state: CoordinationState, tenant: str, cursor: str | None) -> dict[str, Any]:
    jobs, more = await state.jobs.page(tenant, _A_PAGE, place_of(cursor))
    return {
        "jobs": [measurement_of(job, state.chats.names[0]) for job in jobs],
        "next": cursor_of(more),
    }


def _inner(report: str) -> Markup:
    """Return what a report has between its heading and its end.

    It was rendered by the service itself with everything of strangers escaped, so that the marks looked for
    are the template's own.
    """
    start, end = report.index("<main>") + len("<main>"), report.rindex("</main>")
    return Markup(report[start:end])  # noqa: S704 - rendered by our own template


def _meter(budget: Budget) -> list[dict[str, Any]]:
    """Return the two limits of a budget as the page draws them."""
    return [
        {
            "name": name,
            "spent": spent,
            "limit": limit,
            "left": left,
            "share": None if limit is None or float(limit) == 0 else min(1.0, float(spent) / float(limit)),
        }
        for name, spent, limit, left in (
            ("In this hour", budget.spent_in_hour, budget.per_hour, budget.left_in_hour),
            ("In all", budget.spent_in_total, budget.total, budget.left_in_total),
        )
    ]
