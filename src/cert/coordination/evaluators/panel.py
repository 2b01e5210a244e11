"""The judges of one evaluation: who they are, how often each is asked, and what their judgements make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeVar

from cert.coordination.chat import ChatClient
from cert.coordination.evaluators.asking import Asking, all_at_once, joined_draw, who
from cert.coordination.evaluators.instructions import load_instructions
from cert.coordination.evaluators.rubric import Rubric
from cert.coordination.types import Task
from cert.core.errors import ConfigurationError

__all__ = ["Panel"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One judge or more.

    Attributes:
        judges: the models.
        rubric: what they look at.
        repeats: judgements of each.
        with_references: show them the task's reference answers.
        least_share: of the judgements that has to be there.
        asking: how they are asked.

    Raises:
        ConfigurationError: a number outside its range.
    """

    judges: tuple[ChatClient, ...]
    rubric: Rubric
    repeats: int
    with_references: bool
    least_share: float
    asking: Asking

    def __post_init__(self) -> None:
        if type(self.repeats) is not int or self.repeats < 1:
            raise ConfigurationError(f"repeats must be 1 or more, not {self.repeats!r}")
        if not 0.0 < self.least_share <= 1.0:
            raise ConfigurationError(f"the least share of judgements is in (0, 1], not {self.least_share}")

    @property
    def identity(self) -> str:
        """The judges, rubric and words by their hashes, and how they are asked."""
        words = load_instructions()
        return (
            f"{' + '.join(map(who, self.judges))}; "
            f"rubric={self.rubric.version}:{self.rubric.sha256[:12]}, "
            f"words={words.version}:{words.sha256[:12]}, repeats={self.repeats}, "
            f"references={self.with_references}, least_share={self.least_share:g}, {self.asking.identity}"
        )

    async def ask_all(self, call: Callable[[ChatClient, str], Coroutine[Any, Any, T]], draw: str) -> list[T]:
        """Make the call for each judge and repeat at once; results come judge by judge."""
        return await all_at_once(
            [
                call(judge, joined_draw(draw, f"judge-{j}", f"repeat-{r}"))
                for j, judge in enumerate(self.judges)
                for r in range(self.repeats)
            ]
        )

    def material(self, task: Task, answers: Sequence[tuple[str, str]]) -> list[tuple[str, str]] | str:
        """Return what is shown to a judge, name and text, or why it cannot be judged."""
        if not all(answer.strip() for _, answer in answers):
            return "empty_answer"
        references = task.references if self.with_references else ()
        numbered = ((f"reference {i}", text) for i, text in enumerate(references, 1))
        return [("task", task.text), *numbered, *answers]

    def why_missing(self, reasons: Sequence[str | None]) -> str | None:
        """Return why there are too few judgements; ``None`` if there are enough.

        Args:
            reasons: why each is missing, ``None`` for those that are there.
        """
        counted = Counter(reason for reason in reasons if reason is not None)
        there = len(reasons) - counted.total()
        if there >= max(1, math.ceil(self.least_share * len(reasons))):
            return None
        if there == 0 and len(counted) == 1:
            return next(iter(counted))
        each = ", ".join(f"{n} × {reason}" for reason, n in counted.most_common())
        return f"too_few_judgements ({there} of {len(reasons)}: {each})"

    def mean(self, values: Sequence[float | None]) -> float:
        """Return the mean of the judges' means, of those judges that said anything."""
        k = self.repeats
        said = [[value for value in values[i : i + k] if value is not None] for i in range(0, len(values), k)]
        return fmean(fmean(given) for given in said if given)
