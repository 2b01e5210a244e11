"""An evaluator whose paid judgements are kept."""

from __future__ import annotations

from cert.coordination.chat import ChatClient
from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.store.base import CompletionStore
from cert.coordination.store.client import CachedChatClient
from cert.coordination.store.codecs import EvaluationCodec
from cert.coordination.store.keys import evaluation_key
from cert.coordination.store.records import Call
from cert.coordination.store.single_flight import SingleFlight
from cert.coordination.types import Evaluation, Task
from cert.core.errors import InputError

__all__ = ["CachedEvaluator", "keeping"]


class CachedEvaluator:
    """Evaluates an answer once, whatever client the evaluator has inside.

    The key is the evaluator's identity, all of the task, the answer and the draw; a task whose metadata is no
    JSON has none, and is evaluated each time. Missing evaluations are not kept, nor those that took no tokens
    (see `EvaluationCodec.keep`). What one can cost is not known beforehand, so a lost one has no bound.

    Args:
        inner: who evaluates.
        store: where evaluations are kept.
        scope: as of `CachedChatClient`.

    Attributes:
        inner: as given.
    """

    def __init__(self, inner: Evaluator, store: CompletionStore, *, scope: str = "") -> None:
        self.inner = inner
        self._scope = scope
        self._flights: SingleFlight[Evaluation] = SingleFlight(store, EvaluationCodec())

    @property
    def identity(self) -> str:
        """Who evaluates, with all that changes the scores."""
        return self.inner.identity

    async def evaluate(self, task: Task, answer: str, *, draw: str = "") -> Evaluation:
        """Return the evaluation that is there, or make one.

        Raises:
            StoreError: the store cannot be used; nothing was asked.
            CertError: as of the evaluator.
        """
        try:
            key = evaluation_key(self.identity, task, answer, draw, self._scope)
        except InputError:
            return await self.inner.evaluate(task, answer, draw=draw)

        async def judge(_left: float | None) -> Evaluation:
            return await self.inner.evaluate(task, answer, draw=draw)

        call = Call(
            key=key, kind="evaluation", scope=self._scope, model=self.identity, most_micro_dollars=None
        )
        return await self._flights.get(call, judge)


def keeping(evaluator: Evaluator, store: CompletionStore, *, scope: str = "") -> Evaluator:
    """Return the same evaluator, paid for once.

    Where its judges can be asked through other clients (`QualityEvaluator.through`) each judgement is kept as
    a completion, also one that cannot be read: what it may cost is known before, and none is lost when the
    money ends between two of them. Of any other evaluator whole evaluations are kept.

    Args:
        evaluator: that is asked; one that keeps its evaluations already is returned as it is.
        store: where they are kept.
        scope: as of `CachedChatClient`.
    """
    if isinstance(evaluator, CachedEvaluator):
        return evaluator
    through = getattr(evaluator, "through", None)
    if through is None:
        return CachedEvaluator(evaluator, store, scope=scope)

    def kept(client: ChatClient) -> CachedChatClient:
        inner = client.inner if isinstance(client, CachedChatClient) else client
        return CachedChatClient(inner, store, scope=scope)

    twin: Evaluator = through(kept)
    return twin
