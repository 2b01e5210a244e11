"""Whether one system says the same when it is asked the same again. Consistency is no quality.

Of n repeats in clusters that say the same, with n_c in cluster c:

- the share of the largest cluster, max n_c / n, in [1/n, 1]. Few repeats flatter it.
- pairwise agreement, Σ n_c(n_c − 1) / (n(n − 1)): the probability that two repeats say the same, without
  bias for every n; the one to compare where numbers of repeats differ.
- semantic entropy, −Σ (n_c/n) ln(n_c/n) in nats, in [0, ln n]; biased low (`cert.signals.samples`).
- the standard deviation of the scores.

Repeats are independent runs; agents of one transcript are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cert.answers.cluster import Clustering
from cert.coordination.alike import AnyEquivalence
from cert.coordination.baseline import BaselineMeasurement, BaselineSample
from cert.coordination.consensus import consensus_of_answers
from cert.coordination.measurement import TaskMeasurement
from cert.coordination.statistics.inference import difference
from cert.coordination.statistics.pairs import pair
from cert.coordination.types import Interval, Task, Transcript
from cert.core.errors import InputError
from cert.signals.samples import discrete_semantic_entropy

__all__ = ["Consistency", "OverTasks", "Repeat", "SystemConsistency", "consistency", "over_tasks", "repeats"]


@dataclass(frozen=True, slots=True)
class Repeat:
    """One run of a system on a task.

    Attributes:
        text: the answer; ``None`` where there is none.
        score: its quality in [0, 1]; ``None`` is not measured.
    """

    text: str | None
    score: float | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise InputError(f"a score is in [0, 1], or None where it is missing, not {self.score}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """How far the repeats of one task agree.

    Where pairs of answers are undecided the numbers are ``None`` and the intervals say where they are: from
    all of those pairs different to all of them the same.

    Attributes:
        task: that was set.
        answers: n, of the repeats that have an answer.
        absent: how many have none; they neither agree nor disagree.
        largest, largest_interval: share of the largest cluster.
        pairwise, pairwise_interval: pairwise agreement.
        entropy, entropy_interval: semantic entropy in nats, of counts.
        score_deviation: standard deviation of the scores (n − 1); ``None`` below two of them.
        scored: repeats with a score.
        clustering: of the answers; ``None`` below two of them.
        missing: why there is no agreement: ``undecided``, ``too_few`` (less than two answers), else ``None``.
    """

    task: Task
    answers: int
    absent: int
    largest: float | None
    largest_interval: Interval | None
    pairwise: float | None
    pairwise_interval: Interval | None
    entropy: float | None
    entropy_interval: Interval | None
    score_deviation: float | None
    scored: int
    clustering: Clustering | None
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverTasks:
    """A mean over tasks.

    Attributes:
        value: of the measured tasks; ``None`` where undecided pairs leave it open, or nothing is measured.
        bounds: where it is among these tasks, whatever the undecided pairs are; no width without them.
        interval: over sources, and over the undecided pairs: the low end of that of the low ends, the high
            end of that of the high ends. ``None`` where nothing is measured.
        tasks, sources: that are measured, and independent units among them.
        missing: why there is no value, else ``None``.
    """

    value: float | None
    bounds: Interval | None
    interval: Interval | None
    tasks: int
    sources: int
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemConsistency:
    """How far a system agrees with itself, over many tasks.

    Attributes:
        largest, pairwise, entropy: means over tasks; the entropy only where all tasks have as many answers,
            since its ceiling is ln n.
        score_deviation: √ of the mean over tasks of the variance of the scores within a task.
        tasks: all that were given.
        too_few: those with less than two answers, which tell nothing and are left out.
        undecided: those with undecided pairs, which are in the bounds.
        absent: repeats without an answer, of all tasks.
    """

    largest: OverTasks
    pairwise: OverTasks
    entropy: OverTasks
    score_deviation: OverTasks
    tasks: int
    too_few: int
    undecided: int
    absent: int


def repeats(
    measured: TaskMeasurement | BaselineMeasurement | Sequence[BaselineSample] | Sequence[Transcript],
) -> tuple[Repeat, ...]:
    """Return the repeats that a measurement holds: a system's replicates, or a single agent's samples.

    Of transcripts their final answers, without scores.
    """
    if isinstance(measured, TaskMeasurement):
        return tuple(Repeat(arm.answer.text, arm.score) for arm in measured.coordinated)
    if isinstance(measured, BaselineMeasurement):
        measured = measured.samples
    return tuple(
        Repeat(one.final) if isinstance(one, Transcript) else Repeat(one.response.text, one.quality)
        for one in measured
    )


async def consistency(
    task: Task | str, said: Sequence[Repeat], rule: AnyEquivalence | None = None
) -> Consistency:
    """Return how far repeats of one task agree.

    Args:
        task: that was set.
        said: the repeats, two or more; their order plays no part.
        rule: whether two answers say the same; by default what the writing tells, which leaves free text
            undecided (`cert.coordination.alike.same_answer` puts a reader behind it).

    Raises:
        CertError: what the rule raises.
    """
    agreed = await consensus_of_answers(task, [one.text for one in said], rule)
    scores = [one.score for one in said if one.score is not None]
    clusters = agreed.clustering
    # More merging is less entropy.
    ends = (
        None
        if clusters is None
        else (discrete_semantic_entropy(clusters.coarsest), discrete_semantic_entropy(clusters.finest))
    )
    return Consistency(
        task=Task.of(task),
        answers=agreed.answers,
        absent=agreed.absent,
        largest=agreed.rate,
        largest_interval=agreed.rate_interval,
        pairwise=agreed.pairwise,
        pairwise_interval=agreed.pairwise_interval,
        entropy=ends[0] if ends is not None and agreed.missing is None else None,
        entropy_interval=None
        if ends is None
        else Interval(*ends, 1.0, "all undecided pairs the same, and all different"),
        score_deviation=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        scored=len(scores),
        clustering=clusters,
        missing=agreed.missing,
    )


def over_tasks(tasks: Sequence[Consistency], level: float = 0.95) -> SystemConsistency:
    """Return a system's consistency over tasks.

    The mean of values v in [0, 1] is estimated as the paired difference of v and 1 − v, which is 2v − 1 and
    ranges over all of [−1, 1]: so the intervals are those of `cert.coordination.statistics.inference` (score,
    betting or cluster-robust t). Tasks of one source are not independent.

    Raises:
        InputError: there is no task.
    """
    if not tasks:
        raise InputError("consistency over tasks takes one task or more")
    known = [one for one in tasks if one.clustering is not None]
    sizes = {one.answers for one in known}
    ceiling = math.log(max(sizes)) if sizes else 1.0
    entropy = _mean(known, lambda one: one.entropy_interval, ceiling, level)
    if len(sizes) > 1:
        entropy = _nothing("the tasks have different numbers of answers, whose entropies do not compare")
    return SystemConsistency(
        largest=_mean(known, lambda one: one.largest_interval, 1.0, level),
        pairwise=_mean(known, lambda one: one.pairwise_interval, 1.0, level),
        entropy=entropy,
        score_deviation=_deviation(tasks, level),
        tasks=len(tasks),
        too_few=len(tasks) - len(known),
        undecided=sum(one.missing == "undecided" for one in tasks),
        absent=sum(one.absent for one in tasks),
    )


def _mean(
    tasks: Sequence[Consistency],
    measure: Callable[[Consistency], Interval | None],
    most: float,
    level: float,
) -> OverTasks:
    """Return the mean of a measure in [0, most], from each task's ends."""
    ends = [found for found in map(measure, tasks) if found is not None]
    if not ends:
        return _nothing("no task has two answers")
    sources = [one.task.source or ("task", one.task.id) for one in tasks]
    low = np.array([end.low for end in ends]) / most
    high = np.array([end.high for end in ends]) / most
    lower, upper = (
        difference(pair(np.clip(end, 0, 1), 1 - np.clip(end, 0, 1), sources), level) for end in (low, high)
    )
    open_ = bool((low < high).any())
    method = lower.interval.method + (" at both ends of the undecided pairs" if open_ else "")
    return OverTasks(
        value=None if open_ else most * float(low.mean()),
        bounds=Interval(most * float(low.mean()), most * float(high.mean()), 1.0, "undecided pairs"),
        interval=Interval(
            most * (lower.interval.low + 1.0) / 2.0, most * (upper.interval.high + 1.0) / 2.0, level, method
        ),
        tasks=lower.tasks,
        sources=lower.sources,
        missing="undecided" if open_ else None,
    )


def _deviation(tasks: Sequence[Consistency], level: float) -> OverTasks:
    """Return the spread within tasks; twice a variance of two or more scores in [0, 1] is in [0, 1]."""
    scored = [one for one in tasks if one.score_deviation is not None]
    if not scored:
        return _nothing("no task has two scores")

    def twice_variance(one: Consistency) -> Interval:
        value = 2.0 * (one.score_deviation or 0.0) ** 2
        return Interval(value, value, 1.0, "variance")

    found = _mean(scored, twice_variance, 1.0, level)
    assert found.value is not None
    assert found.interval is not None
    value = math.sqrt(found.value / 2.0)
    low, high = (math.sqrt(max(0.0, end) / 2.0) for end in (found.interval.low, found.interval.high))
    return OverTasks(
        value=value,
        bounds=Interval(value, value, 1.0, "none is undecided"),
        interval=Interval(low, high, level, found.interval.method),
        tasks=found.tasks,
        sources=found.sources,
    )


def _nothing(missing: str) -> OverTasks:
    return OverTasks(value=None, bounds=None, interval=None, tasks=0, sources=0, missing=missing)
