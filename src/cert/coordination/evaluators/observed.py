"""An evaluator whose judgements are told as events."""

from __future__ import annotations

from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.types import Evaluation, Task
from cert.core.events import EventHub, JudgementFinished

__all__ = ["ObservedEvaluator"]


class ObservedEvaluator:
    """Tells a hub of each evaluation.

    Args:
        inner: who evaluates.
        hub: hears of it.

    Attributes:
        inner: as given.
    """

    def __init__(self, inner: Evaluator, hub: EventHub) -> None:
        self.inner = inner
        self._hub = hub

    @property
    def identity(self) -> str:
        """Who evaluates."""
        return self.inner.identity

    @property
    def free(self) -> bool:
        """Whether an evaluation asks no model; one of the user's says so by an attribute ``free``."""
        return bool(getattr(self.inner, "free", False))

    async def evaluate(self, task: Task, answer: str, *, draw: str = "") -> Evaluation:
        """Evaluate one answer; see `Evaluator.evaluate`."""
        found = await self.inner.evaluate(task, answer, draw=draw)
        outcome = "ok" if found.missing is None else found.missing.partition(" ")[0][:40]
        self._hub.emit(JudgementFinished(evaluator=type(self.inner).__name__, outcome=outcome))
        return found
