"""What evaluates an answer."""

from __future__ import annotations

from typing import Protocol

from cert.coordination.types import Evaluation, Task

__all__ = ["Evaluator"]


class Evaluator(Protocol):
    """Says how good an answer is as an answer to a task. Safe for many tasks of one event loop at once."""

    @property
    def identity(self) -> str:
        """Who evaluates, with all that changes its scores, for records and for keys of caches."""
        ...

    async def evaluate(self, task: Task, answer: str, *, draw: str = "") -> Evaluation:
        """Evaluate one answer. What cannot be evaluated is missing, with the reason.

        Args:
            task: that was set.
            answer: untrusted text.
            draw: names one evaluation among several of the same answer; a rule without chance ignores it.

        Raises:
            BudgetExceededError: there is no money left for a judge.
            ConfigurationError: nothing could be evaluated like this.
        """
        ...
