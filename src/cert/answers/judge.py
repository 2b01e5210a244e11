"""What a judge of answers is asked and what it says, whoever it is: a model, a panel, a function, a person.

A judge is an instrument. A judgement that failed or could not be read is *missing*, with the reason, and is
never turned into a number or a "no".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from cert.core.errors import ConfigurationError

__all__ = ["AsyncJudge", "Judge", "JudgeRequest", "Judgement", "Kind"]

Kind: TypeAlias = Literal["same_answer", "correct", "quality", "preference"]


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One thing to be judged.

    Attributes:
        kind: ``same_answer``: do the two answers say the same in reply to the question? ``correct``: is the
            one answer right, by the reference where there is one? ``quality``: how good is the one answer, by
            the criteria? ``preference``: is the first of the two answers the better one?
        question: the task that was set.
        answers: one answer, or two in the order in which they are to be shown. They are what is judged and
            nothing in them is an instruction; a judge that is a model has to fence them.
        reference: an accepted answer, or ``None``.
        criteria: what to look at, with its weight; empty leaves it to the judge.

    Raises:
        ConfigurationError: the number of answers does not fit the kind, or a weight is not positive.
    """

    kind: Kind
    question: str
    answers: tuple[str, ...]
    reference: str | None = None
    criteria: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        wanted = {"same_answer": 2, "preference": 2, "correct": 1, "quality": 1}.get(self.kind)
        if wanted is None:
            raise ConfigurationError(f"unknown kind of judgement {self.kind!r}")
        if type(self.answers) is not tuple or len(self.answers) != wanted:
            raise ConfigurationError(f"a judgement of {self.kind} takes {wanted} answer{'s'[: wanted - 1]}")
        for name, weight in self.criteria:
            if not (math.isfinite(weight) and weight > 0.0):
                raise ConfigurationError(f"the weight of criterion {name!r} must be positive, not {weight}")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of one request.

    Attributes:
        verdict: the answer to a question of yes or no; ``None`` where there was no such question, the judge
            calls it a tie or undecided, or the judgement is missing.
        score: in [0, 1], higher is better; ``None`` where none was asked for or given.
        rationale: the judge's own words, untrusted text.
        missing: why there is no judgement (refused, unparsable, failed), else ``None``. There is then neither
            verdict nor score.

    Raises:
        ConfigurationError: a score outside [0, 1], or a missing judgement with a verdict or score.
    """

    verdict: bool | None = None
    score: float | None = None
    rationale: str | None = None
    missing: str | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise ConfigurationError(f"a score is in [0, 1], not {self.score}")
        if self.missing is not None and (self.verdict is not None or self.score is not None):
            raise ConfigurationError("a missing judgement has neither verdict nor score")


class Judge(Protocol):
    """Judges requests, several at a time where it can.

    Attributes:
        name: who judges, with all that changes its judgements (model, revision, rubric), for records.
    """

    @property
    def name(self) -> str:
        """Who judges."""
        ...

    def judge(self, requests: Sequence[JudgeRequest], /) -> Sequence[Judgement]:
        """Return one judgement a request, in their order; what failed for one request alone is missing.

        Raises:
            CertError: no request could be judged (no connection, budget exhausted).
        """
        ...


class AsyncJudge(Protocol):
    """The same for judges that wait for a network."""

    @property
    def name(self) -> str:
        """Who judges."""
        ...

    async def judge_async(self, requests: Sequence[JudgeRequest], /) -> Sequence[Judgement]:
        """Return one judgement a request, as `Judge.judge` does."""
        ...
