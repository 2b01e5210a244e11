"""What coordination did on one task, in the classic numbers and the honest ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
from typing import Any

import numpy as np

from cert._version import __version__
from cert.coordination.arrays import Scores, scores_of_measurements
from cert.coordination.chat import Usage
from cert.coordination.dynamics import RoundChange
from cert.coordination.measurement import TaskMeasurement
from cert.coordination.types import SCHEMA_VERSION, Transcript, Verdict
from cert.core.money import dollars

__all__ = ["CoordinationMetrics", "metrics_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinationMetrics:
    """One task, one strategy. A number is ``None`` where it is not measured; `missing` says why.

    Attributes:
        task_id, strategy, num_agents, replicates: what was measured.
        gamma: C / Ī, quality of the coordinated answer over the mean of independent agents.
        omega: C − max_i I_i. Biased down: the best of several is lucky.
        consensus_rate: share of the agents in the largest group of one answer, in the last round in which
            they gave their own.
        gamma_budget: C / S(b), over one agent that spends the same tokens, weighted by their prices.
        omega_best_agent: C less the agent that was best in other replicates (two or more).
        coordinated_quality, independent_quality, best_independent_quality, budget_quality: in [0, 1].
        budget_samples: k, the samples that one agent gets for the same budget.
        budget_ratio: what they weigh over what the team weighs.
        voting_gain, talking_gain: C − I₁ in its two parts, on the same first answers.
        changes: what agents did from one round to the next: right to wrong and back, adoption of a majority.
        oracle_gap: the best answer that any agent gave less the final one.
        verdict: always ``not_enough_data``: under no effect γ is above 1 half of the time.
        missing: why each number that is ``None`` is.
        usage: tokens of the team's runs, of the independent agents, of the single agent.
        cost: the same in exact dollars, and of the judging; what it cost when it was made.
        critical_path_seconds: of the team: the slowest agent of each round.
        seconds: wall time of the whole measurement.
        transcripts: of the team's runs.
    """

    task_id: str
    strategy: str
    num_agents: int
    replicates: int
    gamma: float | None
    omega: float | None
    consensus_rate: float | None
    gamma_budget: float | None
    omega_best_agent: float | None
    coordinated_quality: float | None
    independent_quality: float | None
    best_independent_quality: float | None
    budget_quality: float | None
    budget_samples: int | None
    budget_ratio: float | None
    voting_gain: float | None
    talking_gain: float | None
    changes: tuple[RoundChange, ...] = ()
    oracle_gap: float | None = None
    verdict: Verdict = "not_enough_data"
    missing: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    cost: Mapping[str, Decimal] = field(default_factory=dict)
    critical_path_seconds: float
    seconds: float
    transcripts: tuple[Transcript, ...] = ()

    def is_coordination_effective(self, threshold: float = 1.0) -> bool:
        """Say whether γ is above a threshold: the classic rule, on the point value.

        It is no evidence: where coordination changes nothing it says yes half of the time. For a finding
        with an error rate, measure several tasks (`CoordinationOrchestrator.measure_suite`). What is not
        measured is not effective.
        """
        return self.gamma is not None and self.gamma > threshold

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data: dollars as text, transcripts left out."""
        numbers = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in ("usage", "cost", "transcripts", "missing", "changes")
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "coordination_metrics",
            "cert_version": __version__,
            **numbers,
            "changes": [asdict(change) for change in self.changes],
            "missing": dict(self.missing),
            "usage": {
                name: {"input": u.input_tokens, "output": u.output_tokens, "total": u.total_tokens}
                for name, u in self.usage.items()
            },
            "cost": {name: str(amount) for name, amount in self.cost.items()},
        }


def metrics_of(
    measured: TaskMeasurement, strategy: str, num_agents: int, seconds: float
) -> CoordinationMetrics:
    """Return the metrics of a measurement."""
    scores = scores_of_measurements([measured])
    team, single = _mean(scores.coordinated), _mean(scores.budget)
    independent, best = _mean(scores.independents), _best(scores)
    why: dict[str, str] = {}
    found: dict[str, Any] = {
        "gamma": _over(team, independent, why, "gamma"),
        "omega": None if team is None or best is None else team - best,
        "gamma_budget": _over(team, single, why, "gamma_budget", measured.budget_missing),
        "omega_best_agent": _best_agent(scores, why),
        "consensus_rate": _consensus(measured, why),
    }
    if found["omega"] is None:
        why["omega"] = "a score of the team or of an independent agent is missing"
    found |= _gains(measured, why)
    return CoordinationMetrics(
        task_id=measured.task.id,
        strategy=strategy,
        num_agents=num_agents,
        replicates=len(measured.coordinated),
        **found,
        coordinated_quality=team,
        independent_quality=independent,
        best_independent_quality=best,
        budget_quality=single,
        budget_samples=measured.samples,
        budget_ratio=measured.budget_ratio,
        changes=() if measured.parts is None else measured.parts.changes,
        oracle_gap=None if measured.parts is None else measured.parts.oracle_gap,
        missing=why,
        usage=_usage(measured),
        cost=_cost(measured),
        critical_path_seconds=max(arm.answer.seconds for arm in measured.coordinated),
        seconds=seconds,
        transcripts=measured.transcripts,
    )


def _mean(scores: Any) -> float | None:
    """Return the mean of measured scores."""
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if known.size else None


def _best(scores: Scores) -> float | None:
    """Return the best independent agent, the mean over replicates; the missing one may be the best."""
    best = scores.independents[0].max(axis=1)
    return None if np.isnan(best).any() else float(best.mean())


def _over(
    team: float | None, other: float | None, why: dict[str, str], name: str, reason: str | None = None
) -> float | None:
    if team is not None and other:
        return team / other
    if team is None:
        why[name] = "the coordinated answer has no score"
    elif other is None:
        why[name] = reason or "no answer of the other arm has a score"
    else:
        why[name] = "the other arm scored 0, which makes no ratio"
    return None


def _best_agent(scores: Scores, why: dict[str, str]) -> float | None:
    from cert.coordination.statistics.omega import omega_best_agent

    if scores.independents.shape[1] < 2:
        why["omega_best_agent"] = "the best agent is chosen on other replicates: measure two or more"
        return None
    found = omega_best_agent(scores.coordinated, scores.independents)
    if found.value is None or math.isnan(found.value):
        why["omega_best_agent"] = "a score is missing"
        return None
    return found.value


def _consensus(measured: TaskMeasurement, why: dict[str, str]) -> float | None:
    agreed = measured.consensus
    if agreed is None:
        why["consensus_rate"] = "there is no transcript"
    elif agreed.rate is None:
        why["consensus_rate"] = {
            "undecided": "nothing here can tell which of the answers say the same",
            "too_few": "fewer than two agents answered in the last round",
        }.get(agreed.missing or "", agreed.missing or "not measured")
    return None if agreed is None else agreed.rate


def _gains(measured: TaskMeasurement, why: dict[str, str]) -> dict[str, float | None]:
    parts = measured.parts
    if parts is None:
        reason = "the agents' first answers were not evaluated (parts=True does)"
        gains: dict[str, float | None] = {"voting_gain": None, "talking_gain": None}
        why["oracle_gap"] = reason
    else:
        if parts.oracle_gap is None:
            why["oracle_gap"] = "a score that might be the best is missing"
        reason = "a score of the first answers, of their vote or of the team is missing"
        gains = {
            "voting_gain": _less(parts.vote, parts.single),
            "talking_gain": _less(parts.team, parts.vote),
        }
    why |= {name: reason for name, gain in gains.items() if gain is None}
    return gains


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _usage(measured: TaskMeasurement) -> dict[str, Usage]:
    def total(arms: Any) -> Usage:
        return sum((arm.answer.usage for arm in arms if arm.answer.usage is not None), Usage())

    samples = (sample.response.usage for row in measured.independents for sample in row)
    return {
        "coordinated": total(measured.coordinated),
        "independent": sum(samples, Usage()),
        "budget": total(measured.budget),
    }


def _cost(measured: TaskMeasurement) -> dict[str, Decimal]:
    def total(arms: Any) -> Decimal:
        return dollars(sum(arm.answer.cost_micro_dollars or 0 for arm in arms))

    samples = sum(sample.response.cost_micro_dollars for row in measured.independents for sample in row)
    return {
        "coordinated": total(measured.coordinated),
        "independent": dollars(samples),
        "budget": total(measured.budget),
        "judging": dollars(measured.judge_micro_dollars),
    }
