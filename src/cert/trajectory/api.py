"""The Hamiltonian monitor: generate with a model and say how far each answer can be trusted.

The name is a picture, not physics: surprisal is drawn as a potential and entropy as a kinetic term, and
their sum as an energy. Every verdict comes from the signals of `cert.signals`, which are the field's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, TypeAlias

from cert.backends.base import Backend, GenerationRequest, Message, OnStep, Prompt, Sampling
from cert.backends.loading import REFERENCE, LoadOptions, peek_vocab_size, require_libraries
from cert.core.errors import InputError, PromptTooLongError
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = ["HamiltonianMonitor", "PromptLike"]

PromptLike: TypeAlias = str | Sequence[Message | Mapping[str, str]]


class HamiltonianMonitor:
    """Watches generations of one model.

    Args:
        model_name: ``reference`` (the default, it comes with the package), a model directory or a hub id.
        preload: load the model now and not at the first analysis.
        config: thresholds and settings.
        options: how the model is loaded and what is allowed to be loaded.
        backend: a backend that is ready; then ``model_name``, ``preload`` and ``options`` play no part.

    Raises:
        ConfigurationError: a threshold that this model could never exceed.
        ResourceError: the model is not there, not safe or not loadable. Told now for a directory, and at
            the first use for a hub id (now with ``preload``).
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] | None = None,
        preload: bool = False,
        *,
        config: TrajectoryConfig | None = None,
        options: LoadOptions | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.config = config or TrajectoryConfig()
        named = REFERENCE if model_name is None else os.fspath(model_name)
        self.model_name = backend.identity.name if backend else named
        self._options = options or LoadOptions()
        self._given = backend
        self._backend = backend
        self._lock = threading.Lock()
        self.config.check_vocabulary(
            backend.identity.vocab_size if backend else peek_vocab_size(self.model_name, self._options)
        )
        if preload:
            self.load()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()

    def load(self) -> Backend:
        """Load the model unless it is loaded, and return its backend."""
        with self._lock:
            if self._backend is None:
                require_libraries()
                from cert.backends.local import LocalBackend

                backend = LocalBackend.load(self.model_name, self._options)
                self.config.check_vocabulary(backend.identity.vocab_size)
                self._backend = backend
            return self._backend

    def unload(self) -> None:
        """Let go of the model's memory. The next analysis loads it again; a given backend is kept."""
        with self._lock:
            self._backend = self._given

    def analyze(
        self,
        prompt: PromptLike,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        sampling_top_k: int | None = None,
        seed: int | None = None,
        on_step: OnStep | None = None,
    ) -> TrajectoryAnalysis:
        """Generate from a prompt and analyse the generation.

        Args:
            prompt: text to continue, or the messages of a chat (`Message` or ``{"role": …, "content": …}``).
            max_new_tokens: this and the next three: ``None`` takes the config's value.
            temperature: 0 is greedy.
            top_p: nucleus sampling.
            sampling_top_k: sampling among the k likeliest.
            seed: of the random numbers; ``None`` draws one, which the result names.
            on_step: called after each step with the number of steps done, for a progress bar.

        Raises:
            InputError: the prompt is no text, empty, over the limit or cannot be encoded.
            ConfigurationError: an option outside its range.
            ResourceError: the model could not be loaded.
            GenerationError: the generation failed.
        """
        config = self.config
        request = GenerationRequest(
            prompt=check_prompt(prompt, config.max_prompt_chars),
            max_new_tokens=config.max_new_tokens if max_new_tokens is None else max_new_tokens,
            sampling=Sampling(
                temperature=config.temperature if temperature is None else temperature,
                top_p=config.top_p if top_p is None else top_p,
                top_k=config.sampling_top_k if sampling_top_k is None else sampling_top_k,
                seed=seed,
            ),
            top_logprobs=config.top_k,
        )
        return analyze_generation(self.load().generate(request, on_step=on_step), config)


def check_prompt(prompt: object, max_chars: int) -> Prompt:
    """Return the prompt as backends take it.

    Raises:
        InputError: it is neither text nor messages, is empty or blank, or holds lone surrogates.
        PromptTooLongError: it has more than ``max_chars`` characters.
    """
    if isinstance(prompt, str):
        checked: Prompt = prompt
    elif isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        checked = tuple(_message(entry) for entry in prompt)
    else:
        raise InputError(f"the prompt must be text or a list of messages, not {type(prompt).__name__}")
    text = checked if isinstance(checked, str) else "".join(message.content for message in checked)
    whole = text if isinstance(checked, str) else text + "".join(message.role for message in checked)
    if not text.strip():
        raise InputError("the prompt is empty")
    if len(text) > max_chars:
        raise PromptTooLongError(
            f"the prompt has {len(text):,} characters and the limit is {max_chars:,}",
            hint="shorten it, or raise max_prompt_chars in TrajectoryConfig",
            context={"chars": len(text), "limit": max_chars},
        )
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the prompt is not valid Unicode: lone surrogate at character {error.start}"
        ) from error
    return checked


def _message(entry: object) -> Message:
    role: object = None
    content: object = None
    if isinstance(entry, Message):
        role, content = entry.role, entry.content
    elif isinstance(entry, Mapping):
        role, content = entry.get("role"), entry.get("content")
    if isinstance(role, str) and isinstance(content, str):
        return Message(role, content)
    raise InputError("a message must have a role and a content, both text")
