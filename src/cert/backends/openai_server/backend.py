"""Models on servers that speak the OpenAI API."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NoReturn

from pydantic import SecretStr

from cert.backends.api_records import ApiRecord, ReadOptions, read_response
from cert.backends.base import (
    Backend,
    Capabilities,
    FinishReason,
    Generation,
    GenerationRequest,
    ModelIdentity,
    ScoreRequest,
)
from cert.backends.control import Control, Ending
from cert.backends.openai_server.address import PREFIX, checked_url
from cert.backends.openai_server.chat_scoring import answer_body, opening_body, read_answer, tokens_before
from cert.backends.openai_server.checks import check_generation, check_score
from cert.backends.openai_server.dialects import dialect_named
from cert.backends.openai_server.flight import Flight
from cert.backends.openai_server.lanes import Lanes, ServerLimits
from cert.backends.openai_server.loop import LoopThread
from cert.backends.openai_server.probe import Asking, Profile, find_out, stated_profile
from cert.backends.openai_server.transport import Transport
from cert.backends.openai_server.wire import (
    generation_body,
    prompt_texts,
    read_score,
    reason_of,
    score_body,
    settled,
)
from cert.core.circuit_breaker import Breaker
from cert.core.errors import CertError, ConfigurationError
from cert.core.events import EventHub
from cert.core.resilience import (
    Budget,
    Demand,
    Limiter,
    ResiliencePolicy,
    ResilienceStack,
    transient,
)

__all__ = ["OpenAIBackend"]

# Longer than for short calls: an attempt is a whole generation.
_POLICY = ResiliencePolicy(deadline_seconds=600.0, attempt_seconds=300.0)


class OpenAIBackend(Backend):
    """Asks a server for generations with their log-probabilities, under the resilience stack.

    It has a thread of its own, and may be shared by threads and event loops; it belongs to one process.
    What the server gives is found out before the first request (`probe`), so `capabilities` and `identity`
    may wait for the network.

    Args:
        model: as the server names it.
        base_url: of the API, mostly ending with ``/v1``.
        api_key: sent as a bearer token; nothing is sent without one.
        dialect: the kind of server, one of `DIALECTS`, or ``auto`` to find it out.
        probe: find out what the server gives; else the dialect's promises are believed, and whether
            log-probabilities are raw stays unknown.
        top_logprobs: K, the most candidates that will be asked for.
        vocab_size: of the model, for upper bounds of the entropy; few servers say it.
        revision: of the model, to be named in results; servers do not say it.
        limits: how much work is taken.
        policy: deadlines and retries; an attempt is a whole generation.
        breaker, limiter, budget: as `ResilienceStack` takes them.
        demand: what an attempt of a request takes from limiter and budget; needed where there is a budget.
        hub: told of calls.

    Raises:
        ConfigurationError: a URL, dialect or limit that cannot be right.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: SecretStr | str | None = None,
        dialect: str = "auto",
        probe: bool = True,
        top_logprobs: int = 20,
        vocab_size: int | None = None,
        revision: str | None = None,
        limits: ServerLimits | None = None,
        policy: ResiliencePolicy | None = None,
        breaker: Breaker | None = None,
        limiter: Limiter | None = None,
        budget: Budget | None = None,
        demand: Callable[[GenerationRequest | ScoreRequest | None], Demand] | None = None,
        hub: EventHub | None = None,
    ) -> None:
        if not model.strip():
            raise ConfigurationError("the name of a model is empty")
        self._stated = dialect_named(dialect)
        if not probe and self._stated is None:
            raise ConfigurationError(
                "without a probe the dialect has to be named", hint="such as dialect='vllm'"
            )
        self._model, self._url = model, checked_url(base_url)
        self._vocab_size, self._revision, self._wanted = vocab_size, revision, top_logprobs
        self._limits = limits or ServerLimits()
        self.window = self._limits.concurrency
        self._demand = demand or (lambda _: Demand())
        self._stack = ResilienceStack(
            "openai",
            policy or _POLICY,
            retry_on=_worth_another,
            breaker=breaker,
            limiter=limiter,
            budget=budget,
            hub=hub,
        )
        self._api_key = SecretStr(api_key) if isinstance(api_key, str) else api_key
        self._client: Transport | None = None
        self._loop = LoopThread("cert-openai")
        self._lanes = Lanes(self._loop, self._limits, self._partial)
        self._probing = asyncio.Lock()
        self._profile = None if probe or self._stated is None else stated_profile(self._stated)

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._model!r}, {self._url!r})"

    def __reduce__(self) -> NoReturn:
        # It would take its API key along.
        raise TypeError("an OpenAIBackend cannot be pickled; make one in each process")

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers, on which kind of server."""
        profile = self.probe()
        return ModelIdentity(
            name=f"{PREFIX}{self._model}@{self._url}",
            revision=self._revision,
            backend=profile.dialect.name,
            vocab_size=self._vocab_size or profile.vocab_size,
            context_window=profile.context_window,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the server gives."""
        return self.probe().capabilities

    def probe(self) -> Profile:
        """Find out what the server gives, once; a probe that failed is made again when asked for.

        Raises:
            ConfigurationError: the server gives no log-probabilities, or is of another kind than stated.
            CertError: the server cannot be asked.
        """
        if self._profile is None:
            self._refuse_own_thread()
            return self._loop.submit(self._probed()).result()
        return self._profile

    def begin(self, request: GenerationRequest, control: Control | None = None) -> Future[Generation]:
        """Take one request; see `Backend.begin`."""
        if self._profile is not None:
            check_generation(request, self._profile)
        flight = Flight(request.prompt, control or Control())
        self._refuse_own_thread()
        return self._lanes.begin(flight, lambda: self._generate(request, flight))

    def begin_score(self, request: ScoreRequest, control: Control | None = None) -> Future[Generation]:
        """Take one text that follows a plain prompt or messages; see `Backend.begin_score`.

        The server cuts prompt and text into tokens together.
        """
        if self._profile is not None:
            check_score(request, self._profile)
        flight = Flight(request.prompt, control or Control())
        self._refuse_own_thread()
        return self._lanes.begin(flight, lambda: self._score(request, flight))

    def close(self) -> None:
        """End what is on its way, and the thread; nothing may be asked afterwards."""
        self._lanes.cancel_all()
        self._loop.close()

    def _refuse_own_thread(self) -> None:
        if self._loop.is_current:
            raise ConfigurationError("a listener of a generation cannot ask the same backend")

    def _partial(self, flight: Flight, ending: Ending) -> Generation | None:
        if flight.builder is None or self._profile is None:
            return None
        return self._generation(flight, flight.finish(ending), ending)

    # --- one request ---

    async def _generate(self, request: GenerationRequest, flight: Flight) -> Generation:
        flight.started = time.perf_counter()
        profile = await self._probed()
        check_generation(request, profile)
        flight.sampling = settled(request.sampling, profile.dialect)
        options = self._options(request.top_logprobs, profile)
        if request.max_new_tokens == 0:
            flight.attempt(options)
            return self._generation(flight, flight.finish(), "length")
        asked = _asked(request.top_logprobs, profile)
        body = generation_body(request, self._model, profile.dialect, flight.sampling, asked)
        streamed = profile.streams and (flight.listened_to or flight.control.deadline is not None)
        send = self._stream if streamed else self._whole
        record = await self._call(request, flight, functools.partial(send, flight, body, options))
        return self._generation(flight, record, reason_of(record, request.max_new_tokens))

    async def _score(self, request: ScoreRequest, flight: Flight) -> Generation:
        flight.started = time.perf_counter()
        profile = await self._probed()
        check_score(request, profile)
        options = self._options(request.top_logprobs, profile)
        if isinstance(request.prompt, str):
            body = score_body(request, self._model, profile.dialect.echo_tokens or 0)
            record = await self._read(request, flight, body, lambda data: read_score(data, request, options))
        else:
            opening = opening_body(request, self._model)
            before: int = await self._read(request, flight, opening, tokens_before)
            body = answer_body(request, self._model)
            record = await self._read(
                request, flight, body, lambda data: read_answer(data, before, request, options)
            )
        scored = self._generation(flight, record, "given")
        # Nothing that sampling does was asked for; that nothing was done is sure of raw servers alone.
        return scored if profile.mode == "raw" else replace(scored, logprobs_mode="unknown")

    async def _read(
        self, request: ScoreRequest, flight: Flight, body: Mapping[str, Any], read: Callable[[bytes], Any]
    ) -> Any:
        texts = [*prompt_texts(request.prompt), request.completion or ""]

        async def send() -> Any:
            return read(await self._transport().complete(body, texts))

        return await self._call(request, flight, send)

    def _options(self, top_k: int, profile: Profile) -> ReadOptions:
        return ReadOptions(
            top_k=top_k,
            chosen_takes_a_place=profile.dialect.chosen_takes_a_place,
            vocab_size=self._vocab_size or profile.vocab_size,
        )

    async def _call(
        self,
        request: GenerationRequest | ScoreRequest,
        flight: Flight,
        send: Callable[[], Coroutine[Any, Any, Any]],
    ) -> Any:
        remaining = flight.control.remaining()
        if remaining == 0.0:
            raise flight.control.error()
        return await self._stack.call_async(send, self._demand(request), seconds=remaining)

    async def _whole(self, flight: Flight, body: Mapping[str, Any], options: ReadOptions) -> ApiRecord:
        answer = await self._transport().complete(body, prompt_texts(flight.prompt))
        return flight.take(read_response(answer, options)[0])

    async def _stream(self, flight: Flight, body: Mapping[str, Any], options: ReadOptions) -> ApiRecord:
        flight.attempt(options)
        asked = {**body, "stream_options": {"include_usage": True}}
        events = self._transport().stream(asked, prompt_texts(flight.prompt))
        try:
            async with contextlib.aclosing(events):
                async for data in events:
                    flight.feed(data)
                    # What has arrived already is read without a pause in which a cancellation could come.
                    if flight.control.ending is not None:
                        raise asyncio.CancelledError
            return flight.finish()
        except CertError as error:
            if flight.told:
                # Another attempt would tell its listeners the same tokens again, or others.
                error.context |= {"retry": False, "told": flight.told}
            raise

    # --- the server ---

    def _transport(self) -> Transport:
        # Made on the loop's thread, where it belongs.
        if self._client is None:
            self._client = Transport(
                self._url,
                self._api_key,
                most_bytes=self._limits.answer_bytes,
                connect_seconds=self._limits.connect_seconds,
            )
            self._loop.at_end(self._client.close)
        return self._client

    async def _probed(self) -> Profile:
        if self._profile is None:
            async with self._probing:
                if self._profile is None:
                    asking = Asking(self._ask_whole, self._ask_streamed, self._ask_models)
                    self._profile = await find_out(asking, self._model, self._stated, self._wanted)
        return self._profile

    async def _ask_whole(self, body: Mapping[str, Any]) -> bytes:
        return await self._stack.call_async(lambda: self._transport().complete(body), self._demand(None))

    async def _ask_streamed(self, body: Mapping[str, Any]) -> list[bytes]:
        async def read() -> list[bytes]:
            return [data async for data in self._transport().stream(body)]

        return await self._stack.call_async(read, self._demand(None))

    async def _ask_models(self) -> bytes:
        return await self._stack.call_async(lambda: self._transport().models(), self._demand(None))

    def _generation(self, flight: Flight, record: ApiRecord, reason: FinishReason) -> Generation:
        profile = self._profile
        assert profile is not None
        stages = flight.stages()
        return Generation(
            prompt=flight.prompt,
            text=record.text,
            steps=record.steps,
            offsets=record.offsets,
            finish_reason=reason,
            stop_step=record.stop_step,
            prompt_tokens=record.prompt_tokens,
            sampling=flight.sampling,
            model=self.identity,
            logprobs_mode=profile.mode,
            vocabulary=record.vocabulary,
            duration_s=sum(seconds for name, seconds in stages if name != "queue"),
            token_ids_known=record.token_ids_known,
            stages=stages,
        )


def _asked(top_k: int, profile: Profile) -> int:
    """Return the candidates to ask for: one more than wanted where the chosen one could take a place."""
    more = 1 if profile.dialect.chosen_takes_a_place and top_k else 0
    return min(max(top_k + more, profile.dialect.least), profile.ask_at_most)


def _worth_another(error: Exception) -> bool:
    """Say whether another attempt may do better: not after a listener has heard of tokens."""
    return transient(error) and not (isinstance(error, CertError) and error.context.get("retry") is False)
