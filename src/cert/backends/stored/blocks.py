"""Rows of a Parquet file as flat columns of steps, checked: what signals are computed of at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cert.backends.stored.checks import impossible, too_much_mass
from cert.backends.stored.items import record_error
from cert.core.errors import InputError
from cert.signals.steps import IntArray, TokenSteps

__all__ = ["StepBlock", "refuse_mass", "step_blocks"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class StepBlock:
    """The steps of B generations of one K and one vocabulary, one after the other.

    Attributes:
        rows: (B,) places of the generations in the batch, counted from 0.
        lengths: (B,) T_b.
        steps: the Σ T_b steps, their ids in the integers of the file.
    """

    rows: Rows
    lengths: IntArray
    steps: TokenSteps

    def only(self, good: NDArray[np.bool_]) -> StepBlock:
        """Return the block of some of its generations."""
        tokens = np.repeat(good, self.lengths)
        s = self.steps
        columns = (s.token_ids, s.logprob, s.top_ids, s.top_logprobs, s.entropy, s.self_certainty)
        kept = TokenSteps(*[column[tokens] for column in columns], s.vocab_size)  # type: ignore[arg-type, call-arg]
        return StepBlock(self.rows[good], self.lengths[good], kept)


def step_blocks(batch: Any) -> tuple[list[StepBlock], dict[int, InputError]]:
    """Return the steps of the rows of a batch, in as few blocks as can be, and the errors of the others.

    Whether probabilities sum to more than 1 is left to `refuse_mass`, since their exponentials are computed
    later anyway.
    """
    errors: dict[int, InputError] = {}
    good = _well_formed(batch, errors)
    blocks = []
    for rows in _uniform(batch, good):
        block = _block(batch if len(rows) == len(batch) else batch.take(pa.array(rows)), rows)
        blocks.append(_possible(block, errors))
    return blocks, errors


def refuse_mass(block: StepBlock, mass: Any, errors: dict[int, InputError]) -> None:
    """Add the errors of the generations in which candidates have more probability than there is.

    Args:
        block: the generations.
        mass: Σ p_(k) of each of their steps.
        errors: what is added to, by row.
    """
    bad = too_much_mass(mass)
    if bad.any():
        for row in block.rows[_any(bad, block.lengths)].tolist():
            errors[row] = record_error("the probabilities of one step sum to more than 1")


def _well_formed(batch: Any, errors: dict[int, InputError]) -> Rows:
    """Return the rows whose lists are there and of lengths that fit."""
    top_k = _integers(batch.column("top_k"), -1)
    length = _lengths(batch.column("logprob"))
    reasons = [(top_k < 0, "top_k is missing or negative"), (length < 0, "logprob is missing")]
    for name, per_token in (("token_ids", 1), ("top_ids", top_k), ("top_logprobs", top_k)):
        column = batch.column(name)
        reasons.append((_lengths(column) != length * per_token, f"{name} has not the length that fits"))
        if name != "top_logprobs" and column.flatten().null_count:
            holes = _any(np.asarray(column.flatten().is_null()), np.maximum(_lengths(column), 0))
            reasons.append((holes, f"{name} has a null"))
    for name in ("entropy", "self_certainty"):
        if name in batch.schema.names:
            found = _lengths(batch.column(name))
            reasons.append(((found >= 0) & (found != length), f"{name} has not the length that fits"))
    good = np.ones(len(batch), dtype=bool)
    for bad, reason in reasons:
        for row in np.flatnonzero(bad & good).tolist():
            errors[row] = record_error(reason)
        good &= ~bad
    return np.flatnonzero(good)


def _uniform(batch: Any, rows: Rows) -> list[Rows]:
    """Divide rows by K, by vocabulary and by what is measured."""
    names = batch.schema.names
    parts = [_integers(batch.column("top_k"), -1)]
    parts += [_integers(batch.column("vocab_size"), -1)] if "vocab_size" in names else []
    parts += [
        np.minimum(_lengths(batch.column(name)), 0) for name in ("entropy", "self_certainty") if name in names
    ]
    table = np.stack([part.astype(np.int64)[rows] for part in parts], axis=1)
    if not len(rows) or (table == table[0]).all():
        return [rows] if len(rows) else []
    _, which = np.unique(table, axis=0, return_inverse=True)
    return [rows[which.reshape(-1) == number] for number in range(int(which.max()) + 1)]


def _block(part: Any, rows: Rows) -> StepBlock:
    """Make a block of well-formed rows that are alike."""
    lengths = _lengths(part.column("logprob"))
    k = int(part.column("top_k")[0].as_py())
    vocab_size = part.column("vocab_size")[0].as_py() if "vocab_size" in part.schema.names else None
    n = int(lengths.sum())
    steps = TokenSteps(
        token_ids=_flat(part, "token_ids"),
        logprob=_flat(part, "logprob", np.float64),
        top_ids=_flat(part, "top_ids").reshape(n, k),
        top_logprobs=_flat(part, "top_logprobs", np.float64).reshape(n, k),
        entropy=_measured(part, "entropy", n),
        self_certainty=_measured(part, "self_certainty", n),
        vocab_size=vocab_size,
    )
    return StepBlock(rows, lengths, steps)


def _possible(block: StepBlock, errors: dict[int, InputError]) -> StepBlock:
    """Return the block without the generations that no model can have given."""
    good = np.ones(len(block.rows), dtype=bool)
    if block.steps.vocab_size is not None and block.steps.vocab_size < 1:
        good[:] = False
        errors |= dict.fromkeys(block.rows.tolist(), record_error("vocab_size is not positive"))
        return block.only(good)
    for reason, bad in impossible(block.steps).items():
        if bad.any():
            wrong = _any(bad, block.lengths)
            errors |= {row: record_error(reason) for row in block.rows[wrong & good].tolist()}
            good &= ~wrong
    return block if good.all() else block.only(good)


def _any(flags: NDArray[np.bool_], lengths: IntArray) -> NDArray[np.bool_]:
    """Say of each generation whether one of its tokens is flagged."""
    seen = np.concatenate(([0], np.cumsum(flags)))
    stop = np.cumsum(lengths)
    return np.asarray(seen[stop] > seen[stop - lengths])


def _lengths(column: Any) -> IntArray:
    """Return the lengths of lists, −1 for null."""
    return _integers(pc.list_value_length(column), -1)


def _integers(column: Any, missing: int) -> IntArray:
    filled = pc.fill_null(column, missing) if column.null_count else column
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def _flat(part: Any, name: str, kind: Any = None) -> Any:
    return np.asarray(part.column(name).flatten().to_numpy(zero_copy_only=False), dtype=kind)


def _measured(part: Any, name: str, n: int) -> Any:
    if name not in part.schema.names or part.column(name)[0].as_py() is None:
        return np.full(n, np.nan)
    return _flat(part, name, np.float64)
