"""A chat through the engine: asked with log-probabilities, measured on its way, and passed on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx2
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cert.backends.openai_server.probe import Profile
from cert.core.errors import CertError, UpstreamConnectionError
from cert.services.common.errors import NotFoundError
from cert.services.hamiltonian.passthrough.asking import Asked
from cert.services.hamiltonian.passthrough.ending import Ending, cut_short
from cert.services.hamiltonian.passthrough.engine import Engine, Refusal
from cert.services.hamiltonian.passthrough.errors import error_bytes, refusal_response, withheld_response
from cert.services.hamiltonian.passthrough.events import DONE, ChunkStream, data_of, event
from cert.services.hamiltonian.passthrough.holding import replace_chunks, replace_whole
from cert.services.hamiltonian.passthrough.stripping import Answer, read_answer
from cert.services.hamiltonian.passthrough.watching import Outcome, Watcher, headers_of, kept_back
from cert.services.hamiltonian.presence import while_present
from cert.services.hamiltonian.state import HamiltonianState

__all__ = ["forwarded"]

# After what the operator wants: what the smallest servers give.
_FEWER = 5
_MOST_REMEMBERED = 1_000


async def forwarded(state: HamiltonianState, tenant: str, asked: Asked, request: Request) -> Response:
    """Return the engine's answer with its verdict, or the engine's error with its status.

    Raises:
        CertError: the engine cannot be asked, or the caller went away.
    """
    engine = state.engine
    assert engine is not None
    if engine.options.models and asked.model not in engine.options.models:
        raise NotFoundError("there is no such model here", hint="GET /v1/models lists those that there are")
    async with while_present(request):
        response = await _opened(engine, asked)
        if isinstance(response, Refusal):
            return refusal_response(response)
        watcher = Watcher(
            asked,
            engine.options,
            state.recent,
            tenant,
            mode=state.options.mode,
            gate_watch=engine.watch_of(asked.model, tenant),
            profile=await _profile(engine, asked.model),
        )
        if not _is_stream(response):
            return await _whole(state, engine, asked, watcher, response)
        if state.options.mode == "hold":
            return await _held(state, engine, asked, watcher, response)
    return ChunkStream(_relayed(state, engine, asked, watcher, response), engine.passed(response))


async def _profile(engine: Engine, model: str) -> Profile | None:
    try:
        return await engine.profile_of(model)
    except CertError:  # then the gate covers nothing, and the answer is not measured
        return None


async def _opened(engine: Engine, asked: Asked) -> httpx2.Response | Refusal:
    """Ask for as many log-probabilities as the engine gives; none is better than no answer."""
    accept = "text/event-stream" if asked.streams else "application/json"
    most = engine.accepted.get(asked.model, engine.options.top_logprobs)
    sent: bytes | None = None
    answer: httpx2.Response | Refusal | None = None
    for count in sorted({most, min(most, _FEWER), 0}, reverse=True):
        body = asked.body_with(count)
        if body == sent:
            continue
        sent = body
        answer = await engine.ask(body, accept=accept)
        if not isinstance(answer, Refusal):
            if count != most and len(engine.accepted) < _MOST_REMEMBERED:
                engine.accepted[asked.model] = count
            return answer
        if answer.status not in (400, 422) or b"logprob" not in answer.body.lower():
            break
    assert answer is not None
    return answer


async def _whole(
    state: HamiltonianState, engine: Engine, asked: Asked, watcher: Watcher, response: httpx2.Response
) -> Response:
    body = await engine.whole(response)
    watcher.feed(body)
    outcome = await watcher.finish()
    try:
        answer = read_answer(body)
    except CertError:
        if kept_back("not_measured", state.options):
            return _withheld(outcome)
        kind = response.headers.get("content-type", "application/json")
        return Response(body, headers=headers_of(outcome) | {"Content-Type": kind})
    answer.strip(asked)
    action = "forwarded"
    if failing := _kept_back(state, outcome):
        if state.options.replacement is None:
            return _withheld(outcome)
        replace_whole(answer, failing, state.options.replacement)
        action = "replaced"
    answer.put("cert", outcome.to_dict(action))
    headers = engine.passed(response) | headers_of(outcome, action)
    return Response(answer.encode(), headers=headers, media_type="application/json")


async def _held(
    state: HamiltonianState, engine: Engine, asked: Asked, watcher: Watcher, response: httpx2.Response
) -> Response:
    """Read a stream to its end before any of it is passed on; its size is bounded as every answer's."""
    chunks: list[Answer] = []
    async with aclosing(engine.chunks(response)) as source:
        async for data in data_of(source):
            if data == DONE:
                break
            watcher.feed(data)
            chunks.append(read_answer(data))
            chunks[-1].strip(asked)
            if "error" in chunks[-1].fields:
                return Response(data, 502, media_type="application/json")
        else:
            raise UpstreamConnectionError("the engine's stream ended before the answer was whole")
    outcome = await watcher.finish()
    action = "forwarded"
    if failing := _kept_back(state, outcome):
        if state.options.replacement is None:
            return _withheld(outcome)
        chunks = list(replace_chunks(chunks, failing, state.options.replacement))
        action = "replaced"
    headers = engine.passed(response) | headers_of(outcome, action)
    return ChunkStream(_replayed(chunks, outcome, action), headers)


async def _replayed(chunks: list[Answer], outcome: Outcome, action: str) -> AsyncGenerator[bytes, None]:
    for place, chunk in enumerate(chunks):
        if place == len(chunks) - 1:
            chunk.put("cert", outcome.to_dict(action))
        yield event(chunk.encode())
    yield event(DONE)


async def _relayed(
    state: HamiltonianState, engine: Engine, asked: Asked, watcher: Watcher, response: httpx2.Response
) -> AsyncGenerator[bytes, None]:
    """Pass a stream on chunk by chunk; the last one, which alone is waited for, gets the verdict."""
    held: Answer | None = None
    ending = Ending()
    try:
        with state.live.open(ending.stop, patient=True):
            async with aclosing(engine.chunks(response)) as source:
                async for data in data_of(ending.until(source)):
                    if data == DONE:
                        yield event(_last(held, await watcher.finish()))
                        yield event(DONE)
                        return
                    watcher.feed(data)
                    if held is not None:
                        yield event(held.encode())
                        held = None
                    answer = _read(data)
                    if answer is None or "error" in answer.fields:
                        yield event(data)
                        continue
                    answer.strip(asked)
                    if answer.ends:
                        held = answer
                    else:
                        yield event(answer.encode())
        raise UpstreamConnectionError("the engine's stream ended before the answer was whole")
    except CertError as error:
        if held is not None:
            yield event(held.encode())
        yield event(cut_short(state.options.mode) if ending.told else error_bytes(error))


def _last(held: Answer | None, outcome: Outcome) -> bytes:
    if held is None:
        return msgspec.json.encode(
            {"object": "chat.completion.chunk", "choices": [], "cert": outcome.to_dict()}
        )
    held.put("cert", outcome.to_dict())
    return held.encode()


def _read(data: bytes) -> Answer | None:
    try:
        return read_answer(data)
    except CertError:  # the caller gets what the engine sent
        return None


def _kept_back(state: HamiltonianState, outcome: Outcome) -> set[int]:
    return {choice.index for choice in outcome.choices if kept_back(choice.verdict, state.options)}


def _withheld(outcome: Outcome) -> Response:
    return withheld_response(outcome.to_dict("withheld"), headers_of(outcome, "withheld"))


def _is_stream(response: httpx2.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "text/event-stream"
