"""From full next-token distributions to the recorded floats: what device kernels must agree with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cert.signals.bounds import minus_p_log_p
from cert.signals.steps import TokenSteps

__all__ = ["reduce_logits"]


def reduce_logits(logits: ArrayLike, token_ids: ArrayLike, top_k: int) -> TokenSteps:
    """Reduce T rows of raw logits to what is recorded of them, in double precision.

    Args:
        logits: (T, V) raw logits, before temperature or any other processing; −inf rules a token out.
        token_ids: (T,) the chosen tokens.
        top_k: K, the candidates to keep; at most V.

    Raises:
        ValueError: shapes that do not fit, NaN or +inf among the logits, or a row of −inf alone.
    """
    raw = np.asarray(logits, dtype=np.float64)
    chosen = np.asarray(token_ids, dtype=np.int64)
    if raw.ndim != 2 or chosen.shape != raw.shape[:1]:
        raise ValueError(f"logits {raw.shape} and token_ids {chosen.shape} must be (T, V) and (T,)")
    if not 0 <= top_k <= raw.shape[1]:
        raise ValueError(f"top_k must be between 0 and V = {raw.shape[1]}, not {top_k}")
    if raw.size and not np.isfinite(raw.max(axis=1)).all():
        raise ValueError("logits hold NaN or +inf, or a row of −inf alone")
    shifted = raw - raw.max(axis=1, keepdims=True) if raw.size else raw
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    # A stable sort of the negated values: the lower id comes first among equals.
    top_ids = np.argsort(-log_p, axis=1, kind="stable")[:, :top_k]
    return TokenSteps.build(
        token_ids=chosen,
        logprob=np.take_along_axis(log_p, chosen[:, None], axis=1)[:, 0],
        top_ids=top_ids,
        top_logprobs=np.take_along_axis(log_p, top_ids, axis=1),
        entropy=minus_p_log_p(np.exp(log_p), log_p).sum(axis=1),
        self_certainty=-log_p.mean(axis=1) - np.log(raw.shape[1]),
        vocab_size=raw.shape[1],
    )
