"""What a suite would cost: its strategies run through with a client that only counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from cert.coordination.alike import WrittenAlike
from cert.coordination.chat import ChatClient, ChatIdentity, ChatRequest, Completion, Message, Usage
from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.measurement import TaskMeasurer
from cert.coordination.single_agent import samples_for
from cert.coordination.strategies.choice import MajorityChooser
from cert.coordination.strategies.team import Agent, Team
from cert.coordination.suite.plan import SuitePlan
from cert.coordination.systems import TeamSystem, weight_of
from cert.coordination.types import Task
from cert.core.errors import QuorumError
from cert.core.money import dollars

__all__ = ["BYTES_A_TOKEN", "Estimate", "rehearse"]

BYTES_A_TOKEN: Final = 4
"""Of English text, by the rule of thumb that vendors give."""
_WORD: Final = "word "


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a suite would cost without a store.

    Attributes:
        calls: of models, judges included.
        expected: dollars, if each answer has the expected length.
        at_most: dollars, if each answer is as long as it may be and nothing fails; failed attempts that are
            billed come on top.
        unknown: systems and evaluators of which nothing is known beforehand.
        output_tokens: the expected length.
    """

    calls: int
    expected: Decimal
    at_most: Decimal
    unknown: tuple[str, ...] = ()
    output_tokens: int


async def rehearse(
    plan: SuitePlan, measurer: TaskMeasurer, evaluator: Evaluator, output_tokens: int = 250
) -> Estimate:
    """Estimate the cost of a suite; asks nobody.

    Every strategy runs with a client that answers at once with a text of the expected length, so that calls
    and the growth of prompts are those of the strategy, the user's own included.

    Args:
        plan: of the suite.
        measurer: with the single agent that it would use.
        evaluator: that would score; one that is neither free nor has a method ``through`` is unknown.
        output_tokens: expected of each answer.
    """
    till = _Till(output_tokens)
    unknown: list[str] = []
    judge: Any = till.judge(evaluator)
    if judge is None and not getattr(evaluator, "free", False):
        unknown.append(type(evaluator).__name__)
    answer = _WORD * output_tokens
    for task in plan.tasks:
        alone = await _independents(till, measurer, task, plan)
        evaluations = plan.num_agents * plan.replicates
        for system in plan.systems:
            if not isinstance(system, TeamSystem):
                unknown.append(system.name)
                continue
            weight = await _team(till, system, task, plan.replicates)
            samples = samples_for(weight, alone, measurer.single.most_samples) if alone and weight else 1
            if samples == 1 or measurer.single.chooses:
                await _single(till, measurer, task, samples, plan.baseline_replicates)
                evaluations += plan.baseline_replicates
            evaluations += plan.replicates
        if judge is not None:
            # Each evaluation of a task costs the same here: one is made, and counted as often as it takes.
            before = till.total
            await judge.evaluate(task, answer)
            till.repeat(before, evaluations - 1)
    return Estimate(
        calls=till.total[0],
        expected=dollars(till.total[1]),
        at_most=dollars(till.total[2]),
        unknown=tuple(dict.fromkeys(unknown)),
        output_tokens=output_tokens,
    )


class _Till:
    """Counts calls and their prices.

    Attributes:
        total: calls, expected and largest cost in micro-dollars.
    """

    def __init__(self, output_tokens: int) -> None:
        self.total = (0, 0, 0)
        self.output_tokens = output_tokens

    def book(self, expected: int, at_most: int) -> None:
        calls, so_far, most = self.total
        self.total = (calls + 1, so_far + expected, most + at_most)

    def repeat(self, before: tuple[int, int, int], times: int) -> None:
        """Count what was booked since ``before`` so many times more."""
        a, b, c = (now + (now - then) * times for now, then in zip(self.total, before, strict=True))
        self.total = (a, b, c)

    def stand_in(self, client: ChatClient) -> ChatClient:
        return _Counting(client, self)

    def judge(self, evaluator: Evaluator) -> Any:
        inner = evaluator
        while not hasattr(inner, "through") and hasattr(inner, "inner"):
            inner = inner.inner
        return inner.through(self.stand_in) if hasattr(inner, "through") else None


class _Counting:
    """Answers each request with a text of the expected length, and counts what it would have cost."""

    supports_tools = True

    def __init__(self, inner: ChatClient, till: _Till) -> None:
        self._inner = inner
        self._till = till

    @property
    def identity(self) -> ChatIdentity:
        return self._inner.identity

    def most(self, request: ChatRequest, /) -> int:
        return self._inner.most(request)

    def cost(self, usage: Usage, /) -> int:
        return self._inner.cost(usage)

    def weight(self, usage: Usage, /) -> float:
        return self._inner.weight(usage)

    async def complete(
        self,
        prompt: str | Sequence[Message] | ChatRequest,
        /,
        *,
        agent: str | None = None,  # noqa: ARG002  # the protocol's
        timeout: float | None = None,  # noqa: ARG002  # the same
        **options: Any,
    ) -> Completion:
        request = ChatRequest.of(prompt, **options)
        read = len((request.system or "").encode()) + sum(
            len(message.content.encode()) for message in request.messages
        )
        written = min(request.max_tokens, self._till.output_tokens)
        usage = Usage(-(-read // BYTES_A_TOKEN), written)
        cost = self.cost(usage)
        self._till.book(cost, self.most(request))
        return Completion(
            text=_WORD * written,
            model=self.identity.model,
            usage=usage,
            cost_micro_dollars=cost,
            latency_seconds=0.0,
            finish="stop",
        )

    async def aclose(self) -> None:
        return None


async def _independents(till: _Till, measurer: TaskMeasurer, task: Task, plan: SuitePlan) -> list[float]:
    count = plan.num_agents * plan.replicates
    single = measurer.single
    team = _counting(till, single.of(1).team)
    before = till.total
    said = await team.ask(team.agents[0], task, team.prompts.answer(task.text), round=0)
    till.repeat(before, count - 1)
    return [single.client.weight(said.usage)]


async def _team(till: _Till, system: TeamSystem, task: Task, replicates: int) -> float:
    """Run a strategy through and return the weight of what was said."""
    team = _counting(till, system.team)
    before = till.total
    try:
        transcript = await system.strategy(task, team)
    except QuorumError:
        return 0.0
    till.repeat(before, replicates - 1)
    return weight_of(transcript, team)


async def _single(till: _Till, measurer: TaskMeasurer, task: Task, samples: int, replicates: int) -> None:
    system = measurer.single.of(samples)
    before = till.total
    await system.strategy(task, _counting(till, system.team))
    till.repeat(before, replicates - 1)


def _counting(till: _Till, team: Team) -> Team:
    def stand_in(agent: Agent | None) -> Agent | None:
        return None if agent is None else replace(agent, client=till.stand_in(agent.client))

    return replace(
        team,
        agents=[replace(agent, client=till.stand_in(agent.client)) for agent in team.agents],
        aggregator=stand_in(team.aggregator),
        selector=stand_in(team.selector),
        chooser=MajorityChooser(WrittenAlike()),  # whatever the team's costs, these texts are all alike
    )
