"""A suite at work: batch by batch, task by task, all systems on a task at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cert.coordination.arrays import scores_of_measurements
from cert.coordination.gathering import all_to_their_end
from cert.coordination.measurement import TaskMeasurement, TaskMeasurer
from cert.coordination.statistics.sequential import SequentialDecision, decide_sequentially
from cert.coordination.statistics.verdict import Decision, decide_all
from cert.coordination.store import CompletionStore, LostCalls
from cert.coordination.suite.findings import Findings, findings_of
from cert.coordination.suite.plan import SuitePlan
from cert.coordination.suite.progress import Progress
from cert.coordination.suite.rehearsal import Estimate
from cert.coordination.suite.report import CoordinationReport, Row
from cert.coordination.systems import System
from cert.coordination.types import Task
from cert.core.errors import BudgetExceededError
from cert.core.money import dollars

__all__ = ["measure_suite"]


async def measure_suite(
    plan: SuitePlan,
    measurer: TaskMeasurer,
    systems: Sequence[System],
    store: CompletionStore,
    *,
    run: str,
    estimate: Estimate | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> CoordinationReport:
    """Measure all tasks and say what was found.

    Where the money ends, what was measured until then is reported, and the report says so. Whoever cancels a
    suite, or kills it, loses nothing that was paid for: the same plan goes on where it was.

    Args:
        plan: of the suite.
        measurer: of single tasks.
        systems: of the plan, as they are asked: with their answers kept.
        store: where answers are kept.
        run: the name of the run.
        estimate: made before, for the report.
        on_progress: told after each measurement.

    Raises:
        CertError: the run cannot go on.
    """
    suite = _Suite(plan, measurer, systems, store, on_progress)
    started, created_at = time.monotonic(), datetime.now(UTC)
    await suite.measure()
    lost = [await store.lost(scope) for scope in (run, measurer.baseline.scope)]
    return CoordinationReport(
        run=run,
        created_at=created_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        findings=suite.findings(),
        rows=suite.rows(),
        tasks=len(plan.tasks),
        num_agents=plan.num_agents,
        replicates=plan.replicates,
        rules=plan.rules,
        seed=plan.seed,
        evaluator=measurer.evaluator.identity,
        single_agent=measurer.single.identity,
        stopped=suite.stopped,
        estimate=estimate,
        spent=dollars((await suite.paid())[0]),
        saved=dollars((await suite.paid())[1]),
        lost=LostCalls(
            calls=tuple(sorted((call for part in lost for call in part.calls), key=lambda it: it.started_at)),
            under_way=sum(part.under_way for part in lost),
        ),
        seconds=time.monotonic() - started,
    )


class _Suite:
    """The state of one run of a suite.

    Attributes:
        stopped: why it ended before its end: ``budget``, else ``None``.
    """

    def __init__(
        self,
        plan: SuitePlan,
        measurer: TaskMeasurer,
        systems: Sequence[System],
        store: CompletionStore,
        on_progress: Callable[[Progress], object] | None,
    ) -> None:
        self.stopped: str | None = None
        self._plan = plan
        self._measurer = measurer
        self._systems = {system.name: system for system in systems}
        self._store = store
        self._on_progress = on_progress
        self._measured: dict[str, dict[str, TaskMeasurement]] = {name: {} for name in self._systems}
        self._decided: dict[str, SequentialDecision] = {}
        self._free = asyncio.Semaphore(plan.concurrency)
        self._before = (0, 0)
        self._done = 0

    async def measure(self) -> None:
        """Measure batch by batch, until all is measured, all is decided or the money ends."""
        stats = await self._store.stats()
        self._before = (stats.spent_micro_dollars, stats.saved_micro_dollars)
        for batch in self._plan.batches:
            active = [system for name, system in self._systems.items() if not self._is_decided(name)]
            if not active or self.stopped:
                return
            try:
                await all_to_their_end(self._task(task, active) for task in batch)
            except BudgetExceededError:
                self.stopped = "budget"
            if self._plan.sequential:
                self._look()

    async def paid(self) -> tuple[int, int]:
        """Return what was paid and what was saved since the start, in micro-dollars."""
        stats = await self._store.stats()
        return stats.spent_micro_dollars - self._before[0], stats.saved_micro_dollars - self._before[1]

    def findings(self) -> tuple[Findings, ...]:
        """Return what was found of each system that was measured at all."""
        measured = {name: of for name in self._systems if (of := self._in_order(name))}
        scores = {name: scores_of_measurements(of) for name, of in measured.items()}
        if not scores:
            return ()
        # Systems that were stopped at different times have different tasks: each is a family of its own then,
        # and the sequential decision, at a level shared among all, is what counts.
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, of in measured.items():
            groups.setdefault(tuple(one.task.id for one in of), []).append(name)
        decisions: dict[str, Decision] = {}
        for names in groups.values():
            decisions |= decide_all(
                {name: scores[name].coordinated for name in names},
                {name: scores[name].budget for name in names},
                scores[names[0]].sources,
                self._plan.rules,
            )
        return tuple(
            findings_of(
                self._systems[name].identity,
                of,
                scores[name],
                decisions[name],
                self._decided.get(name) if self._plan.sequential else None,
            )
            for name, of in measured.items()
        )

    def rows(self) -> tuple[Row, ...]:
        """Return every measurement, by task and system in the order of the plan."""
        return tuple(
            Row.of(self._measured[name][task.id])
            for task in self._plan.tasks
            for name in self._systems
            if task.id in self._measured[name]
        )

    async def _task(self, task: Task, active: Sequence[System]) -> None:
        async with self._free:
            if self.stopped:
                return
            try:
                await all_to_their_end(self._one(task, system) for system in active)
            except BudgetExceededError:
                self.stopped = "budget"

    async def _one(self, task: Task, system: System) -> None:
        plan = self._plan
        measured = await self._measurer.measure(task, system, plan.num_agents, plan.seed)
        self._measured[system.name][task.id] = measured
        self._done += 1
        spent, saved = await self.paid()
        if plan.max_cost is not None and dollars(spent) >= plan.max_cost:
            self.stopped = "max_cost"
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    done=self._done,
                    total=len(plan.tasks) * len(self._systems),
                    system=system.name,
                    task_id=task.id,
                    spent=dollars(spent),
                    saved=dollars(saved),
                )
            )

    def _look(self) -> None:
        """Decide what can be decided; the error is shared among the systems (Bonferroni)."""
        rules = self._plan.rules
        level = 1.0 - (1.0 - rules.level) / len(self._systems)
        for name in self._systems:
            of = self._in_order(name)
            if of and not self._is_decided(name):
                scores = scores_of_measurements(of)
                self._decided[name] = decide_sequentially(
                    scores.coordinated, scores.budget, scores.sources, rules.margin, level
                )

    def _is_decided(self, name: str) -> bool:
        return name in self._decided and self._decided[name].stopped_at is not None

    def _in_order(self, name: str) -> list[TaskMeasurement]:
        of = self._measured[name]
        planned = [task.id for batch in self._plan.batches for task in batch]
        return [of[task_id] for task_id in planned if task_id in of]
