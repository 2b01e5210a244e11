"""What a running server really gives, found out with a few requests for a token or two each.

A server's kind says what to expect, and versions and start options say otherwise: whether there are
log-probabilities at all, how many, in chats and in completions, while streaming, for a given text; whether
they are raw or of what sampling made of the distribution. The last is told by asking the same prompt at two
temperatures: the gap between two candidates is divided by the temperature, or stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from cert.backends.api_records import ApiRecord, ReadOptions, RecordBuilder, read_response
from cert.backends.base import Capabilities, LogprobsMode, Message, ScoreRequest
from cert.backends.openai_server.chat_scoring import answer_body, opening_body, read_answer, tokens_before
from cert.backends.openai_server.dialects import GENERIC, Dialect, dialect_of_owner
from cert.backends.openai_server.wire import read_score, score_body
from cert.core.errors import (
    CertError,
    ConfigurationError,
    InputError,
    RetriesExhaustedError,
    UpstreamProtocolError,
    UpstreamRejectedError,
    UpstreamUnavailableError,
)
from cert.signals.steps import FloatArray

__all__ = ["Asking", "Profile", "find_out", "stated_profile"]

_MESSAGES = [{"role": "user", "content": "Say one word, any word that comes to mind."}]
_TEXT = "My favourite word is"
_GIVEN = " bread and butter"
# A gap of two candidates that is halved, or not, must be well above what rounding and batching change.
_LEAST_GAP = 0.5


@dataclass(frozen=True, slots=True)
class Asking:
    """The two ways to ask, each under all limits of the backend.

    Attributes:
        whole: takes a body, returns the answer.
        streamed: takes a body, returns the data of all events.
        models: returns the list of models.
    """

    whole: Callable[[Mapping[str, Any]], Awaitable[bytes]]
    streamed: Callable[[Mapping[str, Any]], Awaitable[list[bytes]]]
    models: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a server gives.

    Attributes:
        dialect: its kind.
        chat, plain: messages and plain text can be asked, with log-probabilities.
        max_top_logprobs: candidates a step; 0 where only the chosen token's log-probability comes.
        ask_at_most: candidates that it accepts to be asked for.
        mode: raw or processed, or unknown.
        streams: events carry log-probabilities.
        scores, scores_chats: a text that follows a plain prompt, or messages, can be scored.
        token_ids: tokens come with ids.
        vocab_size, context_window: where it says so.
        fingerprint: of its configuration.
        probed: found out, not assumed.
    """

    dialect: Dialect
    chat: bool
    plain: bool
    max_top_logprobs: int
    ask_at_most: int
    mode: LogprobsMode
    streams: bool
    scores: bool
    scores_chats: bool = False
    token_ids: bool = False
    vocab_size: int | None = None
    context_window: int | None = None
    fingerprint: str | None = None
    probed: bool = True

    @property
    def capabilities(self) -> Capabilities:
        """The same in the terms of all backends."""
        return Capabilities(
            logprobs="top_k" if self.max_top_logprobs else "chosen",
            max_top_logprobs=self.max_top_logprobs,
            logprobs_mode=self.mode,
            scores=self.scores or self.scores_chats,
            scores_plain=self.scores,
            scores_chats=self.scores_chats,
            streams=self.streams,
            plain_prompts=self.plain,
            chat=self.chat,
            token_ids=self.token_ids,
            seeds=self.dialect.seeds,
        )


def stated_profile(dialect: Dialect) -> Profile:
    """Return what a dialect promises, for those who do not want to probe; nothing is taken as raw."""
    return Profile(
        dialect=dialect,
        chat=True,
        plain=dialect.completions,
        max_top_logprobs=dialect.most,
        ask_at_most=dialect.most,
        mode="unknown",
        streams=True,
        scores=dialect.echo_tokens is not None,
        scores_chats=dialect.prompt_logprobs,
        probed=False,
    )


async def find_out(asking: Asking, model: str, stated: Dialect | None, wanted: int) -> Profile:
    """Find out what a server gives for a model.

    Args:
        asking: how to ask it.
        model: as the server names it.
        stated: the dialect that the user named.
        wanted: candidates a step that the user wants at most.

    Raises:
        ConfigurationError: the server gives no log-probabilities, or is of another kind than stated.
        CertError: it cannot be asked: not reached, wrong key, no such model.
    """
    return await _Probe(asking, model, wanted).run(stated)


class _Card(msgspec.Struct):
    id: str = ""
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: dict[str, Any] | None = None


class _Cards(msgspec.Struct):
    data: list[_Card] = []


# What says that a server has no such thing; whatever else is wrong is wrong with the server.
_MISSING = (UpstreamRejectedError, UpstreamProtocolError, UpstreamUnavailableError, InputError)


class _Probe:
    def __init__(self, asking: Asking, model: str, wanted: int) -> None:
        self._asking = asking
        self._model = model
        self._wanted = wanted
        self._dialect = GENERIC
        self._refused: CertError | None = None

    async def run(self, stated: Dialect | None) -> Profile:
        card = await self._card()
        self._dialect = _agreed(stated, dialect_of_owner(card.owned_by, card.id or self._model))
        chat = await self._most({"messages": _MESSAGES, "logprobs": True}, "top_logprobs")
        if stated is None and chat is not None and self._dialect is GENERIC:
            self._dialect = dialect_of_owner(None, self._model, chat[1].fingerprint) or GENERIC
        plain = await self._most({"prompt": _TEXT}, "logprobs") if self._dialect.completions else None
        found = [ways for ways in (chat, plain) if ways is not None]
        if not found:
            raise self._no_logprobs()
        asked, record = found[0]
        form: dict[str, Any] = (
            {"messages": _MESSAGES, "logprobs": True, "top_logprobs": asked}
            if chat
            else {"prompt": _TEXT, "logprobs": asked}
        )
        meta = card.meta or {}
        return Profile(
            dialect=self._dialect,
            chat=chat is not None,
            plain=plain is not None,
            max_top_logprobs=min(self._wanted, *(min(asked, record.steps.top_k) for asked, record in found)),
            ask_at_most=min(asked for asked, _ in found),
            mode=await self._mode(form),
            streams=await self._streams(form),
            scores=await self._scores(),
            scores_chats=chat is not None and await self._scores_chats(),
            token_ids=record.token_ids_known,
            vocab_size=_whole(meta.get("n_vocab")),
            context_window=card.max_model_len or _whole(meta.get("n_ctx")) or _whole(meta.get("n_ctx_train")),
            fingerprint=record.fingerprint,
        )

    def _no_logprobs(self) -> CertError:
        return self._refused or ConfigurationError(
            f"the server gives no log-probabilities for model '{self._model}'",
            hint="start it with log-probabilities on, or take one that has them",
            context={"model": self._model, "missing": "logprobs"},
        )

    async def _card(self) -> _Card:
        """Return the entry of the model in the server's list, an empty one where there is no list."""
        try:
            cards = msgspec.json.decode(await self._asking.models(), type=_Cards).data
        except CertError as error:
            _reraise_unless_missing(error)
            return _Card()
        except msgspec.DecodeError:
            return _Card()
        named = [card for card in cards if card.id == self._model]
        return named[0] if named else _Card(owned_by=cards[0].owned_by, id=cards[0].id) if cards else _Card()

    async def _most(self, form: Mapping[str, Any], field: str) -> tuple[int, ApiRecord] | None:
        """Ask for as many candidates as the server accepts; ``None`` where no log-probabilities come.

        One more than is wanted is tried: with it no chosen token can take another's place.
        """
        counts = {self._wanted + 1, self._wanted, self._dialect.most, 20, 5, 1, 0}
        for asked in sorted(counts, reverse=True):
            if asked < self._dialect.least or asked > self._wanted + 1:
                continue
            record = await self._ask({**form, field: asked, "temperature": 1.0}, tokens=1)
            if record is not None:
                return (asked, record) if len(record.steps) else None
        return None

    async def _ask(self, form: Mapping[str, Any], *, tokens: int) -> ApiRecord | None:
        try:
            answer = await self._asking.whole(self._body(form, tokens))
            # As it is listed: a list that is short says so.
            return _with_stop(read_response(answer, ReadOptions(chosen_takes_a_place=False))[0])
        except CertError as error:
            _reraise_unless_missing(error)
            status = error.context.get("status")
            if status in (401, 403):
                raise
            if status == 404 and "messages" in form:
                self._refused = error
            return None

    def _body(self, form: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        limit = self._dialect.limit_field if "messages" in form else "max_tokens"
        return {"model": self._model, **form, limit: tokens}

    async def _mode(self, form: Mapping[str, Any]) -> LogprobsMode:
        cool = await self._first(form, temperature=1.0)
        warm = await self._first(form, temperature=2.0)
        if cool is None or warm is None:
            return "unknown"
        by_temperature = _told_by_gaps(cool, warm)
        narrow = await self._first(form, temperature=1.0, top_p=0.2) if by_temperature == "raw" else None
        if narrow is None:
            return "unknown" if by_temperature == "raw" else by_temperature
        # Nucleus sampling puts the mass of what it cuts off on what it keeps.
        moved = abs(narrow[0] - cool[0]) > 0.1
        return "processed" if moved or len(narrow) < len(cool) else "raw"

    async def _first(self, form: Mapping[str, Any], **sampling: float) -> FloatArray | None:
        """Return the log-probabilities of the candidates of the first token, those that are known."""
        record = await self._ask({**form, **sampling}, tokens=1)
        if record is None or not len(record.steps):
            return None
        known: FloatArray = record.steps.top_logprobs[0]
        known = known[~np.isnan(known)]
        return known if len(known) else None

    async def _streams(self, form: Mapping[str, Any]) -> bool:
        builder = RecordBuilder(ReadOptions(top_k=1))
        try:
            for data in await self._asking.streamed(self._body({**form, "temperature": 0.0}, 2)):
                builder.feed(data)
            builder.finish()
        except CertError as error:
            _reraise_unless_missing(error)
            return False
        return builder.token_count > 0

    async def _scores(self) -> bool:
        if self._dialect.echo_tokens is None:
            return False
        request = ScoreRequest(_TEXT, completion=_GIVEN, top_logprobs=1)
        try:
            answer = await self._asking.whole(score_body(request, self._model, self._dialect.echo_tokens))
            record = read_score(answer, request, ReadOptions(top_k=1))
        except CertError as error:
            _reraise_unless_missing(error)
            return False
        # Some servers leave the numbers out, some echo the text alone.
        return _measured(record)

    async def _scores_chats(self) -> bool:
        if not self._dialect.prompt_logprobs:
            return False
        messages = tuple(Message(**message) for message in _MESSAGES)
        request = ScoreRequest(messages, completion=_GIVEN.strip(), top_logprobs=1)
        try:
            before = tokens_before(await self._asking.whole(opening_body(request, self._model)))
            answer = await self._asking.whole(answer_body(request, self._model))
            record = read_answer(answer, before, request, ReadOptions(top_k=1))
        except CertError as error:
            _reraise_unless_missing(error)
            return False
        return _measured(record)


def _measured(record: ApiRecord) -> bool:
    return len(record.steps) > 0 and not bool(np.isnan(record.steps.logprob).any())


def _reraise_unless_missing(error: CertError) -> None:
    """Raise what says nothing of what the server has: no answer came, or not now."""
    last = error.__cause__ if isinstance(error, RetriesExhaustedError) else error
    if not isinstance(last, _MISSING):
        raise error


def _with_stop(record: ApiRecord) -> ApiRecord:
    """Count the stop token as a step: an answer of one token may well be that one."""
    return (
        record if len(record.steps) or record.stop_step is None else replace(record, steps=record.stop_step)
    )


def _told_by_gaps(cool: FloatArray, warm: FloatArray) -> LogprobsMode:
    """Tell by the gaps between the likeliest candidate and others at temperatures 1 and 2."""
    width = min(len(cool), len(warm))
    gaps, halved = cool[0] - cool[1:width], warm[0] - warm[1:width]
    wide = gaps > _LEAST_GAP
    if not wide.any():
        return "unknown"
    ratio = float(np.median(halved[wide] / gaps[wide]))
    if abs(ratio - 1.0) < 0.15:
        return "raw"
    return "processed" if abs(ratio - 0.5) < 0.15 else "unknown"


def _agreed(stated: Dialect | None, told: Dialect | None) -> Dialect:
    if stated is None:
        return told or GENERIC
    if told is not None and stated not in (told, GENERIC):
        raise ConfigurationError(
            f"the server says that it is {told.name}, and the stated dialect is {stated.name}",
            hint="leave the dialect to 'auto', or use 'openai-compatible' for a server behind another one",
            context={"stated": stated.name, "told": told.name},
        )
    return stated


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
