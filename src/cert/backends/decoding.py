"""The watched decoding loop: transformers' own, with one reduction a step and nothing else added.

It is handed to ``generate`` as its ``custom_generate`` callable, so that ``generate`` prepares inputs,
cache, logits processors and stopping criteria exactly as it does for an unwatched generation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cert.backends.base import Sampling
from cert.backends.control import Ending
from cert.backends.detached import detached
from cert.backends.reduction import StepColumns, StepReducer

__all__ = ["Listener", "Watch", "decode_watched"]


class Listener(Protocol):
    """Whoever follows one row of a batch from step to step."""

    @property
    def ending(self) -> Ending | None:
        """Why the row has to end now, ``None`` while it may go on."""
        ...

    @property
    def listens(self) -> bool:
        """Whether `tell` wants the floats and ids of each step."""
        ...

    @property
    def follows(self) -> bool:
        """Whether `follow` wants the floats of each step."""
        ...

    def follow(self, count: int, values: Sequence[float], token_id: int) -> None:
        """Take step number ``count`` and decide whether the row goes on; before `tell`."""
        ...

    def tell(self, count: int, floats: NDArray[Any] | None, ids: NDArray[Any] | None, width: int) -> None:
        """Hear of step number ``count``; what it raises ends the row."""
        ...


@dataclass(slots=True)
class Watch:
    """What a batch of B generations is watched with, and what was recorded of it.

    Attributes:
        top_k: K, the candidates to keep a step.
        limits: (B,) the most tokens each row may have.
        listeners: (B,) who follows each row.
        generators: one source of random numbers a row, so that a row's sample does not depend on its
            neighbours; empty for greedy decoding.
        stop_ids: ids that end an answer and are told to nobody.
        steps: the columns of each step, appended as the generation goes.
        lengths: (B,) steps of each row, the one that ended it included.
        failed: (B,) rows that were stopped since their logits, or what sampling made of them, give no
            distribution.
        endings: why rows were ended from outside.
        raised: what the listeners of rows raised.
        vocab_size: V, the width of the logits.
        sampling: what was really used, with the model's own settings filled in.
        first_step_at: `time.perf_counter` after the first step.
    """

    top_k: int
    limits: Sequence[int]
    listeners: Sequence[Listener] = ()
    generators: Sequence[torch.Generator] = ()
    stop_ids: frozenset[int] = frozenset()
    steps: list[StepColumns] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    failed: list[bool] = field(default_factory=list)
    endings: dict[int, Ending] = field(default_factory=dict)
    raised: dict[int, BaseException] = field(default_factory=dict)
    vocab_size: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    first_step_at: float = 0.0

    def take(self, step: StepColumns, width: int, rows: Sequence[bool]) -> list[int]:
        """Record a step, tell the listeners of the rows that took it, and return the rows to end."""
        if not self.steps:
            self.first_step_at = time.perf_counter()
        self.steps.append(step)
        self.vocab_size = width
        floats = ids = None
        if any(listener.listens for listener in self.listeners):
            floats, ids = step.floats.cpu().numpy(), step.ids.cpu().numpy()
        if any(listener.follows for listener in self.listeners):
            self._follow(step, rows)
        ended = []
        for row, listener in enumerate(self.listeners):
            if rows[row] and not self._tell(row, listener, floats, ids):
                ended.append(row)
        return ended

    def _follow(self, step: StepColumns, rows: Sequence[bool]) -> None:
        # Plain numbers: on a small model arrays would cost more than what is reckoned with them.
        values, chosen = step.floats.tolist(), step.ids[:, 0].tolist()
        for row, listener in enumerate(self.listeners):
            # As in `_tell`: no stop token, and no row that is about to fail.
            if rows[row] and chosen[row] not in self.stop_ids and not math.isnan(values[row][1]):
                try:
                    listener.follow(len(self.steps), values[row], chosen[row])
                except BaseException as error:
                    self.raised[row] = detached(error)

    def columns(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Bring the records to the host: (B, T, 3 + K) floats and (B, T, 1 + K) ids."""
        floats = torch.stack([step.floats for step in self.steps], dim=1)
        ids = torch.stack([step.ids for step in self.steps], dim=1)
        return floats.cpu().numpy().astype(np.float64), ids.cpu().numpy().astype(np.int64)

    def _tell(
        self, row: int, listener: Listener, floats: NDArray[Any] | None, ids: NDArray[Any] | None
    ) -> bool:
        # A stop token is no part of the answer, and a row of NaN is about to fail.
        told = (
            floats is not None
            and ids is not None
            and int(ids[row, 0]) not in self.stop_ids
            and not np.isnan(floats[row, 1])
        )
        if row in self.raised:
            return False
        try:
            listener.tell(
                len(self.steps),
                floats[row] if told and floats is not None else None,
                ids[row] if told and ids is not None else None,
                self.vocab_size,
            )
        # Whatever a caller's listener does, it is that caller's own, and the other rows go on.
        except BaseException as error:
            self.raised[row] = detached(error)
            return False
        if (ending := listener.ending) is not None:
            self.endings[row] = ending
        return ending is None


def decode_watched(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    watch: Watch,
    **model_kwargs: Any,
) -> torch.Tensor:
    """Generate until every row has ended, recording each step in ``watch``.

    The signature and the calls on ``model`` are those of transformers' own sampling loop. The recorded
    distribution is the raw one: it is read before any logits processor sees it.

    Returns:
        (B, prompt + T) the ids, padded after the end of each row.
    """
    reduce = StepReducer(watch.top_k)
    rows, device = input_ids.shape[0], input_ids.device
    limits = torch.tensor(watch.limits, device=device)
    lengths = torch.zeros(rows, dtype=torch.long, device=device)
    failed = torch.zeros(rows, dtype=torch.bool, device=device)
    active = torch.ones(rows, dtype=torch.bool, device=device)
    alive = [True] * rows
    pad = generation_config.pad_token_id
    outputs = model._prefill(input_ids, generation_config, model_kwargs)
    with model._optimize_model_for_decode():
        while True:
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
            logits = outputs.logits[:, -1].to(device=device, dtype=torch.float32)
            # Else the logits of a long prompt would stay alive through the next forward pass.
            del outputs
            chosen, broken = _choose(
                input_ids, logits, logits_processor, generation_config.do_sample, watch.generators
            )
            step = reduce(logits, chosen)
            lengths += active
            failed |= active & (broken | step.floats[:, 1].isnan())
            input_ids = torch.cat((input_ids, torch.where(active, chosen, pad)[:, None]), dim=-1)
            ended = watch.take(step, logits.shape[-1], alive)
            active = active & ~failed & (lengths < limits) & ~stopping_criteria(input_ids, None)
            if ended:
                active[ended] = False
            alive = active.tolist()
            if not any(alive):
                break
            model_inputs = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=1 if model_kwargs["use_cache"] else None, **model_kwargs
            )
            outputs = model(**model_inputs, return_dict=True)
    watch.lengths, watch.failed = lengths.tolist(), failed.tolist()
    if generation_config.do_sample:
        config = generation_config
        watch.sampling = Sampling(temperature=config.temperature, top_p=config.top_p, top_k=config.top_k)
    return input_ids


def _choose(
    input_ids: torch.Tensor,
    logits: torch.Tensor,
    logits_processor: Any,
    do_sample: bool,
    generators: Sequence[torch.Generator],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the chosen ids and which rows had nothing to choose from."""
    # Processors may write into what they are given, and the raw logits are still to be read.
    scores = logits_processor(input_ids, logits.clone()) if len(logits_processor) else logits
    if not do_sample:
        chosen = scores.argmax(dim=-1)
        return chosen, ~scores.gather(1, chosen[:, None])[:, 0].isfinite()
    # A row of NaN would stop the whole batch here (on CUDA, the process); it is caught just after.
    p = scores.softmax(dim=-1)
    broken = p[:, 0].isnan()
    p.nan_to_num_(nan=1.0)
    drawn = [torch.multinomial(row, 1, generator=g) for row, g in zip(p, generators, strict=True)]
    return torch.cat(drawn), broken
