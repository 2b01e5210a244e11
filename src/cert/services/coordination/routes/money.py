"""What may be spent, and what was."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from cert.core.money import dollars
from cert.services.coordination.shown import Budget, Cost, Costs, budget_of
from cert.services.coordination.state import Reader, State

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["money"])


@router.get("/budget", operation_id="get_budget", summary="What may be spent", response_model=Budget)
async def get_budget(state: State, principal: Reader) -> object:
    """Of the caller's tenant; calls of other replicas count once they are paid, or at once with Redis."""
    return budget_of(await (await state.budgets.of(principal.tenant)).state())


@router.get("/costs", operation_id="get_costs", summary="What was spent", response_model=Costs)
async def get_costs(
    state: State, principal: Reader, days: Annotated[int, Query(ge=1, le=366)] = 30
) -> object:
    """By model and day, the latest first; answers that came, and not what failed calls cost."""
    tenant = principal.tenant
    items = [
        Cost(
            day=(date(1970, 1, 1) + timedelta(days=spent.day)).isoformat(),
            model=spent.model,
            calls=spent.calls,
            spent=str(dollars(spent.micro_dollars)),
        )
        for spent in await state.ledger.by_model_and_day(tenant, days)
    ]
    whole, saved = await state.ledger.spent(tenant), await state.ledger.saved(tenant)
    return Costs(spent=str(dollars(whole)), saved=str(dollars(saved)), days=days, items=items)
