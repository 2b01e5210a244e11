"""All agents answer at once, and a judge picks the best answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from cert.answers.numbers import find_numbers
from cert.coordination.strategies.discussion import Discussion, answers_of
from cert.coordination.strategies.protocol import described
from cert.coordination.strategies.team import Team
from cert.coordination.types import Task, Transcript
from cert.core.errors import ConfigurationError

__all__ = ["BestOfN"]


@dataclass(frozen=True, slots=True)
class BestOfN:
    """The answer that the team's selector picks, word for word.

    n calls at once and one more, where there is a choice. The selector sees the answers in an order that
    follows from the task and the draw and not from the agents, as judges prefer places. A reply that names no
    answer for certain picks none (``undecided``).
    """

    name: ClassVar[str] = "best_of_n"

    @property
    def identity(self) -> str:
        """The name."""
        return described(self)

    async def __call__(self, task: Task, team: Team, /) -> Transcript:
        """Work on a task.

        Raises:
            ConfigurationError: several agents and no selector.
            QuorumError: too few answered.
            CertError: as `Team.ask`.
        """
        if team.selector is None and len(team.agents) > 1:
            raise ConfigurationError(
                "best_of_n needs a selector",
                hint="Team(…, selector=Agent('selector', client)), and not the judge that scores the answer",
            )
        roles = ("answer",) if len(team.agents) == 1 else ("answer", "select")
        talk = Discussion(self.identity, task, team, roles)
        answers = answers_of(await talk.answer_alone())
        if len(answers) == 1 or team.selector is None:
            return talk.close(answers[0])
        shown = [answers[place] for place in _order(f"{task.id}/{team.draw}", len(answers))]
        said = await talk.ask(team.selector, team.prompts.select(task.text, shown))
        if said.text is None:
            return talk.close_with(said)
        picked = _picked(said.text, len(shown))
        return talk.close(None, "undecided") if picked is None else talk.close(shown[picked])


def _order(drawn: str, size: int) -> list[int]:
    return sorted(range(size), key=lambda place: hashlib.sha256(f"{drawn}/{place}".encode()).digest())


def _picked(reply: str, size: int) -> int | None:
    """Return the place that a reply names, which is the only number in it."""
    values = [number.value for number in find_numbers(reply)]
    if len(values) != 1 or values[0] is None or values[0] not in range(1, size + 1):
        return None
    return int(values[0]) - 1
