"""Where tokens come from: the one protocol, what is asked of it and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

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
    "Vocabulary",
]

FinishReason: TypeAlias = Literal["stop", "length", "context_window"]
LogprobsMode: TypeAlias = Literal["raw", "processed"]


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
class ModelIdentity:
    """Which model answers.

    Attributes:
        name: as the user gave it: ``reference``, a directory, a hub id.
        revision: the commit of the hub repository, or ``None`` where there is none to name.
        context_window: tokens of prompt and answer together, ``None`` where the model names no limit.
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
    """

    logprobs: Literal["none", "chosen", "top_k", "full"]
    max_top_logprobs: int | None
    logprobs_mode: LogprobsMode


class Vocabulary(Protocol):
    """Names tokens for people to read."""

    def text(self, token_id: int) -> str:
        """Return the text of one token by itself; a part of a character shows as U+FFFD."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Generation:
    """What one request gave: the text and what was recorded of each of its T tokens.

    The token that ends an answer is the model's decision to stop, not part of the answer, and a server
    does not show it: it is kept apart in ``stop_step`` and no signal counts it.

    Attributes:
        text: the generated text without special tokens.
        steps: the records of the T tokens.
        offsets: (T, 2) start and end of each token in ``text``, in characters. Tokens that share one
            character (parts of its UTF-8 bytes) all have the span of that character; special tokens have
            an empty one.
        finish_reason: ``stop`` (the model ended), ``length`` (max_new_tokens), ``context_window``.
        stop_step: the record of the stop token (T = 1), or ``None``.
        sampling: what was really used, the seed included.
        duration_s: wall time of the batch that this generation was part of, in seconds.
    """

    prompt: Prompt
    text: str
    steps: TokenSteps
    offsets: IntArray
    finish_reason: FinishReason
    stop_step: TokenSteps | None
    prompt_tokens: int
    sampling: Sampling
    model: ModelIdentity
    logprobs_mode: LogprobsMode
    vocabulary: Vocabulary
    duration_s: float

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text of each token as it stands in ``text`` (shared characters are repeated)."""
        return tuple(self.text[start:end] for start, end in self.offsets.tolist())


Outcome: TypeAlias = Generation | CertError
OnStep: TypeAlias = Callable[[int], object]


class Backend(Protocol):
    """Runs generations and records them."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What can be recorded of it."""
        ...

    def generate(self, request: GenerationRequest, *, on_step: OnStep | None = None) -> Generation:
        """Run one generation, calling ``on_step`` with the number of steps done after each.

        Raises:
            CertError: the request cannot be worked on, or the generation failed.
        """
        ...

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> list[Outcome]:
        """Run several, in one batch where the backend can: one outcome a request, in order.

        A request that fails leaves its error in its place and the others unharmed.
        """
        ...
