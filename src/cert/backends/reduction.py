"""One fused pass over a batch of raw logits: the few floats a token that are recorded, left on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

__all__ = ["StepColumns", "StepReducer"]

# Width of the blocks whose maxima are compared first when looking for the top K.
_BLOCK = 128
# exp(-1e4) is 0 in every floating-point type, and 0 · -1e4 is 0 where 0 · -inf would be NaN.
_LOG_ZERO = -1.0e4


@dataclass(slots=True)
class StepColumns:
    """What one step leaves of B rows, on the device.

    Attributes:
        floats: (B, 3 + K) float32: log-probability of the chosen token, entropy, self-certainty and the
            top K log-probabilities. A row of NaN comes from logits that are NaN, +inf or all −inf.
        ids: (B, 1 + K) the chosen token and the top K tokens.
    """

    floats: torch.Tensor
    ids: torch.Tensor


class StepReducer:
    """Reduces (B, V) raw logits to `StepColumns`, in float32 with two work buffers of that shape.

    The buffers are kept between steps: fresh ones of this size are returned to the system each time, and
    the page faults would cost more than the arithmetic.
    """

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k
        self._p = torch.empty(0)
        self._z = torch.empty(0)

    def __call__(self, logits: torch.Tensor, chosen: torch.Tensor) -> StepColumns:
        """Reduce one step.

        Args:
            logits: (B, V) float32, not changed.
            chosen: (B,) ids of the tokens that were taken.
        """
        if self._p.shape != logits.shape or self._p.device != logits.device:
            self._p, self._z = torch.empty_like(logits), torch.empty_like(logits)
        p, z = self._p, self._z
        top, top_ids = _top(logits, max(1, min(self.top_k, logits.shape[-1])))
        largest = top[:, :1]
        torch.softmax(logits, dim=-1, out=p)
        # On a CPU softmax adds up one by one, which costs digits over a large vocabulary: its sum is off by
        # up to 1e-3 for a peak over a flat rest. The pairwise sum of its result puts that right.
        mass = p.sum(dim=-1, keepdim=True)
        # With z = x − max x: log Σ exp z = −log p_max, log p = z − log Σ exp z and
        # H = log Σ exp z − Σ p z. Shifted like this, large logits cost no digits.
        log_sum = mass.log() - p.gather(1, top_ids[:, :1]).log_()
        torch.sub(logits, largest, out=z)
        self_certainty = log_sum - z.mean(dim=-1, keepdim=True) - math.log(logits.shape[-1])
        z.clamp_(min=_LOG_ZERO).mul_(p)
        entropy = (log_sum - z.sum(dim=-1, keepdim=True) / mass).clamp_(min=0.0)
        logprob = logits.gather(1, chosen[:, None]) - largest - log_sum
        kept = slice(0, self.top_k)
        return StepColumns(
            floats=torch.cat((logprob, entropy, self_certainty, (top - largest - log_sum)[:, kept]), dim=1),
            ids=torch.cat((chosen[:, None], top_ids[:, kept]), dim=1),
        )


def _top(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest of each row, descending, and their ids.

    In two stages: the k blocks with the largest maxima hold the k largest values, since any value outside
    them is at most the smallest of those k maxima. One pass finds the maxima; the rest is small.
    """
    rows, width = logits.shape
    blocks = width // _BLOCK
    if blocks <= 2 * k:
        values, ids = logits.topk(k, dim=-1)
        return values, ids
    body = logits[:, : blocks * _BLOCK].view(rows, blocks, _BLOCK)
    best = body.amax(dim=-1).topk(k, dim=-1, sorted=False).indices
    candidates = body.gather(1, best[..., None].expand(-1, -1, _BLOCK)).reshape(rows, -1)
    tail = logits[:, blocks * _BLOCK :]
    values, places = torch.cat((candidates, tail), dim=1).topk(k, dim=-1)
    inside = places < candidates.shape[1]
    block = best.gather(1, torch.where(inside, places // _BLOCK, 0))
    in_tail = places - candidates.shape[1] + blocks * _BLOCK
    return values, torch.where(inside, block * _BLOCK + places % _BLOCK, in_tail)
