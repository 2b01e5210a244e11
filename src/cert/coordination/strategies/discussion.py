"""One strategy at work on one task: whom it asks next, what was said so far, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cert.coordination.prompts import Prompt, PromptSet
from cert.coordination.strategies.team import Agent, Team
from cert.coordination.types import AgentResponse, Task, Transcript

__all__ = ["Discussion"]


class Discussion:
    """Asks a team round by round and makes the transcript. One for each task; the rounds count themselves.

    Args:
        strategy: its identity, for the record.
        task: that is worked on.
        team: who works on it.
        roles: of the templates that will be needed.

    Attributes:
        responses: all so far.

    Raises:
        ConfigurationError: the team's prompts lack one of them.
    """

    def __init__(self, strategy: str, task: Task, team: Team, roles: Sequence[str] = ("answer",)) -> None:
        team.prompts.require(*roles)
        self.task = task
        self.team = team
        self.responses: list[AgentResponse] = []
        self._strategy = strategy
        self._round = 0
        self._rule: str | None = None
        self._started = time.monotonic()

    @property
    def prompts(self) -> PromptSet:
        """The team's templates."""
        return self.team.prompts

    async def answer_alone(self) -> tuple[AgentResponse, ...]:
        """Let every agent answer the task, all at once.

        Returns:
            One response an agent, absences included.

        Raises:
            QuorumError: too few answered.
            CertError: as `Team.ask`.
        """
        prompt = self.prompts.answer(self.task.text)
        return await self.ask_all([(agent, prompt) for agent in self.team.agents])

    async def ask_all(self, asked: Sequence[tuple[Agent, Prompt]]) -> tuple[AgentResponse, ...]:
        """Ask several agents at once, which is one round; returns and raises as `answer_alone`."""
        said = await self.team.ask_all(self.task, asked, round=self._round, before=self.responses)
        self._round += 1
        self.responses += said
        return said

    async def ask(self, agent: Agent, prompt: Prompt) -> AgentResponse:
        """Ask one agent, which is one round; there is no quorum of one.

        Raises:
            CertError: as `Team.ask`.
        """
        said = await self.team.ask(agent, self.task, prompt, round=self._round)
        self._round += 1
        self.responses.append(said)
        return said

    async def aggregate(self, said: Sequence[AgentResponse]) -> Transcript:
        """Have one answer made of several, and end with it."""
        prompt = self.prompts.aggregate(self.task.text, answers_of(said))
        return self.close_with(await self.ask(self.team.aggregator or self.team.agents[0], prompt))

    async def choose(self, said: Sequence[AgentResponse]) -> tuple[str | None, str | None]:
        """Return the answer that the team's chooser takes, and why there is none.

        Raises:
            CertError: what the chooser raises.
        """
        answers = answers_of(said)
        self._rule = self.team.chooser.name
        choice = await self.team.chooser.choose(self.task.text, answers)
        return None if choice.index is None else answers[choice.index], choice.missing

    def close_with(self, response: AgentResponse) -> Transcript:
        """End with what one agent said; if that is nothing there is no answer, whatever was said before."""
        return self.close(response.text, None if response.text is not None else "absent")

    def close(self, final: str | None, missing: str | None = None) -> Transcript:
        """End, with an answer or with why there is none."""
        return Transcript(
            strategy=self._strategy,
            task_id=self.task.id,
            responses=tuple(self.responses),
            final=final,
            missing=missing,
            prompts=str(self.prompts),
            quorum=self.team.needed(len(self.team.agents)),
            seconds=time.monotonic() - self._started,
            rule=self._rule,
        )


def answers_of(said: Sequence[AgentResponse]) -> list[str]:
    """Return the texts of those who said something, in their order."""
    return [response.text for response in said if response.text is not None]
