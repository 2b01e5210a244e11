"""A job as its store knows it, and the right to work on one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

__all__ = ["FINAL", "Claim", "Job", "JobEvent", "JobState", "Standing"]

JobState: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: Final[tuple[JobState, ...]] = ("succeeded", "failed", "cancelled")
# What a sign of life is answered with.
Standing: TypeAlias = Literal["held", "cancel", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measurement.

    Attributes:
        number: its place in the list of all jobs.
        id: public name.
        tenant: whose it is.
        state: where it is.
        created_at, started_at, finished_at: seconds since 1970, UTC.
        request: what was asked, JSON-ready.
        done, total: measurements of one system on one task.
        spent_micro_dollars: by all replicas that worked on it.
        saved_micro_dollars: what answers that were there already would have cost.
        cancel_requested: somebody wants its end.
        error: why it failed: the members of a problem.
        summary: what was found, in short; ``None`` before its end.
    """

    number: int
    id: str
    tenant: str
    state: JobState
    created_at: float
    started_at: float | None
    finished_at: float | None
    request: dict[str, Any]
    done: int
    total: int
    spent_micro_dollars: int
    saved_micro_dollars: int
    cancel_requested: bool
    error: dict[str, Any] | None
    summary: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job, as long as its lease is renewed.

    Attributes:
        job: what is to be done.
        fence: of this claim alone; a later claim has a larger one, and what an earlier one writes is refused.
        deaths: how often whoever worked on it before was never heard of again.
    """

    job: Job
    fence: int
    deaths: int


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        number: 1, 2, … within the job; a reader resumes after it.
        name: ``state`` or ``progress``.
        data: JSON-ready.
    """

    number: int
    name: str
    data: dict[str, Any]
