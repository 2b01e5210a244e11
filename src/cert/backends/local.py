"""In-process models: any causal language model of transformers, generated and watched in batches."""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import GenerationConfig, StoppingCriteriaList, StopStringCriteria

from cert.backends.base import (
    Capabilities,
    FinishReason,
    Generation,
    GenerationRequest,
    Message,
    ModelIdentity,
    OnStep,
    Outcome,
    Sampling,
)
from cert.backends.decoding import Watch, decode_watched
from cert.backends.detokenizer import TokenizerVocabulary, align
from cert.backends.loading import LoadedModel, LoadOptions, first_line, load_model
from cert.core.errors import (
    CertError,
    GenerationError,
    InputError,
    ModelLoadError,
    NumericalError,
    OutOfMemoryError,
    PromptTooLongError,
)
from cert.signals.steps import TokenSteps

__all__ = ["LocalBackend"]

_NO_TIME_LIMIT = 1.0e9


class LocalBackend:
    """Runs a model of transformers in this process.

    Log-probabilities are of the raw logits: float32, temperature 1, before any processor or warper. The
    tokens are those of plain ``generate`` with the same options and, when sampling, the same seed (for a
    batch of one; in a larger batch each row has its own random numbers, as if it were alone).

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        name: how the model is named in results.
        revision: the commit of its repository, if there is one.
        stop_strings: texts that end an answer; they stay part of it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str | None = None,
        revision: str | None = None,
        stop_strings: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.vocabulary = TokenizerVocabulary(tokenizer)
        # Re-entrant, so that a callback may ask the same model.
        self._lock = threading.RLock()
        self._stop_ids = _stop_ids(model, tokenizer)
        criteria = [StopStringCriteria(tokenizer, list(stop_strings))] if stop_strings else []
        self._stop_criteria = StoppingCriteriaList(criteria)
        self._known_ids = int(model.get_input_embeddings().num_embeddings)
        pad_id = tokenizer.pad_token_id
        # Padding is masked out, so that any id will do that the model knows.
        self._pad_id = int(pad_id) if pad_id is not None and 0 <= pad_id < self._known_ids else 0
        self._identity = ModelIdentity(
            name=name or str(model.config._name_or_path),
            revision=revision,
            backend="transformers",
            vocab_size=_vocab_size(model),
            context_window=_context_window(model),
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
        )

    @classmethod
    def load(cls, name: str, options: LoadOptions | None = None) -> LocalBackend:
        """Load a model by name; see `cert.backends.loading.load_model` for names and errors."""
        loaded: LoadedModel = load_model(name, options)
        try:
            # generate does not hand its tokenizer on to a decoding loop of one's own, without which it
            # refuses stop strings: they are taken over here.
            stop_strings = loaded.model.generation_config.stop_strings or ()
            loaded.model.generation_config.stop_strings = None
            return cls(
                loaded.model,
                loaded.tokenizer,
                name=loaded.name,
                revision=loaded.revision,
                stop_strings=[stop_strings] if isinstance(stop_strings, str) else stop_strings,
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise ModelLoadError(
                f"the settings of model '{name}' make no sense: {error}", context={"model": name}
            ) from error

    @property
    def identity(self) -> ModelIdentity:
        """Which model answers."""
        return self._identity

    @property
    def capabilities(self) -> Capabilities:
        """Everything: raw log-probabilities over the full vocabulary."""
        return Capabilities(logprobs="full", max_top_logprobs=self._identity.vocab_size, logprobs_mode="raw")

    def generate(self, request: GenerationRequest, *, on_step: OnStep | None = None) -> Generation:
        """Run one generation; see `Backend.generate`."""
        (outcome,) = self._generate([request], on_step)
        if isinstance(outcome, CertError):
            raise outcome
        return outcome

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> list[Outcome]:
        """Run several; those with the same way of sampling and the same K run as one batch."""
        return self._generate(requests, None)

    def _generate(self, requests: Sequence[GenerationRequest], on_step: OnStep | None) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(requests)
        groups: dict[object, list[tuple[int, GenerationRequest, list[int]]]] = defaultdict(list)
        for place, request in enumerate(requests):
            try:
                prompt_ids = self.encode(request)
            except CertError as error:
                outcomes[place] = error
                continue
            if request.max_new_tokens == 0:
                nothing = TokenSteps.empty(request.top_logprobs, self._identity.vocab_size)
                outcomes[place] = self._finish(request, nothing, request.sampling, len(prompt_ids), 0.0, 0)
                continue
            key = (replace(request.sampling, seed=None), request.top_logprobs)
            groups[key].append((place, request, prompt_ids))
        for group in groups.values():
            with self._lock:
                generations = self._run(
                    [member[1] for member in group], [member[2] for member in group], on_step
                )
            for (place, _, _), outcome in zip(group, generations, strict=True):
                outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def encode(self, request: GenerationRequest) -> list[int]:
        """Return the ids of a prompt, with the chat template applied once to messages.

        Raises:
            InputError: the prompt gives no token, or the model has no chat template.
            PromptTooLongError: the prompt leaves no room in the context window.
        """
        if isinstance(request.prompt, str):
            ids = self._plain_ids(request.prompt)
        elif not self.tokenizer.chat_template:
            raise InputError(
                f"model '{self._identity.name}' has no chat template, so it cannot be given messages",
                hint="give the prompt as plain text",
            )
        else:
            ids = self._chat_ids(request.prompt)
        window = self._identity.context_window
        if not ids:
            raise InputError("the prompt gives no token")
        if not 0 <= min(ids) <= max(ids) < self._known_ids:
            raise InputError(
                f"the tokenizer gives token {max(ids)} and the model knows {self._known_ids}",
                hint="tokenizer and model do not belong together",
            )
        if window is not None and len(ids) >= window:
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens and the model's context window is {window}",
                hint="shorten the prompt",
                context={"tokens": len(ids), "context_window": window},
            )
        return ids

    def _plain_ids(self, prompt: str) -> list[int]:
        try:
            return list(self.tokenizer(prompt)["input_ids"])
        # A tokenizer is data of the model: whatever it does with this text, it is this one failure.
        except Exception as error:
            raise InputError(f"the tokenizer cannot encode the prompt: {type(error).__name__}") from error

    def _chat_ids(self, messages: Sequence[Message]) -> list[int]:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        try:
            encoded = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
            return list(encoded["input_ids"])
        # A template is a program of the model's author, in a sandbox.
        except Exception as error:
            said = str(error)
            # It may quote a message, and errors carry no prompts.
            quoted = any(message.content and message.content in said for message in messages)
            reason = type(error).__name__ if quoted or not isinstance(error, TemplateError) else said
            raise InputError(f"the model's chat template refuses these messages: {reason}") from error

    def _run(
        self, requests: Sequence[GenerationRequest], prompts: Sequence[list[int]], on_step: OnStep | None
    ) -> list[Outcome]:
        start = time.perf_counter()
        seeds = [_seed(request.sampling) for request in requests]
        limits = [self._room(request, ids) for request, ids in zip(requests, prompts, strict=True)]
        watch = Watch(requests[0].top_logprobs, limits, self._generators(seeds), on_step)
        input_ids, attention_mask = self._padded(prompts)
        try:
            with torch.inference_mode():
                self.model.generate(
                    input_ids,
                    attention_mask=attention_mask,
                    generation_config=self._generation_config(requests[0].sampling, max(limits)),
                    custom_generate=decode_watched,
                    stopping_criteria=self._stop_criteria,
                    watch=watch,
                )
        # Models bring their own generation settings, and no list of what those can provoke is complete.
        except Exception as error:
            if error is watch.interrupted_by:
                raise
            return [self._failure(error) for _ in requests]
        floats, ids = watch.columns()
        duration = time.perf_counter() - start
        outcomes: list[Outcome] = []
        for row, request in enumerate(requests):
            length = watch.lengths[row]
            if watch.failed[row]:
                outcomes.append(self._no_distribution(length - 1))
                continue
            steps = _steps(floats[row, :length], ids[row, :length], watch.vocab_size)
            sampling = replace(watch.sampling, seed=seeds[row])
            outcomes.append(self._finish(request, steps, sampling, len(prompts[row]), duration, limits[row]))
        return outcomes

    def _finish(
        self,
        request: GenerationRequest,
        steps: TokenSteps,
        sampling: Sampling,
        prompt_tokens: int,
        duration_s: float,
        limit: int,
    ) -> Generation:
        stopped = len(steps) > 0 and int(steps.token_ids[-1]) in self._stop_ids
        at_limit = len(steps) >= limit
        cut_short = limit < request.max_new_tokens
        reason: FinishReason = (
            "stop" if stopped or not at_limit else "context_window" if cut_short else "length"
        )
        answer = steps[:-1] if stopped else steps
        text, offsets = align(self.tokenizer, answer.token_ids.tolist())
        return Generation(
            prompt=request.prompt,
            text=text,
            steps=answer,
            offsets=offsets,
            finish_reason=reason,
            stop_step=steps[-1:] if stopped else None,
            prompt_tokens=prompt_tokens,
            sampling=sampling,
            model=self._identity,
            logprobs_mode="raw",
            vocabulary=self.vocabulary,
            duration_s=duration_s,
        )

    def _failure(self, error: Exception) -> CertError:
        kind = OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else GenerationError
        failure = kind(
            f"model '{self._identity.name}' could not generate: {type(error).__name__}: {first_line(error)}",
            hint="look at the model's generation_config.json",
            context={"model": self._identity.name},
        )
        failure.__cause__ = error
        return failure

    def _no_distribution(self, token: int) -> NumericalError:
        return NumericalError(
            f"NaN or infinite logits, or nothing left to sample from, at token {token}",
            hint="float16 overflows on some models (try bfloat16 or float32); so does a tiny temperature",
            context={"model": self._identity.name, "token": token},
        )

    def _room(self, request: GenerationRequest, prompt_ids: list[int]) -> int:
        window = self._identity.context_window
        wanted = request.max_new_tokens
        return wanted if window is None else min(wanted, window - len(prompt_ids))

    def _padded(self, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad on the left, so that every row's next token is at the end; the mask rules the padding out."""
        width = max(map(len, prompts))
        ids = [[self._pad_id] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(ids, device=self.model.device), torch.tensor(mask, device=self.model.device)

    def _generators(self, seeds: Sequence[int | None]) -> list[torch.Generator]:
        device = self.model.device
        return [torch.Generator(device).manual_seed(seed) for seed in seeds if seed is not None]

    def _generation_config(self, sampling: Sampling, max_new_tokens: int) -> Any:
        # What is None here is filled from the model's own generation config, as plain generate does.
        config: Any = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
            max_new_tokens=max_new_tokens,
            do_sample=not sampling.greedy,
            num_beams=1,
            num_return_sequences=1,
            pad_token_id=self._pad_id,
            eos_token_id=sorted(self._stop_ids) or None,
            # A time limit in a model's settings would cut answers by the speed of the machine.
            max_time=_NO_TIME_LIMIT,
        )
        if sampling.greedy:
            # Neutral values, since transformers warns of a model's own sampling settings when it is greedy.
            config.update(temperature=1.0, top_p=1.0, top_k=50)
        else:
            config.update(temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k)
        return config


def _steps(floats: NDArray[np.float64], ids: NDArray[np.int64], vocab_size: int) -> TokenSteps:
    return TokenSteps.build(
        token_ids=ids[:, 0],
        logprob=floats[:, 0],
        top_ids=ids[:, 1:],
        top_logprobs=floats[:, 3:],
        entropy=floats[:, 1],
        self_certainty=floats[:, 2],
        vocab_size=vocab_size,
    )


def _seed(sampling: Sampling) -> int | None:
    if sampling.greedy:
        return None
    return secrets.randbits(63) if sampling.seed is None else sampling.seed


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return every id that ends an answer: models name them in up to three places, seldom the same."""
    named = (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id)
    return frozenset(
        int(token_id)
        for entry in named
        if entry is not None
        for token_id in (entry if isinstance(entry, list | tuple) else [entry])
    )


def _vocab_size(model: Any) -> int:
    """Return the width of the logits: what the output layer has, since a config can say anything."""
    width = getattr(model.get_output_embeddings(), "out_features", None)
    return int(model.config.get_text_config().vocab_size if width is None else width)


def _context_window(model: Any) -> int | None:
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(window) if window else None
