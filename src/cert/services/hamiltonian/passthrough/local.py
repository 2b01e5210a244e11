"""A chat with a model of the allow-list, as OpenAI's API would answer it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cert.backends.base import Message
from cert.core.errors import CertError, InputError
from cert.services.hamiltonian.passthrough.asking import Asked
from cert.services.hamiltonian.passthrough.ending import cut_short
from cert.services.hamiltonian.passthrough.errors import error_bytes, withheld_response
from cert.services.hamiltonian.passthrough.events import DONE, ChunkStream, event
from cert.services.hamiltonian.passthrough.local_form import (
    finish_of,
    frame_of,
    logprobs_of,
    piece_logprobs,
    usage_of,
)
from cert.services.hamiltonian.passthrough.merged import merged
from cert.services.hamiltonian.passthrough.watching import Choice, Outcome, headers_of, kept_back
from cert.services.hamiltonian.presence import while_present
from cert.services.hamiltonian.recent import Entry
from cert.services.hamiltonian.state import HamiltonianState
from cert.trajectory.streaming import AsyncTrajectoryStream

__all__ = ["answered"]

_MOST_CHOICES = 16
# What would change the answer and cannot be done here is refused, not left out in silence.
_REFUSED = ("tools", "functions", "stop", "response_format", "logit_bias", "audio", "modalities")


async def answered(state: HamiltonianState, tenant: str, asked: Asked, request: Request) -> Response:
    """Return the answer of a model in process with its verdict.

    Raises:
        CertError: the request asks for what cannot be done here, or the generation failed.
    """
    chat = _Chat(state, tenant, asked)
    detailed = asked.logprobs and asked.top_logprobs > 0
    if asked.streams and state.options.mode == "observe" and not detailed:
        return ChunkStream(chat.live())
    async with while_present(request):
        entries = await chat.entries()
    outcome = Outcome(tuple(Choice(index, entry) for index, entry in enumerate(entries)), state.options.mode)
    failing = {choice.index for choice in outcome.choices if kept_back(choice.verdict, state.options)}
    action = "replaced" if failing else "forwarded"
    if failing and state.options.replacement is None:
        return withheld_response(outcome.to_dict("withheld"), headers_of(outcome, "withheld"))
    headers = headers_of(outcome, action)
    if asked.streams:
        return ChunkStream(chat.chunks(entries, outcome, failing, action), headers)
    whole = chat.whole(entries, outcome, failing, action)
    return Response(msgspec.json.encode(whole), headers=headers, media_type="application/json")


class _Chat:
    """One request to a model of the list."""

    def __init__(self, state: HamiltonianState, tenant: str, asked: Asked) -> None:
        self._state, self._tenant, self._asked = state, tenant, asked
        self._name = state.models.name_of(asked.model)
        self._monitor = state.models.monitor(self._name, tenant)
        self._messages = _messages(asked)
        _refuse(asked)
        self._count = _whole_number(asked, "n", 1, _MOST_CHOICES) or 1
        self._options = self._sampling()
        self._id = "chatcmpl-" + secrets.token_hex(12)
        self._created = int(time.time())

    # --- the whole at once ---

    async def entries(self) -> list[Entry]:
        """Generate every choice; they share batches."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._entry(index)) for index in range(self._count)]
        except BaseExceptionGroup as failures:  # the first ended the others
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _entry(self, index: int) -> Entry:
        analysis = await self._monitor.analyze_async(
            self._messages, timeout=self._state.options.timeout_seconds, **self._of_choice(index)
        )
        return await self._state.recent.keep(self._tenant, analysis, model=self._name, source="chat")

    def whole(self, entries: list[Entry], outcome: Outcome, failing: set[int], action: str) -> dict[str, Any]:
        """Return the answer as one object."""
        choices = []
        for index, entry in enumerate(entries):
            kept = index in failing
            text = self._state.options.replacement if kept else entry.analysis.generated_text
            choices.append(
                {
                    "index": index,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None if kept else logprobs_of(entry.analysis, self._asked),
                    "finish_reason": "content_filter" if kept else finish_of(entry.analysis),
                }
            )
        frame = frame_of(self._id, self._created, self._name, "chat.completion")
        analyses = [entry.analysis for entry in entries]
        return frame | {"choices": choices, "usage": usage_of(analyses), "cert": outcome.to_dict(action)}

    async def chunks(
        self, entries: list[Entry], outcome: Outcome, failing: set[int], action: str
    ) -> AsyncGenerator[bytes, None]:
        """Yield the answer as a stream, once it is there."""
        for index, entry in enumerate(entries):
            yield self._chunk(index, {"role": "assistant", "content": ""})
            if index in failing:
                yield self._chunk(index, {"content": self._state.options.replacement})
                continue
            listed = (logprobs_of(entry.analysis, self._asked) or {}).get("content")
            for place, text in enumerate(_additions(entry)):
                part = None if listed is None else {"content": [listed[place]], "refusal": None}
                yield self._chunk(index, {"content": text}, part)
        finishes = {
            index: "content_filter" if index in failing else finish_of(entry.analysis)
            for index, entry in enumerate(entries)
        }
        for data in self._ending(finishes, entries, outcome, action):
            yield data

    # --- as it comes ---

    async def live(self) -> AsyncGenerator[bytes, None]:
        """Yield the answer as it is generated."""
        streams = [self._stream(index) for index in range(self._count)]
        live = contextlib.ExitStack()
        try:
            for stream in streams:
                live.enter_context(self._state.live.open(stream.stop, patient=True))
            for index in range(self._count):
                yield self._chunk(index, {"role": "assistant", "content": ""})
            async with aclosing(merged(streams)) as tokens:
                async for index, token in tokens:
                    listed = piece_logprobs(token, self._asked)
                    if token.text or listed is not None:
                        yield self._chunk(index, {"content": token.text}, listed)
            if self._state.live.out_of_patience and any(map(_is_cut, streams)):
                yield event(cut_short("observe"))
                return
            entries = [
                await self._state.recent.keep(self._tenant, stream.analysis, model=self._name, source="chat")
                for stream in streams
            ]
            choices = tuple(Choice(index, entry) for index, entry in enumerate(entries))
            finishes = {index: finish_of(entry.analysis) for index, entry in enumerate(entries)}
            for data in self._ending(finishes, entries, Outcome(choices, "observe"), "forwarded"):
                yield data
        except CertError as error:
            yield event(error_bytes(error))
        finally:
            live.close()
            for stream in streams:
                await stream.close()

    def _stream(self, index: int) -> AsyncTrajectoryStream:
        return self._monitor.stream_async(
            self._messages, timeout=self._state.options.timeout_seconds, **self._of_choice(index)
        )

    def _ending(
        self, finishes: Mapping[int, str], entries: list[Entry], outcome: Outcome, action: str
    ) -> Iterator[bytes]:
        options = self._asked.value("stream_options")
        with_usage = isinstance(options, dict) and options.get("include_usage") is True
        cert = {"cert": outcome.to_dict(action)}
        for index, finish in finishes.items():
            last = index == len(finishes) - 1 and not with_usage
            yield self._chunk(index, {}, finish=finish, more=cert if last else {})
        if with_usage:
            frame = frame_of(self._id, self._created, self._name, "chat.completion.chunk")
            usage = usage_of([entry.analysis for entry in entries])
            yield event(msgspec.json.encode(frame | {"choices": [], "usage": usage} | cert))
        yield event(DONE)

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        logprobs: Mapping[str, Any] | None = None,
        *,
        finish: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> bytes:
        frame = frame_of(self._id, self._created, self._name, "chat.completion.chunk")
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event(msgspec.json.encode(frame | {"choices": [choice]} | dict(more or {})))

    # --- what was asked ---

    def _sampling(self) -> dict[str, Any]:
        asked, most = self._asked, self._state.options.most_new_tokens
        limit = _whole_number(asked, "max_completion_tokens", 0, most)
        return {
            "max_new_tokens": _whole_number(asked, "max_tokens", 0, most) if limit is None else limit,
            "temperature": _number(asked, "temperature"),
            "top_p": _number(asked, "top_p"),
            "seed": _whole_number(asked, "seed", 0, 2**63 - _MOST_CHOICES),
        }

    def _of_choice(self, index: int) -> dict[str, Any]:
        seed = self._options["seed"]
        return self._options | {"seed": None if seed is None else seed + index}


def _is_cut(stream: AsyncTrajectoryStream) -> bool:
    """Say whether somebody else than the gate has ended it before its end."""
    analysis = stream.analysis
    return analysis.generation.finish_reason == "early_stop" and analysis.early_stop is None


def _additions(entry: Entry) -> Iterator[str]:
    """Yield what each token adds to the text; of those that share a character the last adds it."""
    text, told = entry.analysis.generated_text, 0
    spans = entry.generation.offsets.tolist()
    for place, (_, end) in enumerate(spans):
        last = place == len(spans) - 1
        shares = not last and spans[place + 1] == spans[place]
        stop = len(text) if last else told if shares else max(told, end)
        yield text[told:stop]
        told = stop


def _messages(asked: Asked) -> list[Message]:
    messages = []
    for message in asked.value("messages"):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InputError("messages: each has a role and a content")
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
        if not all(isinstance(text, str) for text in texts):
            raise InputError("messages: a model of this service takes text alone")
        messages.append(Message(message["role"], "".join(str(text) for text in texts)))
    return messages


def _refuse(asked: Asked) -> None:
    for name in _REFUSED:
        value = asked.value(name)
        if value in (None, [], {}) or (name == "response_format" and value == {"type": "text"}):
            continue
        if name == "modalities" and value == ["text"]:
            continue
        if name == "tools" and asked.value("tool_choice") == "none":
            continue
        raise InputError(
            f"{name}: models in this process cannot do this",
            hint="point CERT_UPSTREAM_URL at an engine that can",
        )


def _whole_number(asked: Asked, name: str, lowest: int, most: int) -> int | None:
    value = asked.value(name)
    if value is None:
        return None
    if type(value) is not int or not lowest <= value <= most:
        raise InputError(f"{name}: a whole number from {lowest} to {most}")
    return value


def _number(asked: Asked, name: str) -> float | None:
    value = asked.value(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name}: a number")
    return float(value)
