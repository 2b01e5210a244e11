"""Measures teams of agents: one task with the classic numbers, or a suite with a finding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cert.coordination import strategies
from cert.coordination.alike import AnyEquivalence
from cert.coordination.baseline import BaselineMeasurer
from cert.coordination.chat import ChatClient
from cert.coordination.evaluators.observed import ObservedEvaluator
from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.measurement import TaskMeasurer
from cert.coordination.metrics import CoordinationMetrics, metrics_of
from cert.coordination.prompts import PromptSet, load_prompts
from cert.coordination.single_agent import MatchedAgent
from cert.coordination.store import CachedChatClient, keeping
from cert.coordination.strategies.choice import MajorityChooser
from cert.coordination.strategies.protocol import Strategy
from cert.coordination.strategies.team import Agent, Team
from cert.coordination.suite import (
    CoordinationReport,
    Estimate,
    Progress,
    SuitePlan,
    measure_suite,
    rehearse,
)
from cert.coordination.suite.kept import kept
from cert.coordination.systems import System, TeamSystem
from cert.coordination.types import Task
from cert.core.errors import BudgetExceededError, InputError
from cert.core.events import CoordinationMeasured, EventHub, default_hub
from cert.core.money import micro_dollars

__all__ = ["CoordinationOrchestrator"]


class CoordinationOrchestrator:
    """Measures what coordination adds over independent agents, and over one agent with the same budget.

    Args:
        client: who the agents are.
        baseline_measurer: samples single agents; with a store, each is paid for once.
        evaluator: scores answers.
        equivalence: whether two answers say the same, for votes and consensus. Without one the rule of the
            evaluator is taken where it has references to match; free text then stays undecided.
        selector: picks the best of several answers where nothing can tell them apart. It must be another
            model than the judge.
        aggregator: makes one answer of several; without one the first agent does.
        system: what agents are told before.
        temperature, max_tokens: of the agents; the baseline measurer has its own and should have the same.
        prompts: templates.
        quorum: agents that have to answer in each round.
        timeout: seconds for each call.
        hub: hears of measurements and judgements; the process's own by default.
    """

    def __init__(
        self,
        client: ChatClient,
        baseline_measurer: BaselineMeasurer,
        evaluator: Evaluator,
        *,
        equivalence: AnyEquivalence | None = None,
        selector: Agent | None = None,
        aggregator: Agent | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int = 1024,
        prompts: PromptSet | None = None,
        quorum: int | None = None,
        timeout: float | None = None,
        hub: EventHub | None = None,
    ) -> None:
        self.client = client
        self.baseline_measurer = baseline_measurer
        self.hub = hub or default_hub()
        self.evaluator = ObservedEvaluator(evaluator, self.hub)
        own: AnyEquivalence | None = getattr(evaluator, "equivalence", None)
        self.equivalence = own if equivalence is None else equivalence
        self.selector = selector
        self.prompts = prompts or load_prompts()
        self._agent: dict[str, Any] = {"system": system, "temperature": temperature, "max_tokens": max_tokens}
        self._team: dict[str, Any] = {
            "aggregator": aggregator,
            "selector": selector,
            "quorum": quorum,
            "timeout": timeout,
            "prompts": self.prompts,
        }

    def team(self, num_agents: int, client: ChatClient | None = None) -> Team:
        """Return a team of equal agents.

        Args:
            num_agents: 1 or more.
            client: in place of the orchestrator's.

        Raises:
            InputError: no agent.
        """
        if type(num_agents) is not int or num_agents < 1:
            raise InputError(f"a team has 1 agent or more, not {num_agents!r}")
        options = self._agent | self._team
        if self.equivalence is not None:
            options["chooser"] = MajorityChooser(self.equivalence)
        return Team.of(client or self.client, num_agents, **options)

    def strategy_system(
        self, strategy: str | Strategy, num_agents: int, client: ChatClient | None = None, **parameters: Any
    ) -> TeamSystem:
        """Return the system of a strategy over equal agents.

        Raises:
            InputError: there is no such strategy or parameter, or no agent.
        """
        if isinstance(strategy, str):
            strategy = strategies.get(strategy, **parameters)
        elif parameters:
            raise InputError("parameters go with the name of a strategy, not with a strategy")
        return TeamSystem(strategy, self.team(num_agents, client))

    def measurer(
        self,
        *,
        replicates: int = 1,
        baseline_replicates: int = 2,
        parts: bool = False,
        client: ChatClient | None = None,
        evaluator: Evaluator | None = None,
    ) -> TaskMeasurer:
        """Return what measures single tasks, with these settings; see `TaskMeasurer`."""
        single = MatchedAgent(
            client or self.baseline_measurer.client,
            equivalence=self.equivalence,
            selector=self.selector,
            prompts=self.prompts,
            timeout=self._team["timeout"],
            **self._agent,
        )
        return TaskMeasurer(
            evaluator=evaluator or self.evaluator,
            baseline=self.baseline_measurer,
            single=single,
            replicates=replicates,
            baseline_replicates=baseline_replicates,
            parts=parts,
        )

    async def measure_coordination(
        self,
        task: str | Task,
        num_agents: int = 3,
        strategy: str | Strategy = "parallel",
        *,
        replicates: int = 1,
        parts: bool | None = None,
        seed: int | None = None,
        **parameters: Any,
    ) -> CoordinationMetrics:
        """Measure a strategy on one task.

        Args:
            task: that the agents are set.
            num_agents: of the team, and independent agents beside it.
            strategy: by name, or itself.
            replicates: runs of the team; two or more are needed for ``omega_best_agent``.
            parts: evaluate each agent's answers, which tells voting from talking; by default where an
                evaluation costs nothing.
            seed: of everything that is drawn, where the models have seeds.
            **parameters: of the strategy, such as ``rounds``.

        Returns:
            Point values. Their verdict is ``not_enough_data``, as one task always is.

        Raises:
            InputError: an empty task, no agent, an unknown strategy, or a team that does not fit it.
            BudgetExceededError: there is no money left for the rest.
            CertError: the measurement cannot go on.
        """
        task = Task.of(task)
        started = time.monotonic()
        system = self.strategy_system(strategy, num_agents, **parameters)
        measurer = self.measurer(
            replicates=replicates,
            baseline_replicates=1,
            parts=self.evaluator.free if parts is None else parts,
        )
        measured = await measurer.measure(task, system, num_agents, seed)
        seconds = time.monotonic() - started
        metrics = metrics_of(measured, system.strategy.identity, num_agents, seconds)
        await self.hub.deliver_async(
            CoordinationMeasured(
                system=system.name,
                verdict=metrics.verdict,
                tasks=int(metrics.coordinated_quality is not None),
                missing=int(metrics.coordinated_quality is None),
                gamma_budget=metrics.gamma_budget,
                team_micro_dollars=int(metrics.cost["coordinated"] * 1_000_000),
                single_micro_dollars=int((metrics.cost["independent"] + metrics.cost["budget"]) * 1_000_000),
                judge_micro_dollars=int(metrics.cost["judging"] * 1_000_000),
                seconds=seconds,
            )
        )
        return metrics

    def plan(
        self,
        tasks: Sequence[str | Task],
        systems: Sequence[str | Strategy | System] = ("parallel",),
        *,
        num_agents: int = 3,
        **options: Any,
    ) -> SuitePlan:
        """Return the plan of a suite.

        Args:
            tasks: one or more.
            systems: strategies by name, such as ``debate`` or ``debate(rounds=1)``, strategies, or systems of
                the user's own.
            num_agents: of each team, and independent agents beside it.
            **options: of the `SuitePlan`.

        Raises:
            InputError: an unknown strategy, names that occur twice, a number out of range.
        """
        made = [self._system(system, num_agents) for system in systems]
        return SuitePlan(
            tasks=[Task.of(task) for task in tasks], systems=made, num_agents=num_agents, **options
        )

    async def estimate(self, plan: SuitePlan, output_tokens: int = 250) -> Estimate:
        """Estimate what a suite costs, asking nobody; see `cert.coordination.suite.rehearse`."""
        return await rehearse(plan, self._suite_measurer(plan), self.evaluator, output_tokens)

    async def measure_suite(
        self,
        tasks: Sequence[str | Task] | SuitePlan,
        systems: Sequence[str | Strategy | System] = ("parallel",),
        *,
        num_agents: int = 3,
        output_tokens: int = 250,
        on_progress: Callable[[Progress], object] | None = None,
        **options: Any,
    ) -> CoordinationReport:
        """Measure systems on many tasks and say of each whether it is worth it.

        Everything that is paid for is kept in the baseline measurer's store. A suite that was killed, run
        again with the same arguments, goes on where it was; with another name of the ``run`` it starts anew
        and shares the baseline alone.

        Args:
            tasks: one or more, or a plan with all that follows.
            systems: as of `plan`.
            num_agents: as of `plan`.
            output_tokens: expected of each answer, for the estimate of the cost.
            on_progress: told after each measurement.
            **options: of the `SuitePlan`.

        Raises:
            BudgetExceededError: the estimate is above ``max_cost``; nothing was asked.
            InputError: as `plan`.
            CertError: the run cannot go on; what was paid for is kept.
        """
        plan = (
            tasks
            if isinstance(tasks, SuitePlan)
            else self.plan(tasks, systems, num_agents=num_agents, **options)
        )
        started = time.monotonic()
        store = self.baseline_measurer.store
        estimate = await self.estimate(plan, output_tokens)
        if plan.max_cost is not None and estimate.expected > plan.max_cost:
            raise BudgetExceededError(
                f"the suite would cost about ${estimate.expected}, and at most ${plan.max_cost} may be spent",
                hint="fewer tasks, systems or agents, a cheaper model, or a higher limit",
                context={"expected": str(estimate.expected), "max_cost": str(plan.max_cost)},
            )
        run = plan.named(self.evaluator.identity, self.baseline_measurer.scope)
        clients: dict[int, CachedChatClient] = {}
        report = await measure_suite(
            plan,
            self._suite_measurer(
                plan, ObservedEvaluator(keeping(self.evaluator.inner, store, scope=run), self.hub)
            ),
            [kept(system, store, run, clients) for system in plan.systems],
            store,
            run=run,
            estimate=estimate,
            on_progress=on_progress,
        )
        await self._tell(report, time.monotonic() - started)
        return report

    def _system(self, system: str | Strategy | System, num_agents: int) -> System:
        if isinstance(system, str):
            name, parameters = strategies.parse(system)
            made = self.strategy_system(name, num_agents, **parameters)
            return replace(made, label=system) if parameters else made
        if isinstance(system, System):
            return system
        return self.strategy_system(system, num_agents)

    def _suite_measurer(self, plan: SuitePlan, evaluator: Evaluator | None = None) -> TaskMeasurer:
        return self.measurer(
            replicates=plan.replicates,
            baseline_replicates=plan.baseline_replicates,
            parts=self.evaluator.free if plan.parts is None else plan.parts,
            evaluator=evaluator,
        )

    async def _tell(self, report: CoordinationReport, seconds: float) -> None:
        for found in report.findings:
            ratio = found.decision.ratio.value
            await self.hub.deliver_async(
                CoordinationMeasured(
                    system=found.system,
                    verdict=found.verdict,
                    tasks=found.tasks,
                    missing=found.missing,
                    gamma_budget=ratio,
                    team_micro_dollars=micro_dollars(found.team.cost or 0),
                    single_micro_dollars=micro_dollars(found.single.cost or 0),
                    judge_micro_dollars=micro_dollars(found.judge_cost),
                    seconds=seconds,
                )
            )
