"""Agents, and the team that asks them: all of a round at once, with absences recorded and a quorum."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final

from cert.coordination.chat import ChatClient, ChatRequest, Completion, Message
from cert.coordination.gathering import all_to_their_end
from cert.coordination.prompts import Prompt, PromptSet, load_prompts
from cert.coordination.strategies.choice import Chooser, MajorityChooser
from cert.coordination.types import AgentResponse, Task
from cert.core.errors import (
    BudgetExceededError,
    CertError,
    ConfigurationError,
    DependencyMissingError,
    InputError,
    QuorumError,
    StoreError,
)

__all__ = ["Agent", "Team"]

# Where these are raised no agent has failed: nothing could be asked, or nothing be kept.
_PASSING: Final = (BudgetExceededError, ConfigurationError, DependencyMissingError, StoreError)
_NO_ANSWER: Final = frozenset({"refusal", "content_filter"})


@dataclass(frozen=True, slots=True)
class Agent:
    """Somebody who can be asked.

    Attributes:
        name: in records and accounts, and a part of what names its draws.
        client: who answers.
        system: what it is told before.
        temperature: ``None`` leaves it to the model.
        max_tokens: of an answer.
    """

    name: str
    client: ChatClient
    system: str | None = None
    temperature: float | None = None
    max_tokens: int = 1024


@dataclass(frozen=True)
class Team:
    """Agents, with all that a strategy needs to ask them. It has no state: many tasks may use it at once.

    What an agent is asked in the first round depends on the task, the agent and the draw, and not on the
    strategy: with a cache in the client, strategies share these answers and are compared on them.

    Attributes:
        agents: one or more, each with a name of its own.
        quorum: agents that have to answer in each round, of those that it asks; ``None`` is more than half.
        seed: of the samples, where the models have one: each draw of each task gets its own, made of it.
        prompts: templates.
        draw: names one run of several with the same agents (a replicate).
        chooser: takes one of several answers without asking anybody.
        aggregator: makes one answer of several; ``None`` is the first agent.
        selector: tells which of several answers is the best. It has to be another model than the judge that
            scores them afterwards, or the score flatters: each response names its model, so that this can be
            seen.
        timeout: seconds for each call.

    Raises:
        InputError: no agent, an empty or a double name, or a quorum that cannot be met.
    """

    agents: Sequence[Agent]
    _: KW_ONLY
    quorum: int | None = None
    seed: int | None = None
    prompts: PromptSet = field(default_factory=load_prompts)
    draw: str = ""
    chooser: Chooser = field(default_factory=MajorityChooser)
    aggregator: Agent | None = None
    selector: Agent | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "agents", tuple(self.agents))
        names = [agent.name for agent in self.agents]
        if not names:
            raise InputError("a team has one agent or more")
        if not all(names) or len(set(names)) < len(names):
            raise InputError(f"each agent needs a name of its own, not {', '.join(map(repr, names))}")
        if self.quorum is not None and not 1 <= self.quorum <= len(names):
            raise InputError(
                f"the quorum of {len(names)} agents is from 1 to {len(names)}, not {self.quorum}"
            )

    @classmethod
    def of(cls, client: ChatClient, size: int, *, prefix: str = "agent", **options: Any) -> Team:
        """Return a team of equal agents: ``agent-1``, ``agent-2`` and so on, all of one client.

        Args:
            client: who answers for all of them.
            size: how many.
            prefix: of their names.
            **options: ``system``, ``temperature`` and ``max_tokens`` of the agents, and those of the team.

        Raises:
            InputError: as the class.
        """
        own = {key: options.pop(key) for key in ("system", "temperature", "max_tokens") if key in options}
        return cls([Agent(f"{prefix}-{n}", client, **own) for n in range(1, size + 1)], **options)

    def needed(self, asked: int) -> int:
        """Return how many of so many agents have to answer."""
        return min(asked, asked // 2 + 1 if self.quorum is None else self.quorum)

    async def ask(
        self,
        agent: Agent,
        task: Task,
        prompt: Prompt | str | Sequence[Message],
        *,
        round: int,
        role: str | None = None,
    ) -> AgentResponse:
        """Ask one agent. Agent, round and role name the draw: who asks twice in a round gives other roles.

        Args:
            agent: a member, or anybody else.
            task: that the question is about.
            prompt: from the templates, or a text or messages of the strategy's own.
            round: 0 for the first.
            role: in the record; by default the prompt's.

        Returns:
            The answer, or an absence: a call that failed, a refusal, an empty answer.

        Raises:
            InputError: there is nothing to ask.
            BudgetExceededError, ConfigurationError, DependencyMissingError, StoreError: the run cannot go on.
        """
        said = prompt if isinstance(prompt, Prompt) else None
        role = role or (said.role if said else "answer")
        draw = "/".join(part for part in (self.draw, agent.name, f"round-{round}", role) if part)
        request = ChatRequest.of(
            said.text if said else prompt,  # type: ignore[arg-type]  # a prompt is never both
            system=agent.system,
            max_tokens=agent.max_tokens,
            temperature=agent.temperature,
            seed=self._seed(task, draw),
            draw=draw,
        )
        asked: dict[str, Any] = {
            "agent": agent.name,
            "round": round,
            "role": role,
            "prompt_sha256": request.prompt_sha256,
            "template": said.template if said else "",
        }
        started = time.monotonic()
        try:
            completion = await agent.client.complete(request, agent=agent.name, timeout=self.timeout)
        except _PASSING:
            raise
        except CertError as error:
            seconds = time.monotonic() - started
            model = agent.client.identity.model
            return AgentResponse(**asked, text=None, absent=error.code, model=model, seconds=seconds)
        return _response(asked, completion, time.monotonic() - started)

    async def ask_all(
        self,
        task: Task,
        asked: Sequence[tuple[Agent, Prompt | str | Sequence[Message]]],
        *,
        round: int,
        role: str | None = None,
        before: Sequence[AgentResponse] = (),
    ) -> tuple[AgentResponse, ...]:
        """Ask several agents at once and wait for all of them.

        What was sent is paid for: where one of them ends the run, the others may finish first, and a cache
        keeps what they say. Who cancels the round cancels them all.

        Args:
            task: as in `ask`.
            asked: whom, and what.
            round: as in `ask`.
            role: as in `ask`.
            before: responses of earlier rounds, for the error.

        Returns:
            One response each, in the same order.

        Raises:
            QuorumError: too few answered.
            CertError: as `ask`.
        """
        calls = (self.ask(agent, task, prompt, round=round, role=role) for agent, prompt in asked)
        responses = await all_to_their_end(calls)
        self.check_quorum(responses, len(responses), before=before)
        return responses

    def check_quorum(
        self, said: Sequence[AgentResponse], asked: int, *, before: Sequence[AgentResponse] = ()
    ) -> None:
        """Check that the quorum of so many agents can be met by those who spoke and those still to speak.

        Raises:
            QuorumError: it cannot; ``responses`` has all that was said.
        """
        absent = {response.agent: response.absent for response in said if response.text is None}
        if asked - len(absent) < self.needed(asked):
            error = QuorumError(
                f"{len(absent)} of {asked} agents did not answer, and {self.needed(asked)} have to: "
                + ", ".join(f"{agent} ({why})" for agent, why in absent.items()),
                hint="see why they are absent, or set a lower quorum",
                context={"asked": asked, "needed": self.needed(asked), "absent": len(absent)},
            )
            error.responses = (*before, *said)
            raise error

    def _seed(self, task: Task, draw: str) -> int | None:
        if self.seed is None:
            return None
        drawn = hashlib.sha256(json.dumps([self.seed, task.id, draw]).encode()).digest()
        return int.from_bytes(drawn[:4], "big") >> 1  # 31 bits: every vendor takes them


def _response(asked: dict[str, Any], completion: Completion, seconds: float) -> AgentResponse:
    # Half a surrogate pair cannot be sent to the next agent.
    text = completion.text.encode("utf-8", "replace").decode()
    absent = completion.finish if completion.finish in _NO_ANSWER else None if text.strip() else "empty"
    return AgentResponse(
        **asked,
        text=None if absent else text,
        absent=absent,
        model=completion.model,
        usage=completion.usage,
        cost_micro_dollars=completion.cost_micro_dollars,
        # An answer that was there already took no time now; what it takes without a cache is wanted.
        seconds=completion.latency_seconds if completion.from_cache else seconds,
        finish=completion.finish,
        attempts=completion.attempts,
        from_cache=completion.from_cache,
    )
