"""All agents answer at once, and one answer is made of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cert.coordination.strategies.discussion import Discussion
from cert.coordination.strategies.protocol import at_least, described
from cert.coordination.strategies.team import Team
from cert.coordination.types import Task, Transcript

__all__ = ["Parallel"]


@dataclass(frozen=True, slots=True)
class Parallel:
    """Independent answers, then the team's aggregator (one layer of a mixture of agents, arXiv 2406.04692).

    n calls at once and one more. Without the aggregator's answer there is none (``absent``): taking one of
    the others instead would be another strategy.
    """

    name: ClassVar[str] = "parallel"

    @property
    def identity(self) -> str:
        """The name."""
        return described(self)

    async def __call__(self, task: Task, team: Team, /) -> Transcript:
        """Work on a task.

        Raises:
            InputError: one agent is no team here.
            QuorumError: too few answered.
            CertError: as `Team.ask`.
        """
        at_least(2, team, self.name, "of one answer nothing is to be aggregated")
        talk = Discussion(self.identity, task, team, ("answer", "aggregate"))
        return await talk.aggregate(await talk.answer_alone())
