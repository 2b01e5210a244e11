"""What callers are shown: measurements, costs, drift, baselines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cert.coordination.drift import DriftStatus
from cert.core.money import dollars
from cert.reporting.data import json_ready
from cert.services.coordination.budgets import BudgetState
from cert.services.coordination.drift import series_id
from cert.services.coordination.jobs.records import Job

__all__ = [
    "Baseline",
    "BaselineList",
    "Budget",
    "Cost",
    "Costs",
    "Drift",
    "DriftAcknowledged",
    "DriftList",
    "Measurement",
    "MeasurementPage",
    "ModelCard",
    "ModelList",
    "Report",
    "baselines_of",
    "budget_of",
    "drift_of",
    "measurement_of",
]

Dollars: TypeAlias = Annotated[str, Field(description="dollars, exact", examples=["0.001250"])]
Moment: TypeAlias = Annotated[str, Field(description="UTC, RFC 3339", examples=["2026-01-31T12:00:00Z"])]
Number: TypeAlias = float | Literal["Infinity", "-Infinity"] | None
Verdict: TypeAlias = Literal["worth_it", "not_worth_it", "not_enough_data"]


class _Shown(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Finding(_Shown):
    """What was found of one system, in short."""

    system: str
    verdict: Verdict
    tasks: int
    quality: Number
    single_quality: Number
    independent_quality: Number
    single_runs: int
    single_missing: int
    single_cost: Dollars | None


class Summary(_Shown):
    """A measurement that is done, in short; the result says it all."""

    model: str
    evaluator: str
    stopped: Literal["budget", "max_cost"] | None
    drift: Annotated[str | None, Field(description="`fed`, or why it could not be; null: was not asked for")]
    findings: list[Finding]


class Measurement(_Shown):
    """A measurement as a job."""

    schema_version: Literal[1] = 1
    id: str
    name: str | None
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    model: str
    systems: list[str]
    tasks: int
    agents: int
    done: Annotated[int, Field(description="measurements of one system on one task")]
    total: int
    spent: Dollars
    saved: Annotated[Dollars, Field(description="what answers that were there would have cost")]
    max_cost: Dollars | None
    cancel_requested: bool
    error: Annotated[dict[str, Any] | None, Field(description="a problem (RFC 9457)")]
    summary: Summary | None


class MeasurementPage(_Shown):
    """Measurements, the latest first."""

    items: list[Measurement]
    next: Annotated[str | None, Field(description="cursor of the next page; null: there is none")]


class Report(BaseModel):
    """A coordination report; its form is that of the library's `CoordinationReport`."""

    model_config = ConfigDict(extra="allow")

    schema_version: int
    kind: Literal["coordination_report"]
    cert_version: str
    run: str
    created_at: Moment
    findings: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    spent: Dollars
    saved: Dollars


class Budget(_Shown):
    """The budget of the caller's tenant; a limit of null is none."""

    schema_version: Literal[1] = 1
    per_hour: Dollars | None
    total: Dollars | None
    spent_in_hour: Dollars
    spent_in_total: Dollars
    reserved: Annotated[Dollars, Field(description="set aside for calls that are out")]
    left_in_hour: Dollars | None
    left_in_total: Dollars | None


class Cost(_Shown):
    """What one model cost on one day."""

    day: Annotated[str, Field(description="UTC", examples=["2026-01-31"])]
    model: str
    calls: int
    spent: Dollars


class Costs(_Shown):
    """What the measurements of the caller's tenant cost."""

    schema_version: Literal[1] = 1
    spent: Annotated[Dollars, Field(description="of all time")]
    saved: Annotated[Dollars, Field(description="of the measurements that are kept")]
    days: int
    items: list[Cost]


class DriftAlarm(_Shown):
    """A fall that was found and that nobody has acknowledged."""

    model_config = ConfigDict(extra="allow")

    kind: str
    raised_at: Annotated[float, Field(description="seconds since 1970, UTC")]


class DriftAcknowledged(_Shown):
    """Who has taken the last alarm off."""

    by: Annotated[str | None, Field(description="id of a key; null: there are no keys, or nobody said")]
    at: Annotated[float, Field(description="seconds since 1970, UTC")]
    kind: str
    raised_at: Annotated[float, Field(description="of the alarm; seconds since 1970, UTC")]


class Drift(_Shown):
    """Where one system on one family of tasks stands."""

    id: Annotated[str, Field(description="names the series in addresses")]
    system: str
    family: str
    phase: Literal["reference", "watching"]
    waiting: str | None
    reference: Annotated[int, Field(description="scores in the reference phase")]
    planned_reference: int
    mean: Number
    seen: int
    missing: int
    promised: bool
    statistic: Number
    threshold: Number
    alarm: DriftAlarm | None
    acknowledged: Annotated[int, Field(description="alarms that were")]
    acknowledgement: Annotated[DriftAcknowledged | None, Field(description="of the last of them")]


class DriftList(_Shown):
    """All systems of the caller's tenant that are watched."""

    schema_version: Literal[1] = 1
    items: list[Drift]


class Baseline(_Shown):
    """What one agent alone reached in a measurement, with the budget that a team had."""

    measurement: str
    finished_at: Moment | None
    model: str
    evaluator: str
    against: Annotated[str, Field(description="the system whose budget it had")]
    tasks: int
    quality: Number
    independent_quality: Annotated[Number, Field(description="of single answers, without that budget")]
    runs: int
    missing: int
    cost: Dollars | None


class BaselineList(_Shown):
    """Baselines of the caller's tenant, of the latest measurements first."""

    items: list[Baseline]
    next: Annotated[str | None, Field(description="cursor of the next page; null: there is none")]


class ModelCard(_Shown):
    """A model that may be asked for."""

    name: str
    default: bool
    usable: bool


class ModelList(_Shown):
    """The allow-list."""

    items: list[ModelCard]


def measurement_of(job: Job, default_model: str) -> Measurement:
    """Return a job as callers see it."""
    asked = job.request
    return Measurement(
        id=job.id,
        name=asked.get("name"),
        state=job.state,
        created_at=_moment(job.created_at),
        started_at=None if job.started_at is None else _moment(job.started_at),
        finished_at=None if job.finished_at is None else _moment(job.finished_at),
        model=asked.get("model") or default_model,
        systems=asked["systems"],
        tasks=len(asked["tasks"]),
        agents=asked["agents"],
        done=job.done,
        total=job.total,
        spent=str(dollars(job.spent_micro_dollars)),
        saved=str(dollars(job.saved_micro_dollars)),
        max_cost=asked.get("max_cost"),
        cancel_requested=job.cancel_requested,
        error=job.error,
        summary=None if job.summary is None else Summary.model_validate(job.summary),
    )


def budget_of(state: BudgetState) -> Budget:
    """Return a budget as callers see it."""

    def told(amount: int | None) -> str | None:
        return None if amount is None else str(dollars(amount))

    def left(limit: int | None, spent: int) -> str | None:
        return told(None if limit is None else max(0, limit - spent - state.reserved))

    return Budget(
        per_hour=told(state.per_hour),
        total=told(state.total),
        spent_in_hour=str(dollars(state.spent_in_hour)),
        spent_in_total=str(dollars(state.spent_in_total)),
        reserved=str(dollars(state.reserved)),
        left_in_hour=left(state.per_hour, state.spent_in_hour),
        left_in_total=left(state.total, state.spent_in_total),
    )


def drift_of(system: str, status: DriftStatus) -> Drift:
    """Return a series as callers see it."""
    names = ("family", "phase", "waiting", "reference", "mean", "seen", "missing", "promised")
    more = ("statistic", "threshold", "alarm", "acknowledged", "acknowledgement")
    told = json_ready({name: getattr(status, name) for name in (*names, *more)})
    own = {"id": series_id(system, status.family), "system": system}
    return Drift.model_validate(told | own | {"planned_reference": status.plan.reference})


def baselines_of(job: Job) -> list[Baseline]:
    """Return the baselines of a measurement that is done."""
    if job.summary is None:
        return []
    summary = Summary.model_validate(job.summary)
    return [
        Baseline(
            measurement=job.id,
            finished_at=None if job.finished_at is None else _moment(job.finished_at),
            model=summary.model,
            evaluator=summary.evaluator,
            against=found.system,
            tasks=found.tasks,
            quality=found.single_quality,
            independent_quality=found.independent_quality,
            runs=found.single_runs,
            missing=found.single_missing,
            cost=found.single_cost,
        )
        for found in summary.findings
    ]


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
