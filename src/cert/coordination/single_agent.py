"""One agent with the budget of a team: as many samples as the team's tokens would pay for, one chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final

from cert.coordination.alike import AnyEquivalence
from cert.coordination.chat import ChatClient
from cert.coordination.prompts import PromptSet, load_prompts
from cert.coordination.strategies.best_of_n import BestOfN
from cert.coordination.strategies.choice import MajorityChooser
from cert.coordination.strategies.protocol import Strategy
from cert.coordination.strategies.team import Agent, Team
from cert.coordination.strategies.vote import Vote
from cert.coordination.systems import Answer, TeamSystem
from cert.coordination.types import Task
from cert.core.errors import InputError

__all__ = ["MOST_SAMPLES", "MatchedAgent", "samples_for"]

MOST_SAMPLES: Final = 64


@dataclass(frozen=True)
class MatchedAgent:
    """Samples one agent k times and chooses: the baseline that a team has to beat.

    Of k answers the majority is taken where a rule can tell which of them say the same; else a selector, who
    must be another model than the judge that scores the answers, picks one. With neither, more samples than
    one cannot be turned into an answer, and there is no such baseline.

    Attributes:
        client: of the agent.
        equivalence: whether two answers say the same.
        selector: picks the best of several answers.
        temperature, max_tokens: of the agent, as the team's.
        system: what it is told before.
        prompts: templates.
        most_samples: k at most.
    """

    client: ChatClient
    _: KW_ONLY
    equivalence: AnyEquivalence | None = None
    selector: Agent | None = None
    temperature: float | None = None
    max_tokens: int = 1024
    system: str | None = None
    prompts: PromptSet = field(default_factory=load_prompts)
    most_samples: int = MOST_SAMPLES
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.most_samples < 1:
            raise InputError(f"most_samples must be 1 or more, not {self.most_samples}")

    @property
    def chooses(self) -> bool:
        """Whether one of several samples can be chosen."""
        return self.equivalence is not None or self.selector is not None

    @property
    def identity(self) -> str:
        """Who is sampled, and how one sample is chosen."""
        return self.of(2).identity if self.chooses else self.of(1).identity

    def of(self, samples: int) -> TeamSystem:
        """Return the system that takes so many samples."""
        options: dict[str, Any] = (
            {} if self.equivalence is None else {"chooser": MajorityChooser(self.equivalence)}
        )
        strategy: Strategy = Vote() if self.equivalence is not None or self.selector is None else BestOfN()
        team = Team.of(
            self.client,
            samples,
            prefix="sample",
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            system=self.system,
            prompts=self.prompts,
            selector=self.selector,
            timeout=self.timeout,
            quorum=1,
            **options,
        )
        return TeamSystem(strategy, team, label="single agent")

    async def answer(self, task: Task, samples: int, *, draw: str, seed: int | None) -> Answer:
        """Sample and choose; the first j of k samples are those of a smaller k.

        Raises:
            BudgetExceededError, ConfigurationError, StoreError: the run cannot go on.
        """
        return await self.of(samples).answer(task, draw=draw, seed=seed)


def samples_for(team_weight: float, sample_weights: Sequence[float], most: int = MOST_SAMPLES) -> int:
    """Return k, the number of samples whose price comes nearest to the team's, at least 1.

    Args:
        team_weight: price-weighted tokens of everything that the team said, retries included.
        sample_weights: of single samples on the same task.
        most: k at most.

    Raises:
        InputError: no sample, or one without any tokens.
    """
    if not sample_weights or min(sample_weights) <= 0.0:
        raise InputError("a budget is matched by samples that took tokens")
    one = sum(sample_weights) / len(sample_weights)
    return min(max(1, round(team_weight / one)), most)
