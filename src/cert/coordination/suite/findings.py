"""What was found about one system over all tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import median
from typing import Any

import numpy as np

from cert.coordination.arrays import Scores
from cert.coordination.attribution import Attribution, attribute
from cert.coordination.chat import Usage
from cert.coordination.consensus import Agreement, agreement_beyond_chance, final_round
from cert.coordination.dynamics import RoundChange, pooled
from cert.coordination.measurement import Arm, TaskMeasurement
from cert.coordination.statistics.costs import cost_per_further_point, cost_per_point
from cert.coordination.statistics.inference import Difference
from cert.coordination.statistics.omega import agent_spread, omega, omega_best_agent, omega_bias
from cert.coordination.statistics.ratios import Estimate, gamma
from cert.coordination.statistics.sequential import SequentialDecision
from cert.coordination.statistics.verdict import Decision
from cert.coordination.types import Verdict
from cert.core.money import dollars

__all__ = ["ArmTotal", "Findings", "findings_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTotal:
    """One way to answer, over all tasks.

    Attributes:
        quality: mean score over tasks, ``None`` where none is measured.
        runs: how often it was asked for an answer.
        missing: answers or judgements that are missing, of all that were asked for.
        usage: tokens; ``None`` where the system does not tell.
        cost: dollars, of all runs; ``None`` where the system does not tell.
        cost_per_point: micro-dollars for a hundredth of a score.
        median_seconds: of a run.
    """

    quality: float | None
    runs: int
    missing: int
    usage: Usage | None
    cost: Decimal | None
    cost_per_point: Estimate | None
    median_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """One system against one agent with the same budget; whatever is not measured is ``None``.

    Attributes:
        system, identity: which.
        verdict: three-way.
        reasons: in sentences, the deciding one first.
        more_tasks: about how many more would decide.
        tasks, missing: measured in both arms, and not.
        decision: the comparison behind the verdict; its ratio is γ_budget.
        sequential: the same at any time, where the suite stops by itself; then the verdict is this one's.
        gamma, omega, omega_bias, omega_best_agent: the classic numbers, with intervals; ω's bias under no
            effect; its unbiased twin.
        team, independent, single: the three arms.
        cost_per_further_point: micro-dollars for a point more than the single agent.
        samples, budget_ratio: k and the match of the budgets, means over tasks.
        consensus: mean rate over the tasks on which it is measured, and on how many.
        agreement: beyond chance.
        attribution: voting and talking.
        changes: from round to round.
        oracle_gap: mean.
        judge_cost: dollars of judging all arms.
    """

    system: str
    identity: str
    verdict: Verdict
    reasons: tuple[str, ...]
    more_tasks: int | None
    tasks: int
    missing: int
    decision: Decision
    sequential: SequentialDecision | None
    gamma: Estimate
    omega: Difference
    omega_bias: float | None
    omega_best_agent: Difference | None
    team: ArmTotal
    independent: ArmTotal
    single: ArmTotal
    cost_per_further_point: Estimate
    samples: float | None
    budget_ratio: float | None
    consensus: float | None
    consensus_tasks: int
    agreement: Agreement | None
    attribution: Attribution | None
    changes: tuple[RoundChange, ...]
    oracle_gap: float | None
    judge_cost: Decimal
    notes: Mapping[str, str] = field(default_factory=dict)


def findings_of(
    identity: str,
    measurements: Sequence[TaskMeasurement],
    scores: Scores,
    decision: Decision,
    sequential: SequentialDecision | None = None,
) -> Findings:
    """Return the findings of one system, one measurement or more."""
    verdict, reasons, more = decision.verdict, decision.reasons, decision.more_tasks
    unmatched = [one.budget_missing for one in measurements if one.budget_missing]
    if unmatched and len(unmatched) == len(measurements):
        reasons = (f"γ_budget is not measured: {unmatched[0]}", *reasons)
    if sequential is not None:
        verdict = sequential.verdict
        if sequential.stopped_at is not None:
            reasons = (f"decided after {sequential.stopped_at} independent tasks", *reasons)
            more = None
    r = scores.independents.shape[1]
    spread = agent_spread(scores.independents)
    return Findings(
        system=measurements[0].system,
        identity=identity,
        verdict=verdict,
        reasons=reasons,
        more_tasks=more,
        tasks=decision.difference.tasks,
        missing=decision.difference.dropped,
        decision=decision,
        sequential=sequential,
        gamma=gamma(scores.coordinated, scores.independents, scores.sources),
        omega=omega(scores.coordinated, scores.independents, scores.sources),
        omega_bias=None if math.isnan(spread) else omega_bias(spread, scores.independents.shape[2]),
        omega_best_agent=omega_best_agent(scores.coordinated, scores.independents, scores.sources)
        if r > 1
        else None,
        team=_team_total(measurements, scores),
        independent=_independent_total(measurements, scores),
        single=_single_total(measurements, scores),
        cost_per_further_point=cost_per_further_point(
            (scores.coordinated_costs, scores.coordinated),
            (scores.budget_costs, scores.budget),
            scores.sources,
        ),
        samples=_mean([one.samples for one in measurements]),
        budget_ratio=_mean([one.budget_ratio for one in measurements]),
        **_talk(measurements),
        judge_cost=dollars(sum(one.judge_micro_dollars for one in measurements)),
    )


def _team_total(measurements: Sequence[TaskMeasurement], scores: Scores) -> ArmTotal:
    arms = [arm for one in measurements for arm in one.coordinated]
    return _total(
        arms, scores.coordinated, cost_per_point(scores.coordinated_costs, scores.coordinated, scores.sources)
    )


def _single_total(measurements: Sequence[TaskMeasurement], scores: Scores) -> ArmTotal:
    arms = [arm for one in measurements for arm in one.budget]
    return _total(arms, scores.budget, cost_per_point(scores.budget_costs, scores.budget, scores.sources))


def _total(arms: Sequence[Arm], scores: Any, per_point: Estimate) -> ArmTotal:
    usages = [arm.answer.usage for arm in arms]
    costs = [arm.answer.cost_micro_dollars for arm in arms]
    known = [usage for usage in usages if usage is not None]
    paid = [cost for cost in costs if cost is not None]
    return ArmTotal(
        quality=_quality(scores),
        runs=len(arms),
        missing=sum(arm.score is None for arm in arms),
        usage=sum(known, Usage()) if len(known) == len(arms) else None,
        cost=dollars(sum(paid)) if len(paid) == len(arms) else None,
        cost_per_point=per_point,
        median_seconds=median(arm.answer.seconds for arm in arms) if arms else None,
    )


def _independent_total(measurements: Sequence[TaskMeasurement], scores: Scores) -> ArmTotal:
    samples = [sample for one in measurements for row in one.independents for sample in row]
    return ArmTotal(
        quality=_quality(scores.independents),
        runs=len(samples),
        missing=sum(sample.quality is None for sample in samples),
        usage=sum((sample.response.usage for sample in samples), Usage()),
        cost=dollars(sum(sample.response.cost_micro_dollars for sample in samples)),
        cost_per_point=None,
        median_seconds=median(sample.response.seconds for sample in samples) if samples else None,
    )


def _quality(scores: Any) -> float | None:
    """Return the mean over tasks of the means of their measured scores."""
    by_task = scores.reshape(len(scores), -1)
    measured = np.isfinite(by_task)
    kept = measured.any(axis=1)
    if not kept.any():
        return None
    sums = np.where(measured, by_task, 0.0).sum(axis=1)[kept]
    return float((sums / measured.sum(axis=1)[kept]).mean())


def _talk(measurements: Sequence[TaskMeasurement]) -> dict[str, Any]:
    rates = [one.consensus.rate for one in measurements if one.consensus and one.consensus.rate is not None]
    parts = [one.parts for one in measurements if one.parts is not None]
    said = [
        (
            [one.text for one in final_round(measured.transcripts[0]) if one.text is not None],
            measured.consensus.clustering,
        )
        for measured in measurements
        if measured.consensus is not None and measured.consensus.clustering is not None
    ]
    return {
        "consensus": _mean(rates),
        "consensus_tasks": len(rates),
        "agreement": agreement_beyond_chance(said) if said else None,
        "attribution": attribute(
            [part.single for part in parts], [part.vote for part in parts], [part.team for part in parts]
        )
        if parts
        else None,
        "changes": pooled(part.changes for part in parts),
        "oracle_gap": _mean([part.oracle_gap for part in parts]),
    }


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
