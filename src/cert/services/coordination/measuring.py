"""One measurement, from a request to a report."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cert.coordination.baseline import BaselineMeasurer
from cert.coordination.evaluators import QualityEvaluator, matching
from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.orchestrator import CoordinationOrchestrator
from cert.coordination.prompts import load_prompts
from cert.coordination.report import render
from cert.coordination.statistics.verdict import Rules
from cert.coordination.store import CompletionStore
from cert.coordination.strategies.team import Agent
from cert.coordination.suite import CoordinationReport, Progress
from cert.coordination.types import Task
from cert.core.errors import CertError
from cert.core.money import dollars, micro_dollars
from cert.reporting.data import json_ready
from cert.services.coordination.budgets import TenantBudgets
from cert.services.coordination.chats import Chats
from cert.services.coordination.drift import DriftWatch
from cert.services.coordination.jobs.runner import Outcome, WorkInHand
from cert.services.coordination.permit import PermittedChat
from cert.services.coordination.wire import MeasurementRequest

__all__ = ["Measuring"]

_SELECTOR_TOKENS = 64


class Measuring:
    """Measures jobs; what was paid for is kept, so that one that was cut off goes on where it was.

    Args:
        chats: the models.
        budgets: of the tenants.
        answers: opens the store of answers, once for each job: its counts are the job's.
        drift: is fed where a request says so.
    """

    def __init__(
        self,
        chats: Chats,
        budgets: TenantBudgets,
        answers: Callable[[], CompletionStore],
        drift: DriftWatch,
    ) -> None:
        self._chats = chats
        self._budgets = budgets
        self._answers = answers
        self._drift = drift

    async def __call__(self, held: WorkInHand) -> Outcome:
        """Measure a job.

        Raises:
            CertError: the measurement cannot go on; what was paid for is kept.
        """
        job = held.claim.job
        asked = MeasurementRequest.model_validate_json(json.dumps(job.request))
        tasks = [task.task() for task in asked.tasks]
        async with contextlib.AsyncExitStack() as stack:
            store = self._answers()
            stack.push_async_callback(store.aclose)
            orchestrator, evaluator = await self._setup(held, asked, store)
            plan = orchestrator.plan(
                tasks,
                asked.systems,
                num_agents=asked.agents,
                rules=Rules(margin=asked.margin),
                sequential=asked.sequential,
                concurrency=asked.concurrency,
                replicates=asked.replicates,
                seed=asked.seed,
                max_cost=asked.max_cost,
                run=f"{job.tenant}/{job.id}" if asked.fresh else None,
            )
            report = await orchestrator.measure_suite(
                plan,
                output_tokens=asked.answer_tokens,
                on_progress=lambda now: self._moved(held, now),
            )
            report = await self._whole(held, report)
        name = asked.model or self._chats.names[0]
        drift = None
        if asked.watch_drift:
            who = f"{name} {asked.judge or asked.evaluator or 'normalized'}"
            drift = await self._fed(job.tenant, who, tasks, report)
        return await asyncio.to_thread(_outcome, report, name, evaluator, drift)

    async def _fed(self, tenant: str, who: str, tasks: Sequence[Task], report: CoordinationReport) -> str:
        """Feed the scores; what is measured and paid for is not lost where that fails."""
        try:
            await self._drift.feed(tenant, who, tasks, report)
        except CertError as error:
            return error.code
        return "fed"

    async def _setup(
        self, held: WorkInHand, asked: MeasurementRequest, store: CompletionStore
    ) -> tuple[CoordinationOrchestrator, str]:
        name = asked.model or self._chats.names[0]
        client = await self._client(held, name)
        evaluator = await self._evaluator(held, asked)
        selector = None
        if asked.selector is not None:
            selector = Agent(
                "selector", await self._client(held, asked.selector), max_tokens=_SELECTOR_TOKENS
            )
        agents: dict[str, Any] = {
            "temperature": asked.temperature,
            "max_tokens": asked.max_tokens,
            "prompts": load_prompts("reference-v1" if name == "reference" else "v1"),
        }
        # The scope is in the name of each run too: no tenant is answered from what another has paid for.
        baseline = BaselineMeasurer(
            client, evaluator, store=store, scope=held.claim.job.tenant, seed=asked.seed, **agents
        )
        orchestrator = CoordinationOrchestrator(
            client,
            baseline,
            evaluator,
            equivalence=getattr(evaluator, "equivalence", None),
            selector=selector,
            **agents,
        )
        return orchestrator, evaluator.identity

    async def _client(self, held: WorkInHand, name: str) -> PermittedChat:
        job = held.claim.job
        budget = await self._budgets.of(job.tenant)
        inner = await self._chats.client(name, job.tenant, budget.budget)

        async def permit() -> None:
            await held.permit()
            await budget.catch_up()

        async def book(model: str, micro: int) -> None:
            await budget.book(job.id, model, micro)

        own = None if self._chats.have_budgets else budget.budget
        return PermittedChat(inner, name, permit, book, own)

    async def _evaluator(self, held: WorkInHand, asked: MeasurementRequest) -> Evaluator:
        if asked.judge is not None:
            judge = await self._client(held, asked.judge)
            return QualityEvaluator(judge, repeats=asked.judge_repeats)
        made: Evaluator = getattr(matching, asked.evaluator or "normalized")()
        return made

    def _moved(self, held: WorkInHand, now: Progress) -> None:
        saved = max(0, micro_dollars(now.saved) - held.claim.job.spent_micro_dollars)
        spent = held.claim.job.spent_micro_dollars + micro_dollars(now.spent)
        told = {
            "done": now.done,
            "total": now.total,
            "system": now.system,
            "task_id": now.task_id,
            "spent": str(dollars(spent)),
            "saved": str(dollars(saved)),
        }
        held.moved(now.done, saved, told)

    async def _whole(self, held: WorkInHand, report: CoordinationReport) -> CoordinationReport:
        """Return the report with what the whole job paid, by whichever replicas."""
        job = held.claim.job
        if not job.spent_micro_dollars:
            return report
        before = dollars(job.spent_micro_dollars)
        return replace(report, spent=report.spent + before, saved=max(dollars(0), report.saved - before))


def _outcome(report: CoordinationReport, model: str, evaluator: str, drift: str | None) -> Outcome:
    result = json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False)
    summary = {
        "model": model,
        "evaluator": evaluator,
        "stopped": report.stopped,
        "drift": drift,
        "findings": [
            {
                "system": found.system,
                "verdict": found.verdict,
                "tasks": found.tasks,
                "quality": found.team.quality,
                "single_quality": found.single.quality,
                "independent_quality": found.independent.quality,
                "single_runs": found.single.runs,
                "single_missing": found.single.missing,
                "single_cost": found.single.cost,
            }
            for found in report.findings
        ],
    }
    return Outcome(result, render(report), json_ready(summary), len(report.rows))
