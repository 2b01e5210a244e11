"""All agents answer, then read what the others say and answer again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cert.coordination.prompts import Prompt
from cert.coordination.strategies.discussion import Discussion
from cert.coordination.strategies.protocol import at_least, described
from cert.coordination.strategies.team import Agent, Team
from cert.coordination.types import Task, Transcript
from cert.core.errors import InputError

__all__ = ["Debate"]


@dataclass(frozen=True, slots=True)
class Debate:
    """Multi-agent debate (arXiv 2305.14325).

    n calls at once in the first round and in each round of debate. The majority of the last round is the
    answer, as in the paper, where the team's chooser can tell answers apart; where it cannot, as with free
    text, the aggregator makes one of them, which is one call more. An agent reads the last answer of each of
    the others, also of one who is absent in this round; who has said nothing yet answers the task alone.

    Attributes:
        rounds: of debate, after the first answers. The paper's code counts these as a round, so that its
            "2 rounds" are ``rounds=1`` here.

    Raises:
        InputError: no round; that is a vote.
    """

    rounds: int = 2
    name: ClassVar[str] = "debate"

    def __post_init__(self) -> None:
        if type(self.rounds) is not int or self.rounds < 1:
            raise InputError(f"a debate has 1 round or more, not {self.rounds!r}", hint="none is a vote")

    @property
    def identity(self) -> str:
        """The name and the number of rounds."""
        return described(self)

    async def __call__(self, task: Task, team: Team, /) -> Transcript:
        """Work on a task.

        Raises:
            InputError: nobody debates alone.
            QuorumError: too few answered in a round.
            CertError: as `Team.ask`, and what the chooser raises.
        """
        at_least(2, team, self.name, "nobody debates alone")
        talk = Discussion(self.identity, task, team, ("answer", "debate", "aggregate"))
        said = await talk.answer_alone()
        for _ in range(self.rounds):
            latest = {one.agent: one.text for one in talk.responses if one.text is not None}
            said = await talk.ask_all([(agent, _prompt(talk, agent, latest)) for agent in team.agents])
        final, _ = await talk.choose(said)
        return await talk.aggregate(said) if final is None else talk.close(final)


def _prompt(talk: Discussion, agent: Agent, latest: dict[str, str]) -> Prompt:
    task, own = talk.task.text, latest.get(agent.name)
    others = [
        latest[other.name] for other in talk.team.agents if other.name != agent.name and other.name in latest
    ]
    if own is None or not others:
        return talk.prompts.answer(task)
    return talk.prompts.debate(task, own, others)
