"""What goes in and out of the coordination monitor: tasks, transcripts, evaluations and metrics."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from cert.coordination.chat import ChatFinish, Usage
from cert.core.errors import InputError
from cert.core.money import dollars

__all__ = [
    "SCHEMA_VERSION",
    "AgentResponse",
    "Evaluation",
    "Interval",
    "Task",
    "Transcript",
    "Verdict",
]

SCHEMA_VERSION = 1

Verdict: TypeAlias = Literal["worth_it", "not_worth_it", "not_enough_data"]


@dataclass(frozen=True, slots=True)
class Task:
    """Something that agents are to do.

    Attributes:
        text: what they are told.
        id: names it in records; by default made of the text.
        references: accepted answers, where there are any.
        family: tasks of one kind, for drift.
        source: tasks with one source (a document, a customer) are not independent: the unit of intervals.
        metadata: for the user's own evaluators; kept in records, never sent.

    Raises:
        InputError: the text is empty, or a text holds half of a surrogate pair, which is no character.
    """

    text: str
    id: str = ""
    references: tuple[str, ...] = ()
    family: str | None = None
    source: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InputError("the task is empty")
        try:
            for text in (self.text, *self.references):
                text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"the task holds half of a surrogate pair at place {error.start}, which is no character"
            ) from error
        if not self.id:
            object.__setattr__(self, "id", hashlib.sha256(self.text.encode()).hexdigest()[:12])

    @classmethod
    def of(cls, task: str | Task) -> Task:
        """Return the task of a text."""
        return task if isinstance(task, Task) else cls(task)


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval estimate.

    Attributes:
        low, high: its ends; infinite where the data bound nothing.
        level: its confidence, such as 0.95.
        method: how it was made.
    """

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResponse:
    """What one agent said in one round, or that it said nothing.

    Attributes:
        agent: its name.
        round: 0 for the first.
        role: of the prompt: ``answer``, ``review``, ``debate``, ``aggregate``, ``select``.
        text: the answer; ``None`` where the agent is absent.
        absent: why it is (the ``code`` of an error, ``refusal``, ``empty``), else ``None``.
        prompt_sha256: of what it was told.
        template: name, version and hash of the template.
        model: that answered.
        usage: tokens; also of an answer that came to nothing.
        cost_micro_dollars: the same in money.
        seconds: from asking to the answer, waiting and retries included; of an answer that was there already,
            those of the attempt that once made it.
        finish: why the answer ended.
        attempts: how often it was tried.
        from_cache: the answer was there already.
    """

    agent: str
    round: int
    role: str
    text: str | None
    absent: str | None = None
    prompt_sha256: str
    template: str
    model: str
    usage: Usage = field(default_factory=Usage)
    cost_micro_dollars: int = 0
    seconds: float = 0.0
    finish: ChatFinish = "unknown"
    attempts: int = 1
    from_cache: bool = False

    @property
    def cost(self) -> Decimal:
        """What it cost, in exact dollars."""
        return dollars(self.cost_micro_dollars)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """Everything that was said about a task, and the answer that came of it.

    Attributes:
        strategy: by which, with its parameters, such as ``debate(rounds=2)``.
        task_id: of the task.
        responses: of all agents, by rounds.
        final: the answer; ``None`` where there is none.
        missing: why there is none: ``tie``, ``undecided`` (no rule could tell the answers apart), ``absent``
            (whoever had to give it said nothing), else ``None``.
        prompts: version and hash of the set of prompts.
        quorum: agents that had to answer in each round.
        seconds: wall time.
        rule: by which answers were compared, where they were.
    """

    strategy: str
    task_id: str
    responses: tuple[AgentResponse, ...]
    final: str | None
    missing: str | None = None
    prompts: str
    quorum: int
    seconds: float
    rule: str | None = None

    @property
    def usage(self) -> Usage:
        """Tokens of all responses."""
        return sum((response.usage for response in self.responses), Usage())

    @property
    def cost_micro_dollars(self) -> int:
        """What all responses cost."""
        return sum(response.cost_micro_dollars for response in self.responses)

    @property
    def cost(self) -> Decimal:
        """What all responses cost, in exact dollars."""
        return dollars(self.cost_micro_dollars)

    @property
    def rounds(self) -> tuple[tuple[AgentResponse, ...], ...]:
        """The responses of each round."""
        numbers = sorted({response.round for response in self.responses})
        return tuple(
            tuple(response for response in self.responses if response.round == number) for number in numbers
        )

    @property
    def critical_path_seconds(self) -> float:
        """Seconds of the slowest agent of each round, added up: what cannot be made faster by more agents."""
        return sum(max(response.seconds for response in said) for said in self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good an answer is, or that this is not known.

    Attributes:
        score: in [0, 1], higher is better; ``None`` is not measured.
        missing: why it is not, else ``None``.
        evaluator: who says so, with all that changes its scores.
        scores: of each repeat and judge, judge by judge, ``None`` for those that are missing.
        n_judges: whose scores these are, each with as many repeats.
        reasons: why each of the missing scores is, ``None`` for the others.
        criteria: the score of each criterion, where there are any.
        usage, cost_micro_dollars: of the judging, which is not the answer's.
        from_cache: all of it was there already.
    """

    score: float | None
    missing: str | None = None
    evaluator: str
    scores: tuple[float | None, ...] = ()
    n_judges: int = 1
    reasons: tuple[str | None, ...] = ()
    criteria: Mapping[str, float] = field(default_factory=dict)
    rationale: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_micro_dollars: int = 0
    from_cache: bool = False

    def __post_init__(self) -> None:
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise InputError(f"a score is in [0, 1], not {self.score}")
        if (self.score is None) == (self.missing is None):
            raise InputError("an evaluation has a score or says why it is missing")


def __getattr__(name: str) -> Any:
    """Find the types of version 4 that are made of others, and so stand in modules of their own."""
    homes = {
        "BaselineMeasurement": "cert.coordination.baseline",
        "CoordinationMetrics": "cert.coordination.metrics",
    }
    if name in homes:
        return getattr(importlib.import_module(homes[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
