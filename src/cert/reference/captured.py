"""One optimiser step as a CUDA graph: a model this small is all launch time otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cert.reference.packing import Rows

__all__ = ["CapturedStep"]

_WARM_UP = 3

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class CapturedStep:
    """Forward, backward, clipping and update of a batch of fixed shape, captured once and replayed.

    The last batch is filled up with rows of weight 0. The optimiser has to be capturable and its learning
    rate a tensor on the device.

    Args:
        loss: of (tokens, weights, documents, positions), each of shape (batch, row), free of synchronisation.
        optimiser: of the parameters that the loss depends on; its state is left as it was found.
        clip: largest norm of the gradient.
        rows: all training data, kept on the device.
        batch: rows a step.
        pad: token id of padding.
    """

    def __init__(
        self,
        loss: Loss,
        optimiser: torch.optim.AdamW,
        clip: float,
        rows: Rows,
        batch: int,
        pad: int,
        device: torch.device,
    ) -> None:
        self._batch = batch
        fill = -len(rows) % batch
        columns = ((rows.tokens, pad), (rows.weights, 0), (rows.documents, 0), (rows.positions, 0))
        self._data = [
            torch.from_numpy(np.pad(column, ((0, fill), (0, 0)), constant_values=value)).to(device)
            for column, value in columns
        ]
        kinds = (torch.long, torch.float32, torch.uint8, torch.long)
        self._input = [part[:batch].to(kind) for part, kind in zip(self._data, kinds, strict=True)]
        self._rates = [group["lr"] for group in optimiser.param_groups]
        parameters = [p for group in optimiser.param_groups for p in group["params"]]

        def step() -> torch.Tensor:
            value = loss(*self._input)
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()
            return value.detach()

        kept = _copies(optimiser)
        self._set_rate(0.0)  # the warm-up then moves no weight
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # the same
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                optimiser.zero_grad(set_to_none=True)
                step()
        torch.cuda.current_stream(device).wait_stream(side)
        optimiser.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = step()
        _restore(optimiser, kept)

    def __call__(self, index: int, rate: float) -> float:
        """Do step ``index`` at a learning rate and return the loss."""
        part = slice(index * self._batch, (index + 1) * self._batch)
        for target, column in zip(self._input, self._data, strict=True):
            target.copy_(column[part])
        self._set_rate(rate)
        self._graph.replay()
        return float(self._loss)

    def _set_rate(self, rate: float) -> None:
        for tensor in self._rates:
            tensor.fill_(rate)


def _copies(optimiser: torch.optim.AdamW) -> dict[Any, dict[str, torch.Tensor]]:
    return {p: {name: value.clone() for name, value in state.items()} for p, state in optimiser.state.items()}


def _restore(optimiser: torch.optim.AdamW, kept: dict[Any, dict[str, torch.Tensor]]) -> None:
    """Put the optimiser's state back in place, where the graph reads it; none is a fresh one, all zero."""
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            value.copy_(kept[parameter][name]) if parameter in kept else value.zero_()
