"""One judgement by one model: asked, read, and missing with a reason where it is none."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cert.answers.judge import Kind
from cert.coordination.chat import ChatClient, ChatRequest, Completion, Message, Tool, Usage
from cert.coordination.evaluators.fence import Fenced, fenced
from cert.coordination.evaluators.forms import Form, UnreadableError, rationale_of
from cert.coordination.evaluators.instructions import load_instructions
from cert.coordination.evaluators.reading import arguments_of
from cert.core.errors import (
    BudgetExceededError,
    CertError,
    ConfigurationError,
    DependencyMissingError,
    InputError,
)

__all__ = ["MOST_MATERIAL_CHARS", "Asking", "Said", "all_at_once", "joined_draw", "who"]

MOST_MATERIAL_CHARS = 100_000

T = TypeVar("T")

# Nothing that is asked afterwards could end otherwise: these are the caller's to deal with.
_GO_THROUGH = (BudgetExceededError, ConfigurationError, DependencyMissingError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(Generic[T]):
    """What came of asking a judge once.

    Attributes:
        value: the judgement; ``None`` where it is missing, or is that the judge cannot tell.
        missing: why it is, as a short name: the ``code`` of an error, or what was wrong with the reply.
        rationale: the judge's own words, untrusted.
        usage, cost_micro_dollars: of the asking; an unreadable reply is paid for too.
        from_cache: the reply was there already.
    """

    value: T | None
    missing: str | None = None
    rationale: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_micro_dollars: int = 0
    from_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a judge is asked.

    Attributes:
        temperature: ``None`` leaves it to the model. At 0 repeats tell little about the judge's noise.
        max_tokens: of a judgement; one that needs more is missing.
        seed: of the sampling, from which each draw gets its own.
        timeout: seconds for a judgement, waiting and retries included.
        typed: ask for the call of a tool; else for JSON. ``None`` asks for JSON only where the client refuses
            tools.
        account: under which name the client books the cost.

    Raises:
        ConfigurationError: a number outside its range.
    """

    temperature: float | None = None
    max_tokens: int = 1024
    seed: int | None = None
    timeout: float | None = None
    typed: bool | None = None
    account: str = "judge"

    def __post_init__(self) -> None:
        try:
            ChatRequest.of("?", temperature=self.temperature, max_tokens=self.max_tokens)
        except InputError as error:
            raise ConfigurationError(error.message) from error

    @property
    def identity(self) -> str:
        """What of it changes judgements."""
        seed = "" if self.seed is None else f", seed={self.seed}"
        typed = "" if self.typed is None else f", typed={self.typed}"
        return f"temperature={self.temperature}, max_tokens={self.max_tokens}{seed}{typed}"

    async def ask(
        self,
        client: ChatClient,
        kind: Kind,
        sections: Sequence[tuple[str, str]],
        form: Form[T],
        *,
        criteria: str = "",
        draw: str = "",
    ) -> Said[T]:
        """Ask a model for one judgement.

        Args:
            client: the model.
            kind: of the judgement.
            sections: the material, name and text, all of it untrusted; over 100,000 characters, as they are
                shown, it is not judged.
            form: of the judgement.
            criteria: in words that are ours.
            draw: of the request.

        Raises:
            BudgetExceededError: there is no money left.
            ConfigurationError: the client cannot be asked like this at all.
            DependencyMissingError: the client needs a package.
        """
        material = _bounded(sections)
        if material is None:
            return Said(value=None, missing="too_long")

        async def asked(typed: bool) -> Said[T]:
            prompt = load_instructions().prompt(kind, material, form.tool, typed=typed, criteria=criteria)
            request = self._request(prompt, form.tool if typed else None, draw)
            completion = await client.complete(request, agent=self.account, timeout=self.timeout)
            return _said(completion, form, typed=typed)

        try:
            return await self._in_a_form(asked)
        except _GO_THROUGH:
            raise
        except CertError as error:
            return Said(value=None, missing=error.code)

    async def _in_a_form(self, asked: Callable[[bool], Awaitable[T]]) -> T:
        try:
            return await asked(self.typed is not False)
        except ConfigurationError as error:
            # So says a client whose models know no tools, before anything is sent.
            if self.typed is not None or error.context.get("missing") != "tool":
                raise
        return await asked(False)

    def _request(self, prompt: str, tool: Tool | None, draw: str) -> ChatRequest:
        return ChatRequest(
            messages=(Message("user", prompt),),
            system=load_instructions().system,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=None if self.seed is None else _seed(self.seed, prompt, draw),
            tool=tool,
            draw=draw,
        )


def who(client: ChatClient) -> str:
    """Name a judging model with all that tells it from others."""
    return client.identity.whole


def joined_draw(*parts: str) -> str:
    """Name a draw within draws."""
    return "/".join(filter(None, parts))


async def all_at_once(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of calls that run at once, in their order; the first that fails stops the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _bounded(sections: Sequence[tuple[str, str]]) -> Fenced | None:
    """Return the material in its fence; ``None`` if it is too long: without its end it would be another."""
    if sum(len(text) for _, text in sections) > MOST_MATERIAL_CHARS:
        return None
    material = fenced(sections)  # what is invisible grows by being written out
    return material if len(material.text) <= MOST_MATERIAL_CHARS else None


def _said(completion: Completion, form: Form[T], *, typed: bool) -> Said[T]:
    value: T | None = None
    missing = rationale = None
    try:
        arguments = arguments_of(completion, typed=typed)
        value, rationale = form.read(arguments), rationale_of(arguments)
    except UnreadableError as error:
        missing = error.reason
    return Said(
        value=value,
        missing=missing,
        rationale=rationale,
        usage=completion.usage,
        cost_micro_dollars=completion.cost_micro_dollars,
        from_cache=completion.from_cache,
    )


def _seed(seed: int, prompt: str, draw: str) -> int:
    """Return a seed of 62 bits for one draw."""
    mixed = hashlib.sha256(f"{seed}\n{draw}\n{prompt}".encode()).digest()
    return int.from_bytes(mixed[:8]) >> 2
