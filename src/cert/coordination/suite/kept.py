"""The answers of a run, kept: a run that was killed goes on with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

from cert.coordination.chat import ChatClient, Usage
from cert.coordination.store import CachedChatClient, CompletionStore
from cert.coordination.store.codecs import VALUE_VERSION
from cert.coordination.store.records import Call
from cert.coordination.store.single_flight import SingleFlight
from cert.coordination.strategies.team import Agent
from cert.coordination.systems import Answer, System, TeamSystem
from cert.coordination.types import Task

__all__ = ["KeptSystem", "kept"]


def kept(system: System, store: CompletionStore, run: str, clients: dict[int, CachedChatClient]) -> System:
    """Return a system whose answers are kept under the name of the run.

    Of a team each completion is kept, so that a run goes on in the middle of a debate; of any other system
    its answers are, as they came.

    Args:
        system: that answers.
        store: where the answers are.
        run: its name.
        clients: those that are wrapped already, by the id of what is inside; filled here.
    """
    if not isinstance(system, TeamSystem):
        return KeptSystem(system, store, run)

    def client_of(client: ChatClient) -> CachedChatClient:
        inner = client.inner if isinstance(client, CachedChatClient) else client
        if id(inner) not in clients:
            clients[id(inner)] = CachedChatClient(inner, store, scope=run)
        return clients[id(inner)]

    def wrapped(agent: Agent | None) -> Agent | None:
        return None if agent is None else replace(agent, client=client_of(agent.client))

    team = system.team
    return replace(
        system,
        team=replace(
            team,
            agents=[replace(agent, client=client_of(agent.client)) for agent in team.agents],
            aggregator=wrapped(team.aggregator),
            selector=wrapped(team.selector),
        ),
    )


class KeptSystem:
    """Any system, asked once for each task and draw of a run; an answer that is missing is asked for again.

    Args:
        inner: the system.
        store: where its answers are kept, without transcripts.
        run: the name of the run.
    """

    def __init__(self, inner: System, store: CompletionStore, run: str) -> None:
        self.inner = inner
        self._run = run
        self._flights: SingleFlight[_KeptAnswer] = SingleFlight(store, _AnswerCodec())

    @property
    def name(self) -> str:
        """The system's."""
        return self.inner.name

    @property
    def identity(self) -> str:
        """The system's."""
        return self.inner.identity

    async def answer(self, task: Task, *, draw: str, seed: int | None) -> Answer:
        """Return the answer that is there, or have one made; see `System.answer`."""

        async def ask(_left: float | None) -> _KeptAnswer:
            return _KeptAnswer(await self.inner.answer(task, draw=draw, seed=seed))

        told = [VALUE_VERSION, self._run, self.identity, task.id, task.text, draw, seed]
        call = Call(
            key=hashlib.sha256(json.dumps(["system", told]).encode()).hexdigest(),
            kind="completion",
            scope=self._run,
            model=self.name,
            most_micro_dollars=None,
        )
        return (await self._flights.get(call, ask, None)).answer


class _KeptAnswer:
    """An answer with where it came from, as stores have it."""

    def __init__(self, answer: Answer, from_cache: bool = False) -> None:
        self.answer = answer
        self.from_cache = from_cache


class _AnswerCodec:
    def encode(self, value: _KeptAnswer, /) -> str:
        answer = value.answer
        fields: dict[str, Any] = {
            "value_version": VALUE_VERSION,
            "text": answer.text,
            "usage": None if answer.usage is None else asdict(answer.usage),
            "weight": answer.weight,
            "cost_micro_dollars": answer.cost_micro_dollars,
            "seconds": answer.seconds,
        }
        return json.dumps(fields)

    def decode(self, value: str, /) -> _KeptAnswer:
        fields = json.loads(value)
        if fields.pop("value_version") != VALUE_VERSION:
            raise ValueError("of another version")
        usage = fields.pop("usage")
        return _KeptAnswer(Answer(**fields, usage=None if usage is None else Usage(**usage)), from_cache=True)

    def cost(self, value: _KeptAnswer, /) -> int:
        return value.answer.cost_micro_dollars or 0

    def keep(self, value: _KeptAnswer, /) -> bool:
        return value.answer.text is not None

    def counts(self, _value: _KeptAnswer, /) -> bool:
        return True
