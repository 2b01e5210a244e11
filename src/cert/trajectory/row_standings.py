"""What a gate can say of the rows of a Parquet file, by the columns that tell how each answer was made."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cert.backends.stored.blocks import StepBlock
from cert.backends.stored.generations import MADE_COLUMNS, ending_of, model_of, sampling_of
from cert.backends.stored.items import record_error
from cert.core.errors import CertError, ConfigurationError, InputError
from cert.trajectory.calibration.matching import Made
from cert.trajectory.table_gate import TableGate

__all__ = ["standings_of_rows"]


def standings_of_rows(
    rows: Any, judge: TableGate, blocks: Sequence[StepBlock], broken: Container[int]
) -> tuple[NDArray[np.int8], dict[int, CertError]]:
    """Return the `Standing` of each row of a ``RecordBatch``, and by row what the gate does not cover.

    Args:
        rows: with the columns of `MADE_COLUMNS` that the file has.
        judge: the gate.
        blocks: the steps of the rows.
        broken: rows that are errors already.
    """
    standings = np.zeros(len(rows), dtype=np.int8)
    refused: dict[int, CertError] = {}
    if judge.gate is None:
        return standings, refused
    names = [name for name in MADE_COLUMNS if name in rows.schema.names]
    columns = {name: rows.column(name).to_pylist() for name in names}
    for block in blocks:
        for row, length in zip(block.rows.tolist(), block.lengths.tolist(), strict=True):
            if row in broken:
                continue
            told = {name: column[row] for name, column in columns.items()}
            try:
                standings[row] = judge.standing(_made(told, block.steps.top_k, length))
            except CertError as error:
                refused[row] = error
    return standings, refused


def _made(told: dict[str, Any], top_k: int, length: int) -> Made:
    reason, mode = ending_of(told)
    try:
        sampling = sampling_of(told)
    except (ConfigurationError, TypeError) as error:
        raise _out_of_range(error) from error
    return Made(model_of(told), sampling, mode, top_k, length, reason)


def _out_of_range(error: Exception) -> InputError:
    return record_error(f"the row has a value out of range: {type(error).__name__}")
