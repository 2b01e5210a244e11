"""Where tokens come from: the one protocol, what is asked of it and what it answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias

from cert.backends.control import Control, OnStep
from cert.backends.many import fly
from cert.core.errors import CertError, ConfigurationError
from cert.signals.steps import IntArray, TokenSteps

__all__ = [
    "Backend",
    "Capabilities",
    "FinishReason",
    "Generation",
    "GenerationRequest",
    "Message",
    "ModelIdentity",
    "OnStep",
    "Outcome",
    "Prompt",
    "Sampling",
    "ScoreRequest",
    "Vocabulary",
]

FinishReason: TypeAlias = Literal[
    "stop",
    "length",
    "context_window",
    "content_filter",
    "refusal",
    "tool_calls",
    "timeout",
    "cancelled",
    "early_stop",
    "given",
    "unknown",
]
LogprobsMode: TypeAlias = Literal["raw", "processed", "unknown"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


Prompt: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 is greedy decoding; there is no other meaning to 0.
        top_p: nucleus sampling; ``None`` leaves it to the model's own generation config.
        top_k: sampling among the k likeliest; ``None`` leaves it to the model's own generation config.
        seed: of the random numbers of this one request. ``None`` draws one, which the answer names.

    Raises:
        ConfigurationError: a value outside its range.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0.0):
            raise ConfigurationError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ConfigurationError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.top_k is not None and self.top_k < 0:
            raise ConfigurationError(f"top_k must be 0 (off) or more, not {self.top_k}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigurationError(f"seed must be in [0, 2**63), not {self.seed}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken, so that the seed plays no part."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation to run and watch.

    Attributes:
        prompt: plain text to be continued, or the messages of a chat, to which the model's chat template
            is applied.
        max_new_tokens: generate at most so many tokens; 0 is allowed and generates none.
        top_logprobs: K, the candidates to record a step; a vocabulary smaller than K gives all of it.
    """

    prompt: Prompt
    max_new_tokens: int = 150
    sampling: Sampling = Sampling()
    top_logprobs: int = 20

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise ConfigurationError(f"max_new_tokens must be 0 or more, not {self.max_new_tokens}")
        if self.top_logprobs < 0:
            raise ConfigurationError(f"top_logprobs must be 0 or more, not {self.top_logprobs}")


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A text that is there already, to be read by the model token by token (teacher forcing).

    Attributes:
        prompt: what came before it: text, or the messages of a chat without the answer.
        completion: the text to score.
        token_ids: the tokens to score, where they are known. They go before ``completion``: a text that
            is cut into tokens again may give others than the model once chose.
        top_logprobs: as in `GenerationRequest`.

    Raises:
        ConfigurationError: neither or both of ``completion`` and ``token_ids`` are given, or a negative K.
    """

    prompt: Prompt
    completion: str | None = None
    token_ids: tuple[int, ...] | None = None
    top_logprobs: int = 20

    def __post_init__(self) -> None:
        if (self.completion is None) == (self.token_ids is None):
            raise ConfigurationError("give a completion or its token ids, and just one of them")
        if self.top_logprobs < 0:
            raise ConfigurationError(f"top_logprobs must be 0 or more, not {self.top_logprobs}")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model answers.

    Attributes:
        name: as the user gave it: ``reference``, a directory, a hub id, ``openai:MODEL@URL``.
        revision: the commit of the hub repository, or ``None`` where there is none to name.
        backend: what runs it: ``transformers``, a server's dialect such as ``vllm``, ``stored``.
        context_window: tokens of prompt and answer together, ``None`` where the model names no limit.
        dtype: type of the weights, such as ``float32``; ``float32+4bit`` where linear layers are quantised.
    """

    name: str
    revision: str | None
    backend: str
    vocab_size: int | None
    context_window: int | None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can supply, known before the first request.

    Attributes:
        logprobs: of no token, of the chosen one, of the top K as well, or of the full vocabulary.
        max_top_logprobs: the largest K, ``None`` for no limit.
        logprobs_mode: whether log-probabilities are of the raw distribution or of what sampling made of it.
        generates: new text can be generated; stored records cannot.
        scores: a given text can be scored: ``scores_plain`` one after plain text, ``scores_chats`` one after
            messages.
        streams: tokens are told as they come; else a generation comes in one block.
        plain_prompts, chat: plain text can be continued; messages can be answered.
        token_ids: the ids of tokens are the model's own.
        seeds: the seed of a request decides its sample.
    """

    logprobs: Literal["none", "chosen", "top_k", "full"]
    max_top_logprobs: int | None
    logprobs_mode: LogprobsMode
    generates: bool = True
    scores: bool = True
    scores_plain: bool = True
    scores_chats: bool = True
    streams: bool = True
    plain_prompts: bool = True
    chat: bool = True
    token_ids: bool = True
    seeds: bool = True


class Vocabulary(Protocol):
    """Names tokens for people to read."""

    def text(self, token_id: int) -> str:
        """Return the text of one token by itself; a part of a character shows as U+FFFD."""
        ...


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Generation:
    """What one request gave: the text and what was recorded of each of its T tokens.

    The token that ends an answer is the model's decision to stop, not part of the answer, and a server
    does not show it: it is kept apart in ``stop_step`` and no signal counts it.

    Attributes:
        prompt: what was asked, ``None`` where a stored record does not say.
        text: the generated text without special tokens.
        steps: the records of the T tokens.
        offsets: (T, 2) start and end of each token in ``text``, in characters. Tokens that share one
            character (parts of its UTF-8 bytes) all have the span of that character; special tokens have
            an empty one.
        finish_reason: ``stop`` (the model ended), ``length`` (max_new_tokens), ``context_window``;
            ``content_filter``, ``refusal`` and ``tool_calls`` as a server says; ``timeout``, ``cancelled``
            and ``early_stop`` when it was stopped from outside; ``given`` for a scored text.
        stop_step: the record of the stop token (T = 1), or ``None``.
        prompt_tokens: their number, ``None`` where the source does not say.
        sampling: what was really used, the seed included; ``None`` for a scored text, and where a stored
            record does not say.
        duration_s: wall time of the batch that this generation was part of, in seconds; ``None`` where a
            stored record does not say.
        token_ids_known: ids are the model's own; else they number the texts of this record's vocabulary.
        stages: where the time went: (name, seconds).
    """

    prompt: Prompt | None
    text: str
    steps: TokenSteps
    offsets: IntArray
    finish_reason: FinishReason
    stop_step: TokenSteps | None
    prompt_tokens: int | None
    sampling: Sampling | None
    model: ModelIdentity
    logprobs_mode: LogprobsMode
    vocabulary: Vocabulary
    duration_s: float | None
    token_ids_known: bool = True
    stages: tuple[tuple[str, float], ...] = ()

    def __repr__(self) -> str:
        return f"<Generation of {self.model.name!r}: {len(self.steps)} tokens, {self.finish_reason}>"

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text of each token as it stands in ``text`` (shared characters are repeated)."""
        return tuple(self.text[start:end] for start, end in self.offsets.tolist())


Outcome: TypeAlias = Generation | CertError


class Backend(ABC):
    """Runs generations and records them.

    A backend says how one request is begun (`begin`); waiting for it, alone or with others, is the same
    for all.

    Attributes:
        window: requests of one batch that are in flight at once.
    """

    window: int = 64

    @property
    @abstractmethod
    def identity(self) -> ModelIdentity:
        """Which model answers."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What can be recorded of it."""

    @abstractmethod
    def begin(self, request: GenerationRequest, control: Control | None = None) -> Future[Generation]:
        """Take one request and return what will be its generation, without waiting for it.

        The future can be cancelled while the request waits; once it runs, ``control`` ends it. It fails
        with a `CertError`: `GenerationTimeoutError` and `GenerationCancelledError` when ``control`` ended
        it, with what was recorded until then as ``partial``.

        Raises:
            CertError: the request cannot be worked on, or too many are waiting.
        """

    @abstractmethod
    def begin_score(self, request: ScoreRequest, control: Control | None = None) -> Future[Generation]:
        """Take one given text and return what will be its record; as `begin` otherwise."""

    def prepare(
        self, request: GenerationRequest | ScoreRequest, control: Control
    ) -> Callable[[], Future[Generation]]:
        """Do beforehand, on any thread, what takes long in `begin` or `begin_score`; calling does the rest.

        Raises:
            CertError: the request cannot be worked on.
        """
        if isinstance(request, ScoreRequest):
            return partial(self.begin_score, request, control)
        return partial(self.begin, request, control)

    def close(self) -> None:  # noqa: B027  # most have nothing to let go of
        """Let go of threads and connections; nothing may be asked afterwards."""

    def generate(self, request: GenerationRequest, *, on_step: OnStep | None = None) -> Generation:
        """Run one generation, calling ``on_step`` with the number of steps done after each.

        Raises:
            CertError: the request cannot be worked on, or the generation failed.
        """
        control = Control(on_step=on_step)
        return control.wait(self.begin(request, control))

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> list[Outcome]:
        """Run several, in as few batches as the backend can: one outcome a request, in order.

        A request that fails leaves its error in its place and the others unharmed.
        """
        outcomes: list[Outcome | None] = [None] * len(requests)
        for place, outcome in fly(requests, lambda request: _Flight(self, request), self.window):
            outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def score(self, request: ScoreRequest) -> Generation:
        """Score one given text.

        Raises:
            CertError: the request cannot be worked on, or scoring failed.
        """
        control = Control()
        return control.wait(self.begin_score(request, control))


class _Flight:
    def __init__(self, backend: Backend, request: GenerationRequest) -> None:
        self.control = Control()
        self.future: Future[Generation] | None = backend.begin(request, self.control)

    @property
    def result(self) -> Generation:
        return self._result

    def land(self, outcome: Generation | BaseException) -> None:
        if isinstance(outcome, BaseException):
            try:
                raise outcome
            finally:
                del outcome  # which holds this frame
        self._result, self.future = outcome, None
