"""Teacher forcing: what the model would have said of each token of a text that is there already."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cert.backends.base import Generation
from cert.backends.batch import BatchRunner, NoMemoryError, is_out_of_memory
from cert.backends.detokenizer import align
from cert.backends.loading import first_line
from cert.backends.reduction import StepColumns, StepReducer
from cert.backends.rows import ScoreRow, steps_of
from cert.core.errors import NumericalError
from cert.signals.steps import TokenSteps

__all__ = ["Scorer"]

# Floats of logits that are alive at once: 256 MB.
_LOGITS = 2**26


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores given texts on the model of a `BatchRunner`, one at a time.

    One forward pass over prompt and text. Where the logits of all positions would not fit well (a large
    vocabulary), the pass runs in blocks of positions that go on from one another's cache.
    """

    runner: BatchRunner

    def run(self, rows: Sequence[ScoreRow]) -> None:
        """Settle the future of one row.

        Raises:
            NoMemoryError: in place of settling it.
        """
        (row,) = rows
        start = time.perf_counter()
        try:
            steps = self._steps(row)
        # As in `BatchRunner.run`: a model of any kind, on any device.
        except Exception as error:
            if is_out_of_memory(error):
                raise NoMemoryError(first_line(error)) from None
            row.future.set_exception(self.runner.failure(error))
            return
        if steps is None:
            row.future.set_exception(row.control.error())
        elif torch.from_numpy(steps.entropy).isnan().any():
            name = self.runner.identity.name
            row.future.set_exception(NumericalError(f"NaN or infinite logits of model '{name}'"))
        else:
            row.future.set_result(self._generation(row, steps, start))

    def _steps(self, row: ScoreRow) -> TokenSteps | None:
        if not row.given_ids:
            return TokenSteps.empty(row.request.top_logprobs, self.runner.identity.vocab_size)
        columns = []
        for column in self._columns(row.prompt_ids, row.given_ids, row.request.top_logprobs):
            columns.append(column)
            if row.control.ending is not None:
                return None
        floats = torch.cat([column.floats for column in columns]).cpu().numpy()
        ids = torch.cat([column.ids for column in columns]).cpu().numpy()
        width = self.runner.identity.vocab_size or 0
        return steps_of(floats, ids, width)

    def _columns(self, before: Sequence[int], given: Sequence[int], top_k: int) -> Iterator[StepColumns]:
        """Yield the columns of the given tokens: token t is predicted at the position before it."""
        model: Any = self.runner.model
        reduce = StepReducer(top_k)
        ids = torch.tensor([*before, *given[:-1]], device=model.device)[None]
        chosen = torch.tensor(given, device=model.device)
        first, whole = len(before) - 1, ids.shape[1]
        block = max(1, _LOGITS // (self.runner.identity.vocab_size or _LOGITS))
        cache = None
        with torch.inference_mode():
            for begin, end in _cuts(first, whole, block):
                # A prompt's own positions come with the first block, and their logits are not wanted.
                wanted = end - max(begin, first)
                outputs = model(
                    input_ids=ids[:, begin:end],
                    past_key_values=cache,
                    use_cache=end < whole,
                    logits_to_keep=wanted,
                    return_dict=True,
                )
                cache = outputs.past_key_values if end < whole else None
                logits = outputs.logits[0, -wanted:].to(torch.float32)
                yield reduce(logits, chosen[end - wanted - first : end - first])

    def _generation(self, row: ScoreRow, steps: TokenSteps, start: float) -> Generation:
        stopped = len(steps) > 0 and int(steps.token_ids[-1]) in self.runner.stop_ids
        answer = steps[:-1] if stopped else steps
        text, offsets = align(self.runner.tokenizer, answer.token_ids.tolist())
        end = time.perf_counter()
        return Generation(
            prompt=row.request.prompt,
            text=text,
            steps=answer,
            offsets=offsets,
            finish_reason="given",
            stop_step=steps[-1:] if stopped else None,
            prompt_tokens=len(row.prompt_ids),
            sampling=None,
            model=replace(self.runner.identity, device=str(self.runner.model.device)),
            logprobs_mode="raw",
            vocabulary=self.runner.vocabulary,
            duration_s=end - start,
            stages=(("encode", row.encode_s), ("queue", start - row.queued_at), ("score", end - start)),
        )


def _cuts(first: int, whole: int, block: int) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin < whole:
        end = min(whole, max(begin, first) + block)
        yield begin, end
        begin = end
