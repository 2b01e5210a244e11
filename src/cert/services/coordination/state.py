"""What the routes of the service work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from cert.services.common.principal import Principal, require
from cert.services.coordination.budgets import TenantBudgets
from cert.services.coordination.chats import Chats
from cert.services.coordination.drift import DriftWatch
from cert.services.coordination.jobs.ledger import Ledger
from cert.services.coordination.jobs.runner import JobRunner
from cert.services.coordination.jobs.store import JobStore
from cert.services.coordination.options import CoordinationOptions

__all__ = ["CoordinationState", "Reader", "State", "Writer", "state_of"]


@dataclass(frozen=True)
class CoordinationState:
    """The resources of the running service.

    Attributes:
        options: what the operator decided.
        jobs: of all tenants.
        runner: works on them.
        chats: the allow-list.
        budgets: of the tenants.
        ledger: what was spent.
        drift: of the tenants' systems.
    """

    options: CoordinationOptions
    jobs: JobStore
    runner: JobRunner
    chats: Chats
    budgets: TenantBudgets
    ledger: Ledger
    drift: DriftWatch


def state_of(request: Request) -> CoordinationState:
    """Return the resources of the service that a request came to."""
    return cast(CoordinationState, request.app.state.cert)


State = Annotated[CoordinationState, Depends(state_of)]
Reader = Annotated[Principal, Depends(require("read"))]
Writer = Annotated[Principal, Depends(require("write"))]
