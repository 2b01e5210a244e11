"""Records of an API: responses, pairs of a request and its response, output of the OpenAI Batch API."""

from __future__ import annotations

from typing import Any

import msgspec

from cert.backends.api_records import ApiRecord, ReadOptions, read_response
from cert.backends.base import Generation, Message, Outcome, Prompt, Sampling
from cert.backends.stored.items import StoredOptions, record_error, stored_identity
from cert.core.errors import ConfigurationError, InputError, UpstreamProtocolError

__all__ = ["Pair", "read_pair", "read_plain"]


class Body(msgspec.Struct):
    """What is needed of a request; a value of a form that is not known here is as good as none."""

    model: Any = None
    prompt: Any = None
    messages: Any = None
    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    seed: Any = None


class Request(Body):
    """A request, or the line of a Batch API input that holds it as ``body``."""

    body: Body | None = None


class Response(msgspec.Struct):
    """The envelope of a response in the Batch API."""

    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    status_code: int | None = None


class Pair(msgspec.Struct):
    """A request and its response; both may have an envelope."""

    request: Request | msgspec.UnsetType | None = msgspec.UNSET
    response: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    custom_id: str | None = None
    key: str | None = None
    error: Any = None


_ENVELOPE = msgspec.json.Decoder(Response)


def read_plain(data: bytes, options: StoredOptions) -> list[Outcome]:
    """Read one response, a generation a choice.

    Raises:
        InputError: it is no response, or one without log-probabilities.
    """
    return [_generation(record, None, options) for record in _records(data, options)]


def read_pair(pair: Pair, options: StoredOptions) -> list[Outcome]:
    """Read the response of a pair, with the prompt and the settings of its request.

    Raises:
        InputError: as `read_plain`; the request failed.
    """
    request = (pair.request.body or pair.request) if isinstance(pair.request, Request) else None
    return [_generation(record, request, options) for record in _records(_response(pair), options)]


def _response(pair: Pair) -> msgspec.Raw:
    if pair.error is not None or isinstance(pair.response, msgspec.UnsetType) or _null(pair.response):
        raise record_error("the request failed: there is no response")
    try:
        envelope = _ENVELOPE.decode(pair.response)
    except msgspec.DecodeError as error:
        raise record_error(f"the response cannot be read: {error}") from error
    if envelope.status_code is not None and envelope.status_code != 200:
        raise record_error("the request failed", status=envelope.status_code)
    return pair.response if isinstance(envelope.body, msgspec.UnsetType) else envelope.body


def _null(raw: msgspec.Raw) -> bool:
    return bytes(raw) == b"null"


def _records(data: bytes | msgspec.Raw, options: StoredOptions) -> list[ApiRecord]:
    read = ReadOptions(options.top_k, options.chosen_takes_a_place, options.vocab_size)
    try:
        return read_response(data, read)
    except UpstreamProtocolError as error:
        # No server is to blame that could be asked again: what is wrong is in the file.
        context = {name: value for name, value in error.context.items() if name != "retry"}
        raise InputError(error.message, context=context) from error


def _generation(record: ApiRecord, request: Body | None, options: StoredOptions) -> Generation:
    model = record.model or (request and isinstance(request.model, str) and request.model) or None
    return Generation(
        prompt=None if request is None else _prompt(request),
        text=record.text,
        steps=record.steps,
        offsets=record.offsets,
        finish_reason=record.finish_reason,
        stop_step=record.stop_step,
        prompt_tokens=record.prompt_tokens,
        sampling=None if request is None else _sampling(request),
        model=stored_identity(model, vocab_size=options.vocab_size),
        logprobs_mode=options.logprobs_mode,
        vocabulary=record.vocabulary,
        duration_s=None,
        token_ids_known=record.token_ids_known,
    )


def _prompt(request: Body) -> Prompt | None:
    """Return the prompt where it is text alone."""
    if isinstance(request.messages, list):
        messages = [_message(message) for message in request.messages]
        known = tuple(message for message in messages if message is not None)
        return known if known and len(known) == len(messages) else None
    prompt = request.prompt
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return prompt if isinstance(prompt, str) else None


def _message(message: Any) -> Message | None:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return None
    content = message.get("content")
    if isinstance(content, list):
        parts: list[Any] = [part.get("text") if isinstance(part, dict) else None for part in content]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    return Message(message["role"], content) if isinstance(content, str) else None


def _sampling(request: Body) -> Sampling | None:
    """Return the settings where the temperature is given; a server's own default is not known."""
    if not isinstance(request.temperature, int | float) or isinstance(request.temperature, bool):
        return None
    values = {name: getattr(request, name) for name in ("temperature", "top_p", "top_k", "seed")}
    try:
        return Sampling(**values)
    except (ConfigurationError, TypeError):
        return None
