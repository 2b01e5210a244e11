"""One agent answers, and each of the others reviews what the one before it left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cert.coordination.strategies.discussion import Discussion
from cert.coordination.strategies.protocol import described
from cert.coordination.strategies.team import Team
from cert.coordination.types import Task, Transcript

__all__ = ["Sequential"]


@dataclass(frozen=True, slots=True)
class Sequential:
    """The first agent answers; each other one corrects or repeats the draft (arXiv 2303.17651, by others).

    n calls, one after the other. Who is absent is left out: the draft goes on to the next, and without one
    yet, the next answers the task. The quorum counts over the whole chain. One agent may be alone.
    """

    name: ClassVar[str] = "sequential"

    @property
    def identity(self) -> str:
        """The name."""
        return described(self)

    async def __call__(self, task: Task, team: Team, /) -> Transcript:
        """Work on a task.

        Raises:
            QuorumError: too many are absent; raised as soon as that is certain.
            CertError: as `Team.ask`.
        """
        talk, prompts = Discussion(self.identity, task, team, ("answer", "review")), team.prompts
        draft: str | None = None
        for agent in team.agents:
            prompt = prompts.answer(task.text) if draft is None else prompts.review(task.text, draft)
            said = await talk.ask(agent, prompt)
            draft = draft if said.text is None else said.text
            team.check_quorum(talk.responses, len(team.agents))
        return talk.close(draft)
