"""How much of what a team gains is voting, and how much is talking.

C − I₁ = (V − I₁) + (C − V): C is the quality of the team's answer, I₁ of one agent's first answer, and V of
the vote over the first answers of the same run. Several samples and a vote give much of what is credited to
debate (arXiv 2508.17536).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cert.coordination.consensus import first_round
from cert.coordination.strategies.choice import Chooser
from cert.coordination.types import Task, Transcript
from cert.core.errors import InputError

__all__ = ["Attribution", "attribute", "first_round_vote"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Means over the tasks on which all three qualities are known; the two parts add up to the total.

    Attributes:
        total: mean of C − I₁; ``None`` where no task is complete, like the others.
        voting: mean of V − I₁.
        talking: mean of C − V.
        tasks: that are complete.
        missing: tasks that are not, and are in none of the three.
    """

    total: float | None
    voting: float | None
    talking: float | None
    tasks: int
    missing: int


def attribute(
    single: Sequence[float | None], vote: Sequence[float | None], team: Sequence[float | None]
) -> Attribution:
    """Return what voting and talking add to one agent.

    Args:
        single: I₁ of each task: the first agent's first answer, or the mean over the agents' first answers,
            which expects the same and varies less where the agents are alike.
        vote: V of each task, of the same first answers: `first_round_vote`.
        team: C of each task.

    Raises:
        InputError: there are not as many of each.
    """
    if not len(single) == len(vote) == len(team):
        raise InputError(f"qualities of {len(single)}, {len(vote)} and {len(team)} tasks are no triples")
    complete = [
        (one, voted, said)
        for one, voted, said in zip(single, vote, team, strict=True)
        if one is not None and voted is not None and said is not None
    ]
    n, missing = len(complete), len(single) - len(complete)
    if not complete:
        return Attribution(total=None, voting=None, talking=None, tasks=0, missing=missing)
    return Attribution(
        total=math.fsum(said - one for one, _, said in complete) / n,
        voting=math.fsum(voted - one for one, voted, _ in complete) / n,
        talking=math.fsum(said - voted for _, voted, said in complete) / n,
        tasks=n,
        missing=missing,
    )


async def first_round_vote(
    task: Task, transcript: Transcript, chooser: Chooser
) -> tuple[str | None, str | None]:
    """Return the answer of a vote over a transcript's own first answers, and why there is none.

    No agent is asked: the samples are those of the run, so that the vote and the run differ in the talking
    alone. A sequence has one first answer, and its vote is that one.

    Raises:
        CertError: what the chooser raises.
    """
    answers = [one.text for one in first_round(transcript) if one.text is not None]
    if not answers:
        return None, "absent"
    choice = await chooser.choose(task.text, answers)
    return None if choice.index is None else answers[choice.index], choice.missing
