"""One batch of generations on one model, from padded prompts to records."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList

from cert.backends.base import FinishReason, Generation, ModelIdentity, Sampling
from cert.backends.control import Ending
from cert.backends.decoding import Watch, decode_watched
from cert.backends.detached import detached
from cert.backends.detokenizer import TokenizerVocabulary, align
from cert.backends.loading import first_line
from cert.backends.rows import Row, steps_of
from cert.core.errors import CertError, GenerationError, NumericalError
from cert.signals.steps import TokenSteps

__all__ = ["BatchRunner", "NoMemoryError", "is_out_of_memory"]

_NO_TIME_LIMIT = 1.0e9


class NoMemoryError(Exception):
    """The device has no memory for this batch; none of its rows is settled."""


@dataclass(frozen=True, slots=True)
class BatchRunner:
    """Runs batches of one model and settles the futures of their rows.

    Attributes:
        stop_ids: every id that ends an answer.
        pad_id: masked out, so that any id will do that the model knows.
    """

    model: Any
    tokenizer: Any
    identity: ModelIdentity
    vocabulary: TokenizerVocabulary
    stop_ids: frozenset[int]
    stop_criteria: StoppingCriteriaList
    pad_id: int

    def run(self, rows: Sequence[Row]) -> None:
        """Generate for rows with one key.

        Raises:
            NoMemoryError: in place of settling any row.
        """
        start = time.perf_counter()
        try:
            watch = self._watch(rows)
            self._decode(rows, watch)
            floats, ids = watch.columns()
        # Models bring their own generation settings, and no list of what those can provoke is complete.
        except Exception as error:
            if is_out_of_memory(error):
                raise NoMemoryError(first_line(error)) from None
            for row in rows:
                row.future.set_exception(self.failure(error))
            return
        for place, row in enumerate(rows):
            try:
                length = watch.lengths[place]
                steps = steps_of(floats[place, :length], ids[place, :length], watch.vocab_size)
                self._settle(row, place, watch, steps, start)
            # A tokenizer is data of the model: what it cannot decode is the failure of this row alone.
            except Exception as error:
                row.future.set_exception(self.failure(error))

    def nothing(self, row: Row) -> Generation:
        """Return the result of a row that asks for no tokens."""
        none = TokenSteps.empty(row.request.top_logprobs, self.identity.vocab_size)
        now = time.perf_counter()
        return self._generation(row, none, row.request.sampling, None, now, now)

    def failure(self, error: Exception) -> CertError:
        """Return the error that tells what the model or its settings did."""
        failure = GenerationError(
            f"model '{self.identity.name}' could not generate: {type(error).__name__}: {first_line(error)}",
            hint="look at the model's generation_config.json",
            context={"model": self.identity.name},
        )
        failure.__cause__ = detached(error)
        return failure

    def _decode(self, rows: Sequence[Row], watch: Watch) -> None:
        input_ids, attention_mask = self._padded([row.prompt_ids for row in rows])
        with torch.inference_mode():
            self.model.generate(
                input_ids,
                attention_mask=attention_mask,
                generation_config=self._generation_config(rows[0].request.sampling, max(watch.limits)),
                custom_generate=decode_watched,
                stopping_criteria=self.stop_criteria,
                watch=watch,
            )

    def _generation(
        self,
        row: Row,
        steps: TokenSteps,
        sampling: Sampling,
        ending: Ending | None,
        start: float,
        first_step_at: float,
    ) -> Generation:
        stopped = len(steps) > 0 and int(steps.token_ids[-1]) in self.stop_ids
        answer = steps[:-1] if stopped else steps
        text, offsets = align(self.tokenizer, answer.token_ids.tolist())
        end = time.perf_counter()
        return Generation(
            prompt=row.request.prompt,
            text=text,
            steps=answer,
            offsets=offsets,
            finish_reason="stop" if stopped else _reason(row, len(steps), ending),
            stop_step=steps[-1:] if stopped else None,
            prompt_tokens=len(row.prompt_ids),
            sampling=sampling,
            model=replace(self.identity, device=str(self.model.device)),
            logprobs_mode="raw",
            vocabulary=self.vocabulary,
            duration_s=end - start,
            stages=(
                ("encode", row.encode_s),
                ("queue", start - row.queued_at),
                ("prefill", max(0.0, first_step_at - start)),
                ("decode", end - max(start, first_step_at)),
            ),
        )

    def _watch(self, rows: Sequence[Row]) -> Watch:
        device = self.model.device
        seeds = [row.seed for row in rows if row.seed is not None]
        return Watch(
            top_k=rows[0].request.top_logprobs,
            limits=[row.limit for row in rows],
            listeners=rows,
            generators=[torch.Generator(device).manual_seed(seed) for seed in seeds],
            stop_ids=self.stop_ids,
        )

    def _settle(self, row: Row, place: int, watch: Watch, steps: TokenSteps, start: float) -> None:
        if (raised := watch.raised.get(place)) is not None:
            row.future.set_exception(raised)
            return
        if watch.failed[place]:
            row.future.set_exception(self._no_distribution(len(steps) - 1))
            return
        sampling = replace(watch.sampling, seed=row.seed)
        ending = watch.endings.get(place)
        generation = self._generation(row, steps, sampling, ending, start, watch.first_step_at)
        if generation.finish_reason in ("timeout", "cancelled"):
            error = row.control.error()
            error.partial = generation
            row.future.set_exception(error)
            return
        try:
            row.tell_the_rest()
        # As in `Watch`: a listener's own failure is its caller's.
        except BaseException as error:
            row.future.set_exception(detached(error))
            return
        row.future.set_result(generation)

    def _no_distribution(self, token: int) -> NumericalError:
        return NumericalError(
            f"NaN or infinite logits, or nothing left to sample from, at token {token}",
            hint="float16 overflows on some models (try bfloat16 or float32); so does a tiny temperature",
            context={"model": self.identity.name, "token": token},
        )

    def _padded(self, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad on the left, so that every row's next token is at the end; the mask rules the padding out."""
        width = max(map(len, prompts))
        ids = [[self.pad_id] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(ids, device=self.model.device), torch.tensor(mask, device=self.model.device)

    def _generation_config(self, sampling: Sampling, max_new_tokens: int) -> Any:
        # What is None here is filled from the model's own generation config, as plain generate does.
        config: Any = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
            max_new_tokens=max_new_tokens,
            do_sample=not sampling.greedy,
            num_beams=1,
            num_return_sequences=1,
            pad_token_id=self.pad_id,
            eos_token_id=sorted(self.stop_ids) or None,
            # A time limit in a model's settings would cut answers by the speed of the machine.
            max_time=_NO_TIME_LIMIT,
        )
        if sampling.greedy:
            # Neutral values, since transformers warns of a model's own sampling settings when it is greedy.
            config.update(temperature=1.0, top_p=1.0, top_k=50)
        else:
            config.update(temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k)
        return config


def _reason(row: Row, length: int, ending: Ending | None) -> FinishReason:
    if length >= row.limit:
        return "context_window" if row.limit < row.request.max_new_tokens else "length"
    # What neither the length nor the outside ended, a stop string did.
    return ending or "stop"


def is_out_of_memory(error: Exception) -> bool:
    """Say whether a failure means that the device has no memory left; torch has no one class for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in said or "can't allocate memory" in said or "not enough memory" in said
    )
