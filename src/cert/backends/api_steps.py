"""From listed log-probabilities to the columns of a record: what servers vary in, made one form.

Servers differ in how long their lists are, whether the sampled token is listed where it is not among the
K likeliest (and whether it then takes the place of one that is), in order, and in numbers that stand for
"not known". What cannot be told is NaN: a candidate that is missing is never made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cert.backends.api_names import NO_TOKEN, TokenNames
from cert.core.errors import UpstreamProtocolError
from cert.signals.steps import FloatArray, IntArray, TokenSteps

__all__ = ["Listed", "as_column", "build_steps"]

# log p > 0 is rounding up to here: bfloat16 keeps 3 digits.
_POSITIVE = 1.0e-3
# Probabilities that sum to more than 1 + this are none; rounding to bfloat16 moves a p by 0.4 % at most.
_EXCESS = 0.02
# One token listed twice, as the chosen one and as a candidate: the numbers agree this well.
_SAME = 1.0e-3
# vLLM writes -inf as this, OpenAI any token outside its list, llama.cpp the lowest float.
_UNKNOWN = -9999.0


@dataclass(frozen=True, slots=True)
class Listed:
    """The lists of T steps as a source gave them.

    Attributes:
        ids, logprobs: (T,) of the chosen tokens.
        counts: (T,) the number of candidates of each step.
        candidate_ids, candidate_logprobs: (T, M), M the longest list; shorter ones end with `NO_TOKEN`, NaN.
        own_ids: ids are the model's own; else they are of a `TokenNames`, and two tokens that read the same
            may share one.
        by_text: candidates were the keys of an object, in which of tokens that read the same only one is
            left: a step with fewer than K has lost one.
        chosen_takes_a_place: a list of K may hold the chosen token in place of the K-th likeliest.
    """

    ids: IntArray
    logprobs: FloatArray
    counts: IntArray
    candidate_ids: IntArray
    candidate_logprobs: FloatArray
    own_ids: bool = False
    by_text: bool = False
    chosen_takes_a_place: bool = True

    def usual_count(self) -> int:
        """Return K where nobody says it: the number of candidates that most steps have."""
        listed = Counter(count for count in self.counts.tolist() if count)
        return max(listed, key=lambda count: (listed[count], -count)) if listed else 0


def build_steps(listed: Listed, top_k: int, names: TokenNames) -> TokenSteps:
    """Make the record of T steps with K columns.

    Raises:
        UpstreamProtocolError: a log-probability above 0, probabilities that sum to more than 1, or two
            numbers for one token.
    """
    chosen, logprobs = _checked(listed.logprobs), _checked(listed.candidate_logprobs)
    ids = listed.candidate_ids.copy()
    _sort(ids, logprobs)
    _drop_repeated(ids, logprobs, listed.own_ids, names)
    chosen_ids = _tell_apart(listed, chosen, ids, logprobs, names)
    probability = np.exp(logprobs)
    unknown = np.isnan(probability)
    if unknown.any():
        probability[unknown] = 0.0
    sums = probability.sum(axis=1)
    _check_sums(sums, chosen_ids, chosen, ids)
    if listed.by_text:
        _blank(ids, logprobs, np.flatnonzero(_counts(ids) < top_k), 0)
    if listed.chosen_takes_a_place and 0 < top_k <= ids.shape[1]:
        last = top_k - 1
        rows = np.flatnonzero((ids[:, last] == chosen_ids) & (ids[:, last] != NO_TOKEN))
        # Where less mass is left than it has itself, no token that is not listed can be likelier.
        surely = probability[rows, last] > 1.0 - sums[rows]
        _blank(ids, logprobs, rows[(_counts(ids[rows]) == top_k) & ~surely], last)
    ids, logprobs = _columns(ids, logprobs, top_k)
    return TokenSteps.build(token_ids=chosen_ids, logprob=chosen, top_ids=ids, top_logprobs=logprobs)


# Mostly there is nothing to mend, which is quickly seen over all numbers as one row.


def _checked(logprobs: FloatArray) -> FloatArray:
    highest = np.fmax.reduce(logprobs, axis=None, initial=-np.inf)
    if highest > _POSITIVE:
        raise UpstreamProtocolError(f"the response has a log-probability of {highest:g}, which is above 0")
    clean = np.minimum(logprobs, 0.0)
    unknown = clean <= _UNKNOWN
    if unknown.any():
        clean[unknown] = np.nan
    return clean


def _counts(ids: IntArray) -> IntArray:
    return np.asarray((ids != NO_TOKEN).sum(axis=1))


def _sort(ids: IntArray, logprobs: FloatArray) -> None:
    """Put the likeliest first, in place; those without a number last, as missing."""
    unsorted = logprobs[:, 1:] > logprobs[:, :-1]
    unknown = np.isnan(logprobs)
    if unknown.any():
        ids[unknown] = NO_TOKEN
        unsorted |= unknown[:, :-1] & ~unknown[:, 1:]
    if not unsorted.any():
        return
    rows = np.flatnonzero(unsorted.any(axis=1))
    order = np.argsort(-logprobs[rows], axis=1, kind="stable")
    ids[rows] = np.take_along_axis(ids[rows], order, axis=1)
    logprobs[rows] = np.take_along_axis(logprobs[rows], order, axis=1)


def _drop_repeated(ids: IntArray, logprobs: FloatArray, own_ids: bool, names: TokenNames) -> None:
    """Leave each token once in its step, in place."""
    ordered = np.sort(ids, axis=1)
    repeated = ordered[:, 1:] == ordered[:, :-1]
    if not repeated.any():
        return
    repeated &= ordered[:, 1:] != NO_TOKEN
    for row in np.flatnonzero(repeated.any(axis=1)).tolist():
        _drop_repeated_in(ids[row], logprobs[row], own_ids, names)


def _drop_repeated_in(
    ids: NDArray[np.int64], logprobs: NDArray[np.float64], own_ids: bool, names: TokenNames
) -> None:
    seen: dict[int, list[float]] = {}
    kept: list[tuple[int, float]] = []
    for number, logprob in zip(ids.tolist(), logprobs.tolist(), strict=True):
        before = seen.setdefault(number, [])
        if number == NO_TOKEN or logprob in before:
            continue
        if before and own_ids:
            raise UpstreamProtocolError("the response gives one token two log-probabilities in one step")
        kept.append((names.another(number, len(before)) if before else number, logprob))
        before.append(logprob)
    ids[:], logprobs[:] = NO_TOKEN, np.nan
    for place, (number, logprob) in enumerate(kept):
        ids[place], logprobs[place] = number, logprob


def _tell_apart(
    listed: Listed, chosen: FloatArray, ids: IntArray, logprobs: FloatArray, names: TokenNames
) -> IntArray:
    """Return the chosen ids, where one that only reads like a candidate gets a number of its own."""
    chosen_ids = listed.ids.copy()
    rows, places = np.nonzero(ids == chosen_ids[:, None])
    own = chosen[rows]
    differs = np.abs(logprobs[rows, places] - own) > _SAME * np.maximum(1.0, np.abs(own))
    for row in np.unique(rows[differs]).tolist() if differs.any() else ():
        if listed.own_ids:
            raise UpstreamProtocolError("the response gives one token two log-probabilities in one step")
        chosen_ids[row] = _reads_alike(
            ids[row], logprobs[row], float(chosen[row]), int(chosen_ids[row]), names
        )
    return chosen_ids


def _reads_alike(
    ids: NDArray[np.int64], logprobs: NDArray[np.float64], chosen: float, number: int, names: TokenNames
) -> int:
    # Among the candidates that read the same, the one with the chosen token's own number.
    occurrence = 1
    while (other := names.another(number, occurrence)) in ids:
        if abs(float(logprobs[ids == other][0]) - chosen) <= _SAME * max(1.0, abs(chosen)):
            return other
        occurrence += 1
    return other


def _blank(ids: IntArray, logprobs: FloatArray, rows: IntArray, since: int) -> None:
    if len(rows):
        ids[rows, since:], logprobs[rows, since:] = NO_TOKEN, np.nan


def _columns(ids: IntArray, logprobs: FloatArray, top_k: int) -> tuple[IntArray, FloatArray]:
    missing = top_k - ids.shape[1]
    if missing <= 0:
        return ids[:, :top_k], logprobs[:, :top_k]
    pad = ((0, 0), (0, missing))
    return (
        np.pad(ids, pad, constant_values=NO_TOKEN),
        np.pad(logprobs, pad, constant_values=np.nan),
    )


def _check_sums(sums: FloatArray, chosen_ids: IntArray, chosen: FloatArray, ids: IntArray) -> None:
    outside = (ids != chosen_ids[:, None]).all(axis=1) & ~np.isnan(chosen)
    most = (sums + np.where(outside, np.exp(chosen), 0.0)).max(initial=0.0)
    if most > 1.0 + _EXCESS:
        raise UpstreamProtocolError(f"the probabilities of one step sum to {most:.4g}")


def as_column(values: Sequence[float | None]) -> FloatArray:
    """Return numbers as a column, ``None`` as NaN."""
    return np.array(values, dtype=np.float64)
