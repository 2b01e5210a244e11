"""The certificates in force, and what each tenant's answers and labels say of their promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cert.services.common.errors import NotFoundError
from cert.services.hamiltonian.models import ModelTable
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.watch import GateWatch
from cert.trajectory.gate import json_number

__all__ = ["calibration_of", "calibrations_of"]


def calibrations_of(models: ModelTable, tenant: str) -> dict[str, Any]:
    """Return all of them as `CalibrationList` has them."""
    by_id: dict[str, dict[str, HamiltonianMonitor]] = {}
    gates = {}
    for name, monitor in _monitors(models, tenant):
        gates[name] = monitor.config.profile if monitor.gate is None else monitor.gate.profile
        if monitor.gate is not None:
            by_id.setdefault(monitor.gate.profile, {})[name] = monitor
    items = [_calibration(found, whole=False) for found in by_id.values()]
    return {"schema_version": 1, "items": items, "gates": gates}


def calibration_of(models: ModelTable, tenant: str, identifier: str) -> dict[str, Any]:
    """Return one, with the whole certificate.

    Raises:
        NotFoundError: no certificate in force has this id.
    """
    found = {
        name: monitor
        for name, monitor in _monitors(models, tenant)
        if monitor.gate is not None and monitor.gate.profile == identifier
    }
    if not found:
        raise NotFoundError("no certificate in force has this id")
    return _calibration(found, whole=True)


def _monitors(models: ModelTable, tenant: str) -> Iterator[tuple[str, HamiltonianMonitor]]:
    for name in models.names:
        yield name, models.monitor(name, tenant)


def _calibration(monitors: dict[str, HamiltonianMonitor], *, whole: bool) -> dict[str, Any]:
    gate = next(iter(monitors.values())).gate
    assert isinstance(gate, CalibratedGate)
    c = gate.certificate
    watches = {name: _watch(monitor.gate_watch) for name, monitor in monitors.items() if monitor.gate_watch}
    groups = {name: json_number(threshold.value) for name, threshold in (c.groups or {}).items()}
    return {
        "schema_version": 1,
        "id": c.id,
        "models": list(monitors),
        "goal": c.goal,
        "alpha": c.alpha,
        "delta": c.delta,
        "promise": gate.promise,
        "score": gate.score.name,
        "threshold": None if c.threshold is None else json_number(c.threshold.value),
        "groups": None if c.groups is None else groups,
        "created_at": c.created_at,
        "n": c.n,
        "n_units": c.n_units,
        "signed_by": None if c.signature is None else c.signature.public_key.hex(),
        "unchecked": list(gate.unchecked),
        "waived": list(gate.waived),
        "notes": list(c.notes),
        "watch": watches,
        "certificate": c.to_dict() if whole else None,
    }


def _watch(watch: GateWatch) -> dict[str, Any]:
    status = watch.status
    risks = [asdict(risk) | {"rate": json_number(risk.rate)} for risk in status.risks]
    names = ("state", "seen", "not_measured", "shifted_at", "watched", "labels", "void_at")
    shown = {name: getattr(status, name) for name in names}
    return shown | {"evidence": json_number(status.evidence), "risks": risks}
