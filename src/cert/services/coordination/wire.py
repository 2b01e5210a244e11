"""What callers send, with its limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cert.coordination import strategies
from cert.coordination.types import Task
from cert.core.errors import InputError

__all__ = ["MOST_PARAMETER", "Acknowledgement", "MeasurementRequest", "Rule", "TaskToDo"]

# What no deployment allows more of; an operator's limit on the size of a request is lower.
MOST_TASKS = 1_000
MOST_SYSTEMS = 8
MOST_CALLS = 200_000
MOST_PARAMETER = 20
_LARGEST = 2**63 - 1

Rule: TypeAlias = Literal["exact", "normalized", "numeric", "choice", "regex"]
ModelName = Annotated[str, Field(min_length=1, max_length=200, description="one of GET /v1/models")]
Label = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TaskToDo(_Request):
    """Something that agents are to do."""

    text: Annotated[str, Field(min_length=1, max_length=20_000)]
    id: Annotated[Label | None, Field(description="names it in the result; made of the text by default")] = (
        None
    )
    references: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=10_000)], ...],
        Field(max_length=20, strict=False, description="right answers"),
    ] = ()
    family: Annotated[Label | None, Field(description="tasks of one kind, for drift")] = None
    source: Annotated[Label | None, Field(description="tasks of one source are not independent")] = None

    def task(self) -> Task:
        """Return it as the monitor takes it."""
        return Task(
            self.text, id=self.id or "", references=self.references, family=self.family, source=self.source
        )


class Acknowledgement(_Request):
    """Which alarm was seen."""

    raised_at: Annotated[
        float | None,
        Field(description="of the alarm; where another one stands by now, that is left (409)"),
    ] = None


_EXAMPLE: dict[str, Any] = {
    "tasks": [
        {"text": "What is 17 + 25?", "references": ["42"]},
        {"text": "What is 9 times 8?", "references": ["72"]},
    ],
    "systems": ["vote", "debate(rounds=1)"],
    "agents": 3,
    "evaluator": "numeric",
    "max_cost": "5.00",
}


class MeasurementRequest(_Request):
    """Measure systems of agents on tasks, against one agent that spends the same."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Annotated[Label | None, Field(description="for people")] = None
    tasks: Annotated[tuple[TaskToDo, ...], Field(min_length=1, max_length=MOST_TASKS, strict=False)]
    systems: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...],
        Field(min_length=1, max_length=MOST_SYSTEMS, strict=False, description="such as debate(rounds=1)"),
    ] = ("parallel",)
    model: ModelName | None = None
    evaluator: Annotated[Rule | None, Field(description="compares answers with references")] = None
    judge: Annotated[ModelName | None, Field(description="a model that scores, in place of a rule")] = None
    judge_repeats: Annotated[int, Field(ge=1, le=10)] = 1
    selector: Annotated[ModelName | None, Field(description="picks one of several; not the judge")] = None
    agents: Annotated[int, Field(ge=2, le=16)] = 3
    replicates: Annotated[int, Field(ge=1, le=10)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=16_384)] = 1024
    seed: Annotated[int, Field(ge=0, le=_LARGEST)] | None = None
    margin: Annotated[float, Field(ge=0, le=0.99, description="smallest difference of use")] = 0.025
    sequential: Annotated[bool, Field(description="stop with a system as soon as it is decided")] = False
    concurrency: Annotated[int, Field(ge=1, le=16, description="tasks at work at once")] = 4
    max_cost: (
        Annotated[Decimal, Field(gt=0, le=1_000_000, decimal_places=6, description="dollars", strict=False)]
        | None
    ) = None
    answer_tokens: Annotated[int, Field(ge=1, le=16_384, description="expected, for the estimate")] = 250
    fresh: Annotated[bool, Field(description="ask anew, whatever was answered before")] = False
    watch_drift: Annotated[bool, Field(description="feed the scores to GET /v1/drift")] = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.judge is not None and self.evaluator is not None:
            raise ValueError("give a judge or an evaluator: one of them scores")
        if self.judge is None and any(not task.references for task in self.tasks):
            raise ValueError("a task has no references, and there is no judge: nothing could score it")
        if self.judge is None and self.judge_repeats != 1:
            raise ValueError("judge_repeats plays no part without a judge")
        if self.judge is not None and self.judge == self.selector:
            raise ValueError("the selector is the judge: it would choose what it scores best")
        calls = len(self.tasks) * len(self.systems) * self.agents * self.replicates
        if calls > MOST_CALLS:
            raise ValueError(f"{calls} answers of agents are too many for one measurement")
        return self

    @property
    def total(self) -> int:
        """Measurements of one system on one task."""
        return len(self.tasks) * len(self.systems)

    def check(self) -> None:
        """Refuse tasks and systems that the monitor would refuse, before there is a job.

        Raises:
            InputError: two tasks of one id, an empty task, an unknown strategy or parameter.
        """
        ids = [task.task().id for task in self.tasks]
        if len(set(ids)) < len(ids):
            raise InputError("each task needs its own id, and without one its own text")
        if len(set(self.systems)) < len(self.systems):
            raise InputError("each system is measured once")
        for system in self.systems:
            name, parameters = strategies.parse(system)
            if any(
                isinstance(value, int | float) and abs(value) > MOST_PARAMETER
                for value in parameters.values()
            ):
                raise InputError(f"a parameter of a system is at most {MOST_PARAMETER}")
            strategies.get(name, **parameters)
