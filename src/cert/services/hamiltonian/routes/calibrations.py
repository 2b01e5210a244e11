"""The certificates that the operator configured."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from cert.services.hamiltonian.calibrations import calibration_of, calibrations_of
from cert.services.hamiltonian.shown import Calibration, CalibrationList
from cert.services.hamiltonian.state import Reader, State

__all__ = ["router"]

router = APIRouter(prefix="/v1/calibrations", tags=["calibrations"])


@router.get(
    "",
    operation_id="list_calibrations",
    summary="Certificates in force, and the gate of each model",
    response_model=CalibrationList,
)
async def list_calibrations(state: State, principal: Reader) -> object:
    """With what the caller's own answers and labels say of each promise."""
    return calibrations_of(state.models, principal.tenant)


@router.get(
    "/{certificate_id}",
    operation_id="get_calibration",
    summary="One certificate, whole",
    response_model=Calibration,
)
async def get_calibration(
    certificate_id: Annotated[str, Path(min_length=1, max_length=64)], state: State, principal: Reader
) -> object:
    """By the id that verdicts name."""
    return calibration_of(state.models, principal.tenant, certificate_id)
