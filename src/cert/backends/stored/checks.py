"""What makes recorded numbers impossible: no signal is computed of a record that has such."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cert.backends.stored.items import record_error
from cert.signals.bounds import in_order
from cert.signals.steps import FloatArray, IntArray, TokenSteps

__all__ = ["check_offsets", "check_steps", "impossible", "too_much_mass", "top_mass"]

# log p > 0 is rounding up to here, and so is a sum of probabilities up to 1 + the other: bfloat16 has
# three digits.
_POSITIVE = 1.0e-3
_EXCESS = 0.02
_LARGEST_VOCABULARY = 2**31

Mask = NDArray[np.bool_]


def check_steps(steps: TokenSteps) -> None:
    """Refuse steps that no model can have given.

    Raises:
        InputError: with the reason.
    """
    for reason, bad in impossible(steps).items():
        if bad.any():
            raise record_error(reason)
    if too_much_mass(top_mass(steps.top_logprobs)).any():
        raise record_error("the probabilities of one step sum to more than 1")


def impossible(steps: TokenSteps) -> dict[str, Mask]:
    """Return the steps, of shape (T,), that are impossible for each reason but their sum."""
    top, entropy = steps.top_logprobs, steps.entropy
    most = math.log(max(1, _LARGEST_VOCABULARY if steps.vocab_size is None else steps.vocab_size))
    return {
        "a token has a negative id": np.asarray(steps.token_ids < 0),
        "a log-probability is above 0": np.asarray(steps.logprob > _POSITIVE) | _over(top),
        "candidates are not in descending order": _rising(top),
        "an entropy is outside its range": np.asarray((entropy < -_EXCESS) | (entropy > most + _EXCESS)),
        "a self-certainty is negative": np.asarray(steps.self_certainty < -_EXCESS),
    }


# Mostly there is nothing to find, which is quickly seen over all numbers as one row.


def _over(top: FloatArray) -> Mask:
    over = top > _POSITIVE
    return np.asarray(over.any(axis=1)) if over.any() else np.zeros(len(top), dtype=bool)


def _rising(top: FloatArray) -> Mask:
    flat = top.reshape(-1)
    rising = np.zeros(top.shape, dtype=bool)
    np.greater(flat[1:], flat[:-1], out=rising.reshape(-1)[1:])
    rising[:, :1] = False  # the first candidate follows the last one of the step before
    return np.asarray(rising.any(axis=1)) if rising.any() else rising.reshape(-1)[: len(top)]


def top_mass(top_logprobs: FloatArray) -> FloatArray:
    """Return Σ p_(k) of (T, K) log-probabilities, with the bits that the signals are computed with."""
    return in_order(np.exp(np.ascontiguousarray(top_logprobs.T)))


def too_much_mass(mass: FloatArray) -> Mask:
    """Say of which steps the probabilities of the candidates, summed, cannot be."""
    return np.asarray(mass > 1.0 + _EXCESS)


def check_offsets(offsets: IntArray, text: str) -> None:
    """Refuse offsets that are not spans of the text.

    Raises:
        InputError: with the reason.
    """
    start, end = offsets[:, 0], offsets[:, 1]
    if (start < 0).any() or (end < start).any() or (end > len(text)).any():
        raise record_error("a token lies outside the text")
