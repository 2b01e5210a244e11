"""What a suite measures, decided before the first call; the same plan is the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from cert.coordination.statistics.verdict import Rules
from cert.coordination.systems import System
from cert.coordination.types import Task
from cert.core.errors import InputError

__all__ = ["SuitePlan"]


@dataclass(frozen=True, kw_only=True)
class SuitePlan:
    """A suite.

    Attributes:
        tasks: one or more, with ids of their own.
        systems: one or more, with names of their own.
        num_agents: independent agents beside each system.
        replicates: runs of each system on each task.
        baseline_replicates: runs of the single agent; two or more measure its noise.
        rules: of the verdicts.
        sequential: look after each batch of tasks, and stop with a system that is decided.
        batch: tasks between two looks, rounded up to whole sources.
        parts: evaluate each agent's answers, too; ``None`` where an evaluation costs nothing.
        seed: of everything that is drawn, where the models have seeds.
        concurrency: tasks at work at once.
        max_cost: dollars that the whole may cost, by the estimate before it starts and as spent.
        run: its name. By default made of all of the above, of the evaluator and of the baseline: the same
            measurement again goes on with the run, and pays for nothing twice. Another name is a new run,
            which shares the baseline alone.

    Raises:
        InputError: no task or system, names or ids that occur twice, or a number out of range.
    """

    tasks: Sequence[Task]
    systems: Sequence[System]
    num_agents: int = 3
    replicates: int = 1
    baseline_replicates: int = 2
    rules: Rules = field(default_factory=Rules)
    sequential: bool = False
    batch: int = 10
    parts: bool | None = None
    seed: int | None = None
    concurrency: int = 4
    max_cost: Decimal | None = None
    run: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "systems", tuple(self.systems))
        _all_different("task", "id", [task.id for task in self.tasks])
        _all_different("system", "name", [system.name for system in self.systems])
        for name in ("num_agents", "replicates", "baseline_replicates", "batch", "concurrency"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be 1 or more, not {value!r}")
        if self.max_cost is not None and not (self.max_cost.is_finite() and self.max_cost > 0):
            raise InputError(f"max_cost must be above 0 dollars, not {self.max_cost}")

    def named(self, *settings: str) -> str:
        """Return the name of the run.

        Args:
            *settings: whatever else changes the answers: identities of evaluator and baseline.
        """
        if self.run is not None:
            return self.run
        told = {
            "tasks": [[task.id, task.text, list(task.references), task.source] for task in self.tasks],
            "systems": [system.identity for system in self.systems],
            "numbers": [self.num_agents, self.replicates, self.baseline_replicates, self.seed],
            "settings": settings,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def batches(self) -> tuple[tuple[Task, ...], ...]:
        """The tasks in the order in which they are measured; tasks of one source are never apart.

        One batch of all tasks where nobody looks in between.
        """
        if not self.sequential:
            return (tuple(self.tasks),)
        sources: dict[object, list[Task]] = {}
        for task in self.tasks:
            sources.setdefault(task.source or ("task", task.id), []).append(task)
        batches: list[list[Task]] = [[]]
        for together in sources.values():
            if len(batches[-1]) >= self.batch:
                batches.append([])
            batches[-1] += together
        return tuple(map(tuple, batches))


def _all_different(what: str, names: str, given: Sequence[str]) -> None:
    if not given:
        raise InputError(f"a suite needs a {what} or more")
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise InputError(f"each {what} needs its own {names}; twice: {', '.join(twice[:5])}")
