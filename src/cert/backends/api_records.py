"""Responses of the OpenAI API, whole or streamed, as recorded steps: for live servers and stored files alike.

One response gives one `ApiRecord` a choice. Its text is all that was generated as text (reasoning that the
server shows comes first), and its steps are those of the log-probabilities that came with it. A token that
is not in the text at the end of an answer that ended by itself is the model's decision to stop, as in
`cert.backends.base.Generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Any

import msgspec
import numpy as np

from cert.backends.api_listing import listing
from cert.backends.api_names import NO_TOKEN, TokenNames
from cert.backends.api_schema import (
    Choice,
    Response,
    Usage,
    decode_exact,
    decode_response,
)
from cert.backends.api_steps import build_steps
from cert.backends.api_text import PieceDecoder, Span, TextAligner
from cert.backends.base import FinishReason
from cert.backends.control import TokenBlock
from cert.core.errors import UpstreamProtocolError
from cert.signals.steps import IntArray, TokenSteps

__all__ = ["ApiRecord", "ReadOptions", "RecordBuilder", "read_response"]

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What has to be known to read a response.

    Attributes:
        top_k: K; ``None`` takes what most steps of the response have.
        chosen_takes_a_place: a list of K candidates may hold the chosen token in place of the K-th
            likeliest. vLLM's chats do so; where nothing is known of the source it has to be assumed.
        vocab_size: of the model, ``None`` where nobody knows it.
    """

    top_k: int | None = None
    chosen_takes_a_place: bool = True
    vocab_size: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class ApiRecord:
    """What one choice of a response gives of a `cert.backends.base.Generation`.

    Attributes:
        text, steps, offsets, finish_reason, stop_step, vocabulary, token_ids_known, prompt_tokens: as there.
        completion_tokens: as the server counts them, the stop token included where it does.
        model: as the server names it.
        fingerprint: of the server's configuration.
    """

    text: str
    steps: TokenSteps
    offsets: IntArray
    finish_reason: FinishReason
    stop_step: TokenSteps | None
    vocabulary: TokenNames
    token_ids_known: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str | None
    fingerprint: str | None

    def additions(self) -> tuple[str, ...]:
        """Return what each token adds to the text, as `cert.backends.control.TokenBlock` has it."""
        return _additions(self.text, self.offsets.tolist(), 0)[0]


def read_response(data: bytes | str | msgspec.Raw, options: ReadOptions | None = None) -> list[ApiRecord]:
    """Read a whole response (``chat.completion`` or ``text_completion``), one record a choice.

    Raises:
        UpstreamProtocolError: it is no such response, tells of an error, has a text without
            log-probabilities, or has numbers that cannot be log-probabilities.
    """
    options = options or ReadOptions()
    records = _read_choices(decode_response(data), options, exact=False)
    return records if records is not None else _read_choices(decode_exact(data), options, exact=True) or []


def _read_choices(response: Response[Any], options: ReadOptions, *, exact: bool) -> list[ApiRecord] | None:
    """Read all choices; ``None`` if that needs the bytes of tokens, which are slower to decode."""
    if not response.choices:
        raise UpstreamProtocolError("the response has no choices")
    records = []
    for choice in sorted(response.choices, key=lambda choice: choice.index):
        builder = RecordBuilder(options, gives_blocks=False)
        builder.add_choice(choice)
        if not exact and builder.names.unclear:
            return None
        # The usage is that of all choices together.
        builder.note(response, counts=len(response.choices) == 1)
        records.append(builder.finish()[1])
    return records


@dataclass(slots=True)
class RecordBuilder:
    """Builds a record of parts as they come: chunks of a stream, or one whole choice.

    The blocks that it gives out, one after the other, are the record's steps. Who wants the record alone
    saves making them (``gives_blocks``).
    """

    options: ReadOptions = field(default_factory=ReadOptions)
    gives_blocks: bool = True
    names: TokenNames = field(default_factory=TokenNames)
    _aligner: TextAligner = field(default_factory=TextAligner)
    _decoder: PieceDecoder = field(default_factory=PieceDecoder)
    _texts: list[str] = field(default_factory=list)
    _steps: list[TokenSteps] = field(default_factory=list)
    _waiting: list[TokenSteps] = field(default_factory=list)
    _spans: list[Span] = field(default_factory=list)
    _told: int = 0
    _own_ids: bool = False
    _reason: FinishReason | None = None
    _refused: bool = False
    _usage: Usage | None = None
    _model: str | None = None
    _fingerprint: str | None = None
    _top_k: int | None = None

    def __post_init__(self) -> None:
        self._top_k = self.options.top_k

    @property
    def ended(self) -> bool:
        """Whether a reason to finish has come."""
        return self._reason is not None

    @property
    def token_count(self) -> int:
        """Steps so far, those included that may turn out to be the stop token."""
        return sum(map(len, self._steps)) + sum(map(len, self._waiting))

    def feed(self, data: bytes | str) -> TokenBlock | None:
        """Take one chunk of a stream; return the tokens that are settled with it, if any.

        Raises:
            UpstreamProtocolError: as in `read_response`.
        """
        response = decode_exact(data)
        self.note(response)
        choices = [choice for choice in response.choices if choice.index == 0]
        return self.add_choice(choices[0]) if choices else None

    def note(self, response: Response[Any], *, counts: bool = True) -> None:
        """Keep what a response says beside its choices; ``counts`` if its usage is of this choice alone."""
        self._model = response.model or self._model
        self._fingerprint = response.system_fingerprint or self._fingerprint
        if response.usage is not None:
            self._usage = response.usage if counts else Usage(prompt_tokens=response.usage.prompt_tokens)

    def add_choice(self, choice: Choice[Any]) -> TokenBlock | None:
        """Take a choice or the next part of it; return the tokens that are settled with it."""
        said = choice.said
        self._refused = self._refused or bool(said.refusal)
        if choice.finish_reason is not None:
            self._reason = _REASONS.get(choice.finish_reason, "unknown")
        text = said.text
        listed, pieces = listing(
            choice.logprobs, self.names, self._decoder, self.options.chosen_takes_a_place
        )
        if listed is not None:
            if self._top_k is None:
                self._top_k = listed.usual_count()
            self._own_ids = listed.own_ids
            self._waiting.append(build_steps(listed, self._top_k, self.names))
        self._texts.append(text)
        return self._settle(self._aligner.push(text, pieces)) if text or pieces else None

    def finish(self, ending: FinishReason | None = None) -> tuple[TokenBlock | None, ApiRecord]:
        """Return the last tokens and the record.

        Args:
            ending: why the answer was ended from outside; left out, it has to be whole.

        Raises:
            UpstreamProtocolError: there is a text, and not all of it has log-probabilities.
        """
        spans, uncovered = self._aligner.finish()
        reason = ending or ("refusal" if self._refused else self._reason) or "unknown"
        self._stand_for(uncovered, spans, stopped=reason == "stop", whole=ending is None)
        last = self._settle(spans)
        rest = _joined(self._waiting, self._top_k or 0)
        stop = rest[-1:] if reason == "stop" and len(rest) else None
        # Nobody knows yet what the last tokens of an answer that was cut are, unless they are in the text.
        unseen = rest[: len(rest) - (stop is not None)] if ending is None else rest[:0]
        if ending is None and (hidden := self._hidden(stopped=reason == "stop")):
            unseen = _joined([unseen, _not_measured(hidden, unseen.top_k)], unseen.top_k)
        self._waiting = [unseen] if len(unseen) else []
        end = (self._aligner.position,) * 2
        tail = self._settle([end] * len(unseen))
        return _merged(last, tail), self._record(reason, stop)

    def _hidden(self, *, stopped: bool) -> int:
        """Return how many tokens were generated and not listed.

        llama.cpp, which tells tokens by their ids, lists none for the first parts of a character.
        """
        count = self._usage.completion_tokens if self._usage else None
        if not self._own_ids or count is None:
            return 0
        listed = self.token_count
        # An answer may or may not list the token that ended it.
        return max(0, count - listed - (1 if stopped and not sum(map(len, self._waiting)) else 0))

    def _stand_for(self, uncovered: str, spans: list[Span], *, stopped: bool, whole: bool) -> None:
        """Give tokens that are spelled otherwise than the text, all together, what none of them covers."""
        if not uncovered.strip() or not whole:
            return
        loose = sum(map(len, self._waiting)) - len(spans)
        if loose == 0:
            kind = "no" if self.token_count == 0 else "only a part of the"
            raise UpstreamProtocolError(
                f"the response has {kind} log-probabilities of its text",
                hint="ask the server for log-probabilities, or use one that has them",
                context={"retry": False},
            )
        start = self._aligner.position
        self._aligner.position += len(uncovered)
        count = loose - 1 if stopped and loose > 1 else loose
        spans.extend([(start, self._aligner.position)] * count)

    def _settle(self, spans: Sequence[Span]) -> TokenBlock | None:
        if not spans:
            return None
        waiting = _joined(self._waiting, self._top_k or 0)
        steps, rest = waiting[: len(spans)], waiting[len(spans) :]
        self._waiting = [rest] if len(rest) else []
        steps = replace(steps, vocab_size=self.options.vocab_size)
        self._steps.append(steps)
        self._spans.extend(spans)
        if not self.gives_blocks:
            return None
        self._texts = ["".join(self._texts)]
        added, self._told = _additions(self._texts[0], spans, self._told)
        return TokenBlock(steps, added)

    def _record(self, reason: FinishReason, stop: TokenSteps | None) -> ApiRecord:
        usage = self._usage or Usage()
        steps = _joined(self._steps, self._top_k or 0)
        text = "".join(self._texts)
        return ApiRecord(
            text=text if reason not in ("timeout", "cancelled", "early_stop") else text[: self._told],
            steps=steps,
            offsets=_offsets(self._spans),
            finish_reason=reason,
            stop_step=stop,
            vocabulary=self.names,
            token_ids_known=self._own_ids,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            model=self._model,
            fingerprint=self._fingerprint,
        )


def _offsets(spans: Sequence[Span]) -> IntArray:
    flat = np.fromiter(chain.from_iterable(spans), np.int64, 2 * len(spans))
    return flat.reshape(-1, 2)


def _additions(text: str, spans: Sequence[Sequence[int]], told: int) -> tuple[tuple[str, ...], int]:
    """Return what each token adds, and the end of it; of those that share a character the last adds it."""
    added = []
    for span, following in zip_longest(spans, spans[1:]):
        end = told if span == following else max(told, span[1])
        added.append(text[told:end])
        told = end
    return tuple(added), told


def _joined(parts: Sequence[TokenSteps], top_k: int) -> TokenSteps:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return TokenSteps.empty(top_k, None)
    return TokenSteps.build(
        token_ids=np.concatenate([part.token_ids for part in parts]),
        logprob=np.concatenate([part.logprob for part in parts]),
        top_ids=np.concatenate([part.top_ids for part in parts]),
        top_logprobs=np.concatenate([part.top_logprobs for part in parts]),
        vocab_size=parts[0].vocab_size,
    )


def _not_measured(count: int, top_k: int) -> TokenSteps:
    unknown = np.full((count, top_k), NO_TOKEN)
    return TokenSteps.build(
        token_ids=np.full(count, NO_TOKEN),
        logprob=np.full(count, np.nan),
        top_ids=unknown,
        top_logprobs=np.full((count, top_k), np.nan),
    )


def _merged(first: TokenBlock | None, second: TokenBlock | None) -> TokenBlock | None:
    if first is None or second is None:
        return first or second
    return TokenBlock(_joined([first.steps, second.steps], first.steps.top_k), first.texts + second.texts)
