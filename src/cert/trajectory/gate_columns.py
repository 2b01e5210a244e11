"""The gate over columns: the verdicts of many generations at once, as `cert.trajectory.gate` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.trajectory.gate import Thresholds, Verdict

__all__ = ["VERDICTS", "verdicts"]

# What decides when rules disagree, first to last.
VERDICTS: tuple[Verdict, ...] = ("fail", "not_measured", "undecided", "pass")
_FAIL, _NOT_MEASURED, _UNDECIDED, _PASS = range(4)


def verdicts(columns: Mapping[str, NDArray[Any]], thresholds: Thresholds) -> NDArray[np.int8]:
    """Return the verdict of each of B generations as its place in `VERDICTS`.

    Args:
        columns: of shape (B,), as `cert.signals.signal_columns` gives them.
        thresholds: the rules.
    """
    rules = (
        (thresholds.perplexity, "mean_token_perplexity", "mean_token_perplexity"),
        (thresholds.entropy, "max_entropy_lower", "max_entropy_upper"),
        (thresholds.top_k_entropy, "max_top_k_entropy", "max_top_k_entropy"),
        (thresholds.surprise, "final_surprise", "final_surprise"),
    )
    outcomes = [
        _outcomes(columns[lower], columns[upper], threshold)
        for threshold, lower, upper in rules
        if threshold is not None
    ]
    if not outcomes:
        return np.full(len(columns["n_tokens"]), _NOT_MEASURED, dtype=np.int8)
    return np.asarray(np.min(outcomes, axis=0), dtype=np.int8)


def _outcomes(lower: NDArray[Any], upper: NDArray[Any], threshold: float) -> NDArray[np.int8]:
    bounded = np.where(upper <= threshold, _PASS, _UNDECIDED)
    measured = np.where(lower > threshold, _FAIL, bounded)
    return np.where(np.isnan(lower), _NOT_MEASURED, measured).astype(np.int8)
