"""What a suite found, as data: for people by `cert.coordination.report`, for programs by `to_dict`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cert._version import __version__
from cert.coordination.measurement import TaskMeasurement
from cert.coordination.statistics.verdict import Rules
from cert.coordination.store.records import LostCalls
from cert.coordination.suite.findings import Findings
from cert.coordination.suite.rehearsal import Estimate
from cert.coordination.types import SCHEMA_VERSION, Transcript
from cert.reporting.data import json_ready

__all__ = ["CoordinationReport", "Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system on one task; means over replicates, ``None`` is not measured.

    Attributes:
        task_id, system: which.
        task_text, references: of the task, as it was given.
        coordinated, independent, single: quality of the three arms.
        missing: why an arm has no score, by arm.
        samples, budget_ratio: of the match of the budgets.
        cost: micro-dollars of the team's runs.
        transcripts: of the team's runs.
    """

    task_id: str
    system: str
    task_text: str
    references: tuple[str, ...]
    coordinated: float | None
    independent: float | None
    single: float | None
    missing: Mapping[str, str]
    samples: int | None
    budget_ratio: float | None
    cost_micro_dollars: int | None
    transcripts: tuple[Transcript, ...]

    @classmethod
    def of(cls, measured: TaskMeasurement) -> Row:
        """Return the row of a measurement."""
        samples = [sample for row in measured.independents for sample in row]
        arms = {
            "coordinated": [(arm.score, arm.evaluation.missing) for arm in measured.coordinated],
            "independent": [(sample.quality, sample.missing) for sample in samples],
            "single": [(arm.score, arm.evaluation.missing) for arm in measured.budget],
        }
        missing = {
            name: ", ".join(sorted({why for _, why in scored if why is not None}))
            for name, scored in arms.items()
            if any(score is None for score, _ in scored)
        }
        if measured.budget_missing:
            missing["single"] = measured.budget_missing
        costs = [arm.answer.cost_micro_dollars for arm in measured.coordinated]
        return cls(
            task_id=measured.task.id,
            system=measured.system,
            task_text=measured.task.text,
            references=measured.task.references,
            **{name: _mean([score for score, _ in scored]) for name, scored in arms.items()},
            missing=missing,
            samples=measured.samples,
            budget_ratio=measured.budget_ratio,
            cost_micro_dollars=None if None in costs else sum(cost for cost in costs if cost is not None),
            transcripts=measured.transcripts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinationReport:
    """A suite that was measured.

    Attributes:
        run: the name by which it can be gone on with.
        created_at: UTC, RFC 3339.
        findings: of each system.
        rows: of each system on each task.
        tasks, num_agents, replicates, rules, seed: of the plan.
        evaluator, single_agent: who scored, and who was the baseline.
        stopped: ``budget`` or ``max_cost`` where the money ended before the tasks did, else ``None``.
        estimate: of the cost, made before the start.
        spent, saved: dollars paid this time, and not paid since the answers were there.
        lost: calls of this run, and of the baseline whoever measured it, that may be billed and whose answers
            never came.
        seconds: wall time.
    """

    run: str
    created_at: str
    findings: tuple[Findings, ...]
    rows: tuple[Row, ...]
    tasks: int
    num_agents: int
    replicates: int
    rules: Rules
    seed: int | None
    evaluator: str
    single_agent: str
    stopped: str | None
    estimate: Estimate | None
    spent: Decimal
    saved: Decimal
    lost: LostCalls
    seconds: float

    def finding(self, system: str) -> Findings:
        """Return what was found of a system.

        Raises:
            KeyError: there is none of this name.
        """
        for found in self.findings:
            if found.system == system:
                return found
        raise KeyError(system)

    def to_dict(self, *, transcripts: bool = True) -> dict[str, Any]:
        """Return JSON-ready data: dollars as text, ``None`` for what is not measured, infinities by name.

        Args:
            transcripts: with everything that was said, and what was asked; untrusted text.
        """
        data = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("rows", "lost")
        }
        rows = [
            {field.name: getattr(row, field.name) for field in dataclasses.fields(row)} for row in self.rows
        ]
        if not transcripts:
            for row in rows:
                for name in ("transcripts", "task_text", "references"):
                    row.pop(name)
        lost = {"calls": len(self.lost.calls), "at_most": self.lost.most, "unbounded": self.lost.unbounded}
        told: dict[str, Any] = json_ready(
            {
                "schema_version": SCHEMA_VERSION,
                "kind": "coordination_report",
                "cert_version": __version__,
                **data,
                "lost": lost,
                "rows": rows,
            }
        )
        return told


def _mean(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else None
