"""All agents answer at once, and the majority is the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cert.coordination.strategies.discussion import Discussion
from cert.coordination.strategies.protocol import described
from cert.coordination.strategies.team import Team
from cert.coordination.types import Task, Transcript

__all__ = ["Vote"]


@dataclass(frozen=True, slots=True)
class Vote:
    """The answer of the most agents, by the team's chooser (self-consistency, arXiv 2203.11171).

    n calls at once. Where the chooser can't tell the answers apart there is no answer (``undecided``). The
    vote of one agent is its answer: the baseline of one sample is a vote, too.
    """

    name: ClassVar[str] = "vote"

    @property
    def identity(self) -> str:
        """The name."""
        return described(self)

    async def __call__(self, task: Task, team: Team, /) -> Transcript:
        """Work on a task.

        Raises:
            QuorumError: too few answered.
            CertError: as `Team.ask`, and what the chooser raises.
        """
        talk = Discussion(self.identity, task, team)
        return talk.close(*await talk.choose(await talk.answer_alone()))
