"""Answers evaluated by a function of the user."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from cert.coordination.evaluators.matching import named
from cert.coordination.types import Evaluation, Task
from cert.core.errors import BudgetExceededError

__all__ = ["CallableEvaluator", "Grade"]

Grade: TypeAlias = bool | float | None
_LONGEST_REASON = 200


class CallableEvaluator:
    """Scores answers by a function: unit tests of code, a checker of a format, a metric.

    It returns True or False, a number in [0, 1], or ``None`` where it cannot tell. What it raises, and a NaN
    or anything else that is no score, makes the evaluation missing, with the reason.

    Args:
        function: ``(task, answer)``, sync or async. A sync one holds up the event loop while it runs; the
            answer is untrusted: do not execute code in it without a sandbox.
        name: of the function with its version, for records; by default its own.
        free: the function asks no model, so that the estimate of a suite's cost can leave it out.

    Raises:
        ConfigurationError: neither has a name.
    """

    def __init__(
        self,
        function: Callable[[Task, str], Grade | Awaitable[Grade]],
        *,
        name: str | None = None,
        free: bool = False,
    ) -> None:
        self.free = free
        self._function = function
        self._identity = f"callable({name or named(function)})"

    @property
    def identity(self) -> str:
        """The function's name."""
        return self._identity

    async def evaluate(self, task: Task, answer: str, *, draw: str = "") -> Evaluation:  # noqa: ARG002
        """Call the function.

        Raises:
            BudgetExceededError: the function asked a model, and there is no money left.
        """
        try:
            grade: Any = self._function(task, answer)
            if inspect.isawaitable(grade):
                grade = await grade
        except BudgetExceededError:
            raise
        except Exception as error:
            missing: str | None = f"raised {type(error).__name__}: {error}"[:_LONGEST_REASON]
            score = None
        else:
            score, missing = _score(grade)
        return Evaluation(score=score, missing=missing, evaluator=self._identity)


def _score(grade: Any) -> tuple[float | None, str | None]:
    if grade is None:
        return None, "undecided"
    if hasattr(grade, "item") and getattr(grade, "shape", None) == ():
        grade = grade.item()  # a number of numpy or torch
    is_number = isinstance(grade, numbers.Real)
    if not is_number:
        return None, f"returned {type(grade).__name__}, which is no score"
    if 0 <= grade <= 1:
        return float(grade), None
    return None, "out_of_range" if grade < 0 or grade > 1 else "not_a_number"
