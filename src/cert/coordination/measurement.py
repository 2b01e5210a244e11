"""One system on one task, beside independent agents and beside one agent with the same budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cert.coordination.attribution import first_round_vote
from cert.coordination.baseline import BaselineMeasurer, BaselineSample
from cert.coordination.consensus import (
    Consensus,
    cluster_responses,
    consensus,
    final_round,
    first_round,
)
from cert.coordination.dynamics import RoundChange, oracle_gap, round_changes
from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.gathering import all_to_their_end, both_to_their_end
from cert.coordination.single_agent import MatchedAgent, samples_for
from cert.coordination.strategies.choice import Chooser, MajorityChooser
from cert.coordination.systems import Answer, System, TeamSystem
from cert.coordination.types import Evaluation, Task, Transcript
from cert.core.errors import InputError

__all__ = ["Arm", "Parts", "TaskMeasurement", "TaskMeasurer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """An answer with its quality.

    Attributes:
        answer: what a system made of the task.
        evaluation: of it; missing where there is no answer.
    """

    answer: Answer
    evaluation: Evaluation

    @property
    def score(self) -> float | None:
        """The quality in [0, 1]; ``None`` is not measured."""
        return self.evaluation.score


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a transcript tells beyond its final answer; it takes an evaluation of each response.

    Attributes:
        single: mean score of the agents' first answers; ``None`` is not measured, like the others.
        vote: score of the vote over the same first answers.
        team: score of the final answer.
        changes: from round to round.
        oracle_gap: best score in the pool less the final one.
    """

    single: float | None
    vote: float | None
    team: float | None
    changes: tuple[RoundChange, ...]
    oracle_gap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMeasurement:
    """What was measured of one system on one task.

    Attributes:
        task: that was set.
        system: the system's name.
        coordinated: its runs, one a replicate.
        independents: (R, A) samples of agents that never talk.
        budget: runs of one agent with the system's budget, two or more so that they measure their own noise;
            none where it is not measured.
        samples: k, how many samples that agent took.
        budget_ratio: price-weighted tokens of one such run over those of the system's.
        budget_missing: why there are none, else ``None``.
        consensus: of the last round in which agents gave answers of their own; of the first replicate.
        parts: of the first replicate; ``None`` where they were not asked for.
    """

    task: Task
    system: str
    coordinated: tuple[Arm, ...]
    independents: tuple[tuple[BaselineSample, ...], ...]
    budget: tuple[Arm, ...]
    samples: int | None
    budget_ratio: float | None
    budget_missing: str | None
    consensus: Consensus | None
    parts: Parts | None

    @property
    def transcripts(self) -> tuple[Transcript, ...]:
        """Of the system's runs."""
        return tuple(arm.answer.transcript for arm in self.coordinated if arm.answer.transcript is not None)

    @property
    def judge_micro_dollars(self) -> int:
        """What the judging of all arms cost when it was done; parts of transcripts are not in it."""
        arms = sum(arm.evaluation.cost_micro_dollars for arm in (*self.coordinated, *self.budget))
        samples = (sample.evaluation for row in self.independents for sample in row)
        return arms + sum(one.cost_micro_dollars for one in samples if one is not None)


@dataclass(frozen=True)
class TaskMeasurer:
    """Measures systems task by task; one measurement does not know of another.

    Attributes:
        evaluator: scores the system's answers.
        baseline: samples independent agents, and scores them and the single agent by its own evaluator.
        single: the agent with the system's budget.
        replicates: runs of the system, and rows of independent agents.
        baseline_replicates: runs of the single agent.
        parts: evaluate each response of the transcripts, too.
    """

    evaluator: Evaluator
    baseline: BaselineMeasurer
    single: MatchedAgent
    replicates: int = 1
    baseline_replicates: int = 2
    parts: bool = False

    def __post_init__(self) -> None:
        if self.replicates < 1 or self.baseline_replicates < 1:
            raise InputError("replicates are 1 or more")

    async def measure(self, task: Task, system: System, agents: int, seed: int | None) -> TaskMeasurement:
        """Measure a system on a task.

        Args:
            task: that is set.
            system: that answers it.
            agents: independent agents in a row.
            seed: of everything, where the models have seeds.

        Raises:
            BudgetExceededError, ConfigurationError, StoreError: the run cannot go on; what was paid for is in
                the store, where there is one.
        """
        runs, rows = await both_to_their_end(
            all_to_their_end(self._coordinated(task, system, r, seed) for r in range(self.replicates)),
            self.baseline.samples(task, agents * self.replicates),
        )
        independents = tuple(rows[r * agents : (r + 1) * agents] for r in range(self.replicates))
        samples, budget_missing = self._samples(runs, rows)
        budget: tuple[Arm, ...] = ()
        if samples is not None:
            budget = await all_to_their_end(
                self._single(task, samples, r, seed) for r in range(self.baseline_replicates)
            )
        talk = runs[0].answer.transcript
        chooser = system.team.chooser if isinstance(system, TeamSystem) else MajorityChooser()
        return TaskMeasurement(
            task=task,
            system=system.name,
            coordinated=runs,
            independents=independents,
            budget=budget,
            samples=samples,
            budget_ratio=_ratio(budget, runs),
            budget_missing=budget_missing,
            consensus=None if talk is None else await self._consensus(task, talk),
            parts=await self._parts(task, runs[0], chooser) if self.parts and talk is not None else None,
        )

    async def _coordinated(self, task: Task, system: System, replicate: int, seed: int | None) -> Arm:
        draw = f"{system.name}-{replicate}"
        answer = await system.answer(task, draw=f"run-{replicate}", seed=seed)
        return await _judged(task, answer, self.evaluator, draw)

    async def _single(self, task: Task, samples: int, replicate: int, seed: int | None) -> Arm:
        draw = f"budget-{replicate}"
        answer = await self.single.answer(task, samples, draw=draw, seed=seed)
        return await _judged(task, answer, self.baseline.evaluator, draw)

    def _samples(self, runs: Sequence[Arm], rows: Sequence[BaselineSample]) -> tuple[int | None, str | None]:
        """Return k, or why one agent cannot be given the system's budget."""
        weights = [arm.answer.weight for arm in runs if arm.answer.weight]
        if not weights:
            return None, "the system does not tell what its tokens are worth"
        ones = [self.single.client.weight(sample.response.usage) for sample in rows]
        ones = [weight for weight in ones if weight > 0.0]
        if not ones:
            return None, "no single sample was answered, so that a budget cannot be matched"
        samples = samples_for(sum(weights) / len(weights), ones, self.single.most_samples)
        if samples > 1 and not self.single.chooses:
            return None, (
                f"{samples} samples of one agent cost as much, and nothing can choose among them: give an "
                "equivalence of answers, or a selector that is not the judge"
            )
        return samples, None

    async def _consensus(self, task: Task, transcript: Transcript) -> Consensus:
        return await consensus(task, final_round(transcript), self.single.equivalence)

    async def _parts(self, task: Task, arm: Arm, chooser: Chooser) -> Parts:
        transcript = arm.answer.transcript
        assert transcript is not None
        texts = {said.text for said in transcript.responses if said.text is not None}
        voted, _ = await first_round_vote(task, transcript, chooser)
        scores = await self._scores(task, texts | ({voted} if voted is not None else set()))
        by_response = [None if said.text is None else scores[said.text] for said in transcript.responses]
        firsts = [scores[said.text] for said in first_round(transcript) if said.text is not None]
        clusters = await cluster_responses(task, transcript.responses, self.single.equivalence)
        return Parts(
            single=_mean(firsts),
            vote=None if voted is None else scores[voted],
            team=arm.score,
            changes=round_changes(transcript, by_response, clusters),
            oracle_gap=oracle_gap(transcript, by_response, arm.score),
        )

    async def _scores(self, task: Task, texts: set[str]) -> dict[str, float | None]:
        """Return the score of each text, evaluated once however often it was said."""
        known = sorted(texts)
        found = await all_to_their_end(self.evaluator.evaluate(task, text, draw="parts") for text in known)
        return {text: one.score for text, one in zip(known, found, strict=True)}


async def _judged(task: Task, answer: Answer, evaluator: Evaluator, draw: str) -> Arm:
    if answer.text is not None:
        return Arm(answer=answer, evaluation=await evaluator.evaluate(task, answer.text, draw=draw))
    missing = answer.missing or "no_answer"
    evaluation = Evaluation(score=None, missing=missing, evaluator=evaluator.identity)
    return Arm(answer=answer, evaluation=evaluation)


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(scores) else None


def _ratio(budget: Sequence[Arm], runs: Sequence[Arm]) -> float | None:
    single = [arm.answer.weight for arm in budget if arm.answer.weight]
    team = [arm.answer.weight for arm in runs if arm.answer.weight]
    if not single or not team:
        return None
    return (sum(single) / len(single)) / (sum(team) / len(team))
