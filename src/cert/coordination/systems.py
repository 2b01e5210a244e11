"""What is measured: a strategy over a team, or any function of the user's that answers tasks."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from cert.coordination.chat import ChatClient, Usage
from cert.coordination.strategies.protocol import Strategy
from cert.coordination.strategies.team import Team
from cert.coordination.types import Task, Transcript
from cert.core.errors import BudgetExceededError, CertError, ConfigurationError, QuorumError, StoreError
from cert.core.money import micro_dollars

__all__ = ["Answer", "FunctionSystem", "System", "TeamSystem", "weight_of"]

# Where these are raised the run cannot go on; whatever else fails, this one answer is missing.
_PASSING = (BudgetExceededError, ConfigurationError, StoreError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a system made of a task.

    Attributes:
        text: the answer; ``None`` where there is none.
        missing: why there is none: of a transcript, ``quorum``, or the code of an error.
        usage: tokens of everything that was said; ``None`` where the system does not tell.
        weight: the same weighted by prices, as `ChatClient.weight` does; ``None`` where it is not known.
        cost_micro_dollars: what it cost; ``None`` where the system does not tell.
        seconds: from the task to the answer, without what a cache saved: of a team, the slowest agent of
            each round.
        transcript: of a team.
    """

    text: str | None
    missing: str | None = None
    usage: Usage | None = None
    weight: float | None = None
    cost_micro_dollars: int | None = None
    seconds: float
    transcript: Transcript | None = None


@runtime_checkable
class System(Protocol):
    """Answers tasks. Safe for many tasks of one event loop at once."""

    @property
    def name(self) -> str:
        """In reports; unique among the systems that are compared."""
        ...

    @property
    def identity(self) -> str:
        """The name with all that changes its answers, for records and for the name of a run."""
        ...

    async def answer(self, task: Task, *, draw: str, seed: int | None) -> Answer:
        """Answer a task.

        Args:
            task: to be answered.
            draw: names one run among several (a replicate).
            seed: of everything that is drawn at random, where the models have seeds.

        Raises:
            BudgetExceededError, ConfigurationError, StoreError: the run cannot go on. Whatever else fails
                gives an answer that is missing.
        """
        ...


@dataclass(frozen=True)
class TeamSystem:
    """A strategy over a team.

    Attributes:
        strategy: how the agents work together.
        team: who they are; its draw and seed are replaced for each run.
        label: the name in reports; by default the strategy's.
    """

    strategy: Strategy
    team: Team
    label: str | None = None

    @property
    def name(self) -> str:
        """The label, or the name of the strategy."""
        return self.label or self.strategy.name

    @property
    def identity(self) -> str:
        """The strategy, agent by agent who they are, the prompts and the rule that chooses."""
        team = self.team
        agents = [*team.agents, *filter(None, (team.aggregator, team.selector))]
        told = "; ".join(
            f"{agent.name}={agent.client.identity.whole} system={agent.system!r} t={agent.temperature} "
            f"max={agent.max_tokens}"
            for agent in agents
        )
        return f"{self.strategy.identity} [{told}; {team.prompts}; {team.chooser.name}; quorum={team.quorum}]"

    async def answer(self, task: Task, *, draw: str, seed: int | None) -> Answer:
        """Let the team work on a task; see `System.answer`."""
        team = replace(self.team, draw=draw, seed=seed)
        started = time.monotonic()
        try:
            transcript = await self.strategy(task, team)
        except QuorumError as error:
            said = Transcript(
                strategy=self.strategy.identity,
                task_id=task.id,
                responses=tuple(error.responses),
                final=None,
                missing="quorum",
                prompts=str(team.prompts),
                quorum=team.needed(len(team.agents)),
                seconds=time.monotonic() - started,
            )
            return _answer_of(said, team)
        return _answer_of(transcript, team)


@dataclass(frozen=True)
class FunctionSystem:
    """Any asynchronous function of the user's that answers a task.

    It returns a text; or a mapping with ``text`` and, where it knows them, ``usage`` (a `Usage` or a mapping
    of its fields), ``cost`` (dollars, a Decimal) and ``transcript``. Without usage or cost nothing can be
    said of the same budget spent on one agent: γ_budget is then not measured.

    Attributes:
        label: the name in reports.
        function: takes the task, returns the answer; what it raises makes this answer missing.
        client: prices the tokens; ``None`` leaves the weight unknown.
        version: changes the identity when the function changes what it does.
    """

    label: str
    function: Callable[[Task], Awaitable[Any]]
    client: ChatClient | None = None
    version: str = "1"

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    @property
    def identity(self) -> str:
        """The label, the function's name and the version."""
        told = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        return f"{self.label} [{told}, version {self.version}]"

    async def answer(self, task: Task, *, draw: str, seed: int | None) -> Answer:  # noqa: ARG002
        """Call the function; see `System.answer`."""
        started = time.monotonic()
        try:
            said = await self.function(task)
        except _PASSING:
            raise
        except CertError as error:
            return Answer(text=None, missing=error.code, seconds=time.monotonic() - started)
        except Exception as error:
            return Answer(
                text=None, missing=f"error: {type(error).__name__}", seconds=time.monotonic() - started
            )
        return self._read(said, time.monotonic() - started)

    def _read(self, said: Any, seconds: float) -> Answer:
        fields: Mapping[str, Any] = said if isinstance(said, Mapping) else {"text": said}
        text, usage, cost = fields.get("text"), fields.get("usage"), fields.get("cost")
        if text is not None and not isinstance(text, str):
            raise ConfigurationError(
                f"the system '{self.label}' answers with {type(text).__name__}",
                hint="a text, or a mapping with 'text'",
            )
        if isinstance(usage, Mapping):
            usage = Usage(**usage)
        if usage is not None and not isinstance(usage, Usage):
            raise ConfigurationError(f"the usage of '{self.label}' is {type(usage).__name__}")
        answered = text is not None and bool(text.strip())
        return Answer(
            text=text if answered else None,
            missing=None if answered else "empty",
            usage=usage,
            weight=self.client.weight(usage) if self.client and usage else None,
            cost_micro_dollars=None if cost is None else micro_dollars(cost),
            seconds=seconds,
            transcript=fields.get("transcript"),
        )


def weight_of(transcript: Transcript, team: Team) -> float:
    """Return the tokens of a transcript weighted by the prices of whoever said what."""
    clients = {
        agent.name: agent.client for agent in (*filter(None, (team.aggregator, team.selector)), *team.agents)
    }
    return sum(clients[said.agent].weight(said.usage) for said in transcript.responses)


def _answer_of(transcript: Transcript, team: Team) -> Answer:
    return Answer(
        text=transcript.final,
        missing=transcript.missing,
        usage=transcript.usage,
        weight=weight_of(transcript, team),
        cost_micro_dollars=transcript.cost_micro_dollars,
        seconds=transcript.critical_path_seconds,
        transcript=transcript,
    )
