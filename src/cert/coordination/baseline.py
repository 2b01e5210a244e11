"""What one agent alone does on a task: independent samples, each evaluated, and each paid for once."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from cert.coordination.chat import ChatClient, Usage
from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.gathering import all_to_their_end
from cert.coordination.prompts import PromptSet, load_prompts
from cert.coordination.store import CachedChatClient, CacheStats, CompletionStore, keeping, open_store
from cert.coordination.strategies.team import Agent, Team
from cert.coordination.types import AgentResponse, Evaluation, Task
from cert.core.errors import InputError
from cert.core.money import dollars

__all__ = ["BaselineMeasurement", "BaselineMeasurer", "BaselineSample"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineSample:
    """One answer of the single agent and how good it is.

    Attributes:
        replicate: its number, which is in its draw.
        response: the answer, or its absence.
        evaluation: of the answer; ``None`` where there is none.
    """

    replicate: int
    response: AgentResponse
    evaluation: Evaluation | None

    @property
    def quality(self) -> float | None:
        """The score, ``None`` where it is missing."""
        return None if self.evaluation is None else self.evaluation.score

    @property
    def missing(self) -> str | None:
        """Why there is no score: why the answer is absent, or its evaluation missing; else ``None``."""
        if self.evaluation is not None:
            return self.evaluation.missing
        return self.response.absent or "not_evaluated"

    @property
    def cost_micro_dollars(self) -> int:
        """What answer and evaluation cost when they were made."""
        return self.response.cost_micro_dollars + (
            self.evaluation.cost_micro_dollars if self.evaluation is not None else 0
        )

    @property
    def paid_micro_dollars(self) -> int:
        """What was paid this time."""
        parts = [part for part in (self.response, self.evaluation) if part is not None]
        return sum(part.cost_micro_dollars for part in parts if not part.from_cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineMeasurement:
    """Independent samples of one agent on one task.

    Attributes:
        task: that was set.
        samples: in the order of their replicates.
        evaluator: who scored them.
        seconds: wall time.
    """

    task: Task
    samples: tuple[BaselineSample, ...]
    evaluator: str
    seconds: float

    @property
    def scores(self) -> tuple[float | None, ...]:
        """The score of each sample, ``None`` for those that are missing."""
        return tuple(sample.quality for sample in self.samples)

    @property
    def missing(self) -> int:
        """How many samples have no score."""
        return sum(score is None for score in self.scores)

    @property
    def quality(self) -> float | None:
        """The mean of the scores that are there, ``None`` where none is; `missing` counts the others."""
        there = [score for score in self.scores if score is not None]
        return math.fsum(there) / len(there) if there else None

    @property
    def standard_deviation(self) -> float | None:
        """Of the scores that are there (n − 1); ``None`` below two of them."""
        there = [score for score in self.scores if score is not None]
        if len(there) < 2:
            return None
        mean = math.fsum(there) / len(there)
        return math.sqrt(math.fsum((score - mean) ** 2 for score in there) / (len(there) - 1))

    @property
    def usage(self) -> Usage:
        """Tokens of the answers."""
        return sum((sample.response.usage for sample in self.samples), Usage())

    @property
    def cost_micro_dollars(self) -> int:
        """What the answers cost when they were made; the judge's cost is apart."""
        return sum(sample.response.cost_micro_dollars for sample in self.samples)

    @property
    def judge_cost_micro_dollars(self) -> int:
        """What the evaluations cost when they were made."""
        return sum(sample.cost_micro_dollars for sample in self.samples) - self.cost_micro_dollars

    @property
    def paid_micro_dollars(self) -> int:
        """What was paid this time, for answers and evaluations."""
        return sum(sample.paid_micro_dollars for sample in self.samples)

    @property
    def cost(self) -> Decimal:
        """What the answers cost when they were made, in exact dollars."""
        return dollars(self.cost_micro_dollars)

    @property
    def paid(self) -> Decimal:
        """What was paid this time, in exact dollars."""
        return dollars(self.paid_micro_dollars)

    @property
    def saved(self) -> Decimal:
        """What answers and evaluations would have cost without a store, less what was paid."""
        return dollars(self.cost_micro_dollars + self.judge_cost_micro_dollars - self.paid_micro_dollars)


class BaselineMeasurer:
    """Measures what one agent does on a task, and pays for each sample once.

    Sample ``i`` has a draw of its own, ``baseline-<i>``, in the key of its answer and of its evaluation: a
    second measurement costs nothing, and no answer passes for several. The agent gets the same words as each
    agent of a team does alone. Evaluations are kept whatever client the evaluator has inside.

    Args:
        client: who answers.
        evaluator: who scores the answers.
        store: where both are kept: a file, the URL of a database, or an open store. ``None`` is the client's
            own store where it has one, else the memory of this object.
        scope: what is measured in one scope is not found in another, and counted apart.
        system: what the agent is told before.
        temperature: ``None`` leaves it to the model.
        max_tokens: of an answer.
        seed: of the samples, where the model has one: each gets its own, made of it.
        prompts: templates.
        timeout: seconds for each answer.

    Attributes:
        client: the one that answers from the store.
        evaluator: the same.
        store: the open one.
        scope: as given.
    """

    def __init__(
        self,
        client: ChatClient,
        evaluator: Evaluator,
        *,
        store: CompletionStore | str | os.PathLike[str] | None = None,
        scope: str = "",
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int = 1024,
        seed: int | None = None,
        prompts: PromptSet | None = None,
        timeout: float | None = None,
    ) -> None:
        cached = client if isinstance(client, CachedChatClient) else None
        if store is None and cached is not None:
            store = cached.store
        self._owns_store = not isinstance(store, CompletionStore)
        self.store = open_store(store)
        self.scope = scope
        if cached is None or cached.store is not self.store:
            cached = CachedChatClient(client, self.store, scope=scope)
        self.client = cached
        self.evaluator = keeping(evaluator, self.store, scope=scope)
        self._agent = Agent("baseline", cached, system, temperature, max_tokens)
        self._seed = seed
        self._prompts = prompts or load_prompts()
        self._timeout = timeout

    async def measure(self, task: str | Task, n: int = 3) -> BaselineMeasurement:
        """Measure a task with n independent samples, all at once.

        Args:
            task: that the agent is set.
            n: samples; two or more tell of their spread.

        Raises:
            InputError: no sample is asked for, or the task is empty.
            BudgetExceededError: there is no money left; what was measured until then is in the store.
            StoreError: the store cannot be used.
            CertError: the run cannot go on, as `Team.ask`.
        """
        task = Task.of(task)
        started = time.monotonic()
        samples = await self.samples(task, n)
        return BaselineMeasurement(
            task=task,
            samples=samples,
            evaluator=self.evaluator.identity,
            seconds=time.monotonic() - started,
        )

    async def samples(
        self, task: str | Task, count: int, start: int = 0, *, evaluate: bool = True
    ) -> tuple[BaselineSample, ...]:
        """Return the samples ``start`` to ``start + count - 1``; those that were made before cost nothing.

        Args:
            task: that the agent is set.
            count: how many.
            start: the replicate of the first.
            evaluate: score them; without it the evaluation is ``None``.

        Raises:
            InputError: a count below 1 or a start below 0.
            CertError: as `measure`.
        """
        if count < 1 or start < 0:
            raise InputError(f"a baseline has 1 sample or more, from 0 on, not {count} from {start}")
        task = Task.of(task)
        return await all_to_their_end(
            self._sample(task, number, evaluate) for number in range(start, start + count)
        )

    async def cache_stats(self) -> CacheStats:
        """Return how much was answered from the store in this scope, and what that saved.

        Raises:
            StoreError: the entries cannot be counted.
        """
        return await self.store.stats(self.scope)

    async def clear(self) -> int:
        """Delete the answers and evaluations of this scope; return how many.

        Raises:
            StoreError: the store cannot be written.
        """
        return await self.store.clear(self.scope)

    async def prune(self, older_than: timedelta) -> int:
        """Delete what was made longer ago, in all scopes; return how many.

        Raises:
            StoreError: the store cannot be written.
        """
        return await self.store.prune(older_than)

    async def aclose(self) -> None:
        """Close the store, unless it was given open.

        Raises:
            StoreError: answers that were paid for could not be kept.
        """
        if self._owns_store:
            await self.store.aclose()

    async def _sample(self, task: Task, replicate: int, evaluate: bool) -> BaselineSample:
        draw = f"baseline-{replicate}"
        team = Team([self._agent], seed=self._seed, prompts=self._prompts, draw=draw, timeout=self._timeout)
        response = await team.ask(self._agent, task, self._prompts.answer(task.text), round=0)
        evaluation = None
        if response.text is not None and evaluate:
            evaluation = await self.evaluator.evaluate(task, response.text, draw=draw)
        return BaselineSample(replicate=replicate, response=response, evaluation=evaluation)
