"""In-process models: any causal language model of transformers, generated and watched in batches."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from transformers import StoppingCriteriaList, StopStringCriteria

from cert.backends.base import (
    Backend,
    Capabilities,
    Generation,
    GenerationRequest,
    ModelIdentity,
    Outcome,
    Sampling,
    ScoreRequest,
)
from cert.backends.batch import BatchRunner
from cert.backends.control import Control
from cert.backends.detokenizer import IncrementalDecoder, TokenizerVocabulary
from cert.backends.encoding import PromptEncoder
from cert.backends.loading import LoadedModel, LoadOptions, load_model
from cert.backends.memory_fallback import MemoryFallback
from cert.backends.microbatch import IDLE_OF_ACCELERATORS, BatchLimits, MicroBatcher
from cert.backends.quantization import quantization_of
from cert.backends.rows import Row, ScoreRow
from cert.backends.scoring import Scorer
from cert.core.errors import CertError, ModelLoadError, OverloadedError
from cert.core.events import EventHub, default_hub

__all__ = ["LocalBackend"]


class LocalBackend(Backend):
    """Runs a model of transformers in this process.

    Log-probabilities are of the raw logits: float32, temperature 1, before any processor or warper. The
    tokens are those of plain ``generate`` with the same options and, when sampling, the same seed (for a
    batch of one; in a larger batch each row has its own random numbers, as if it were alone).

    Requests of any number of threads and tasks wait in one queue and run in batches.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        name: how the model is named in results.
        revision: the commit of its repository, if there is one.
        stop_strings: texts that end an answer; they stay part of it.
        limits: of a batch and of the queue.
        hub: hears of memory that ended.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str | None = None,
        revision: str | None = None,
        stop_strings: Sequence[str] = (),
        limits: BatchLimits | None = None,
        hub: EventHub | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._identity = _identity(model, name or str(model.config._name_or_path), revision)
        known_ids = int(model.get_input_embeddings().num_embeddings)
        self.encoder = PromptEncoder(tokenizer, self._identity.name, known_ids, self._identity.context_window)
        criteria = [StopStringCriteria(tokenizer, list(stop_strings))] if stop_strings else []
        pad_id = tokenizer.pad_token_id
        self._runner = BatchRunner(
            model=model,
            tokenizer=tokenizer,
            identity=self._identity,
            vocabulary=TokenizerVocabulary(tokenizer),
            stop_ids=_stop_ids(model, tokenizer),
            stop_criteria=StoppingCriteriaList(criteria),
            pad_id=int(pad_id) if pad_id is not None and 0 <= pad_id < known_ids else 0,
        )
        self._memory = MemoryFallback(self._runner, hub=hub or default_hub())
        # Not a method of this object: the queue would hold it in a circle, and the model with it.
        run = partial(_run, self._runner, Scorer(self._runner), self._memory)
        idle = None if model.device.type == "cpu" else IDLE_OF_ACCELERATORS
        self._queue: MicroBatcher[Row | ScoreRow] = MicroBatcher(run, limits or BatchLimits(), idle)
        self.window = 2 * self._queue.limits.rows

    @classmethod
    def load(
        cls,
        name: str,
        options: LoadOptions | None = None,
        *,
        limits: BatchLimits | None = None,
        hub: EventHub | None = None,
    ) -> LocalBackend:
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
                limits=limits,
                hub=hub,
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
        return Capabilities(
            logprobs="full",
            max_top_logprobs=self._identity.vocab_size,
            logprobs_mode="raw",
            scores_chats=bool(self.tokenizer.chat_template),
            chat=bool(self.tokenizer.chat_template),
        )

    def begin(self, request: GenerationRequest, control: Control | None = None) -> Future[Generation]:
        """Put one request into the queue; see `Backend.begin`."""
        return self.prepare(request, control or Control())()

    def begin_score(self, request: ScoreRequest, control: Control | None = None) -> Future[Generation]:
        """Put one given text into the queue; see `Backend.begin_score`."""
        return self.prepare(request, control or Control())()

    def prepare(
        self, request: GenerationRequest | ScoreRequest, control: Control
    ) -> Callable[[], Future[Generation]]:
        """Encode the texts of a request; see `Backend.prepare`."""
        if isinstance(request, ScoreRequest):
            return partial(self._begin, self._score_row(request, control))
        return partial(self._begin, self._row(request, control))

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> list[Outcome]:
        """Run several; those with the same way of sampling and the same K run as one batch."""
        if len(requests) > self.window:
            return super().generate_batch(requests)
        # Queued at once, so that they share a batch whatever the threads' timing.
        prepared = [self._row_or_error(request) for request in requests]
        try:
            self._enqueue([row for row in prepared if isinstance(row, Row)])
        except OverloadedError:
            return super().generate_batch(requests)
        try:
            return [row if isinstance(row, CertError) else _outcome(row) for row in prepared]
        except BaseException:
            for row in prepared:
                if isinstance(row, Row):
                    row.control.cancel()
            raise

    def close(self) -> None:
        """End what runs, withdraw what waits, and end the batch thread."""
        self._queue.close()
        self._memory.close()

    def _row_or_error(self, request: GenerationRequest) -> Row | CertError:
        try:
            return self._row(request, Control())
        except CertError as error:
            return error

    def _row(self, request: GenerationRequest, control: Control) -> Row:
        start = time.perf_counter()
        prompt_ids = self.encoder.encode(request.prompt)
        window = self._identity.context_window
        room = request.max_new_tokens if window is None else window - len(prompt_ids)
        return Row(
            request=request,
            control=control,
            prompt_ids=prompt_ids,
            limit=min(request.max_new_tokens, room),
            seed=_seed(request.sampling),
            encode_s=time.perf_counter() - start,
            decoder=IncrementalDecoder(self.tokenizer),
        )

    def _score_row(self, request: ScoreRequest, control: Control) -> ScoreRow:
        start = time.perf_counter()
        prompt_ids = self.encoder.encode(request.prompt)
        if request.token_ids is not None:
            given = list(request.token_ids)
        else:
            given = self.encoder.encode_completion(request.prompt, request.completion or "")
        self.encoder.check_given(prompt_ids, given)
        return ScoreRow(request, control, prompt_ids, given, time.perf_counter() - start)

    def _begin(self, row: Row | ScoreRow) -> Future[Generation]:
        if isinstance(row, Row):
            self._enqueue([row])
        else:
            self._queue.add([row])
        return row.future

    def _enqueue(self, rows: Sequence[Row]) -> None:
        self._queue.add([row for row in rows if row.limit > 0])
        for row in rows:
            if row.limit == 0:
                row.future.set_result(self._runner.nothing(row))


def _run(runner: BatchRunner, scorer: Scorer, memory: MemoryFallback, jobs: Sequence[Row | ScoreRow]) -> None:
    if rows := [job for job in jobs if isinstance(job, Row)]:
        memory.run(rows, runner.run)
    for job in jobs:
        if isinstance(job, ScoreRow):
            memory.run([job], scorer.run)


def _outcome(row: Row) -> Outcome:
    try:
        return row.control.wait(row.future)
    except CertError as error:
        return error


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


def _identity(model: Any, name: str, revision: str | None) -> ModelIdentity:
    # The width of the logits is what the output layer has, since a config can say anything.
    width = getattr(model.get_output_embeddings(), "out_features", None)
    text_config = model.config.get_text_config()
    window = getattr(text_config, "max_position_embeddings", None)
    return ModelIdentity(
        name=name,
        revision=revision,
        backend="transformers",
        vocab_size=int(text_config.vocab_size if width is None else width),
        context_window=int(window) if window else None,
        device=str(model.device),
        dtype="+".join(filter(None, (str(model.dtype).removeprefix("torch."), quantization_of(model)))),
    )
