"""What a strategy is: a callable with a name that takes a task and a team and gives a transcript."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Protocol

from cert.coordination.strategies.team import Team
from cert.coordination.types import Task, Transcript
from cert.core.errors import InputError

__all__ = ["Strategy", "at_least", "described"]


class Strategy(Protocol):
    """A way in which agents work together. Safe for many tasks at once: what it needs is in the arguments."""

    @property
    def name(self) -> str:
        """Of the strategy."""
        ...

    @property
    def identity(self) -> str:
        """The name with all parameters, such as ``debate(rounds=2)``, for records."""
        ...

    async def __call__(self, task: Task, team: Team, /) -> Transcript:
        """Work on a task.

        Raises:
            InputError: the team does not fit the strategy.
            QuorumError: too few agents answered in a round.
            CertError: the run cannot go on, as in `Team.ask`.
        """
        ...


def described(strategy: Any) -> str:
    """Return the name of a strategy that is a dataclass, with its fields as parameters."""
    values = [f"{one.name}={getattr(strategy, one.name)}" for one in fields(strategy)]
    return f"{strategy.name}({', '.join(values)})" if values else str(strategy.name)


def at_least(agents: int, team: Team, strategy: str, reason: str) -> None:
    """Check the size of a team.

    Raises:
        InputError: it is too small, with the reason.
    """
    if len(team.agents) < agents:
        raise InputError(
            f"{strategy} needs {agents} agents or more, not {len(team.agents)}: {reason}",
            hint="more agents, or another strategy",
        )
