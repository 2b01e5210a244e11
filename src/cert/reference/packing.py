"""Whole documents in rows of equal length, with what a document-correct forward pass needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from cert.reference.documents import Document

CHUNK: Final = 4096
OPEN_ROWS: Final = 64


@dataclass(frozen=True)
class Rows:
    """Packed training data, all arrays of shape (rows, length).

    ``documents`` numbers the documents within a row from 1; 0 is padding. ``positions`` starts again at 0
    with each document. ``weights[r, t]`` is the loss weight of *predicting* ``tokens[r, t]``, 0 for a
    document's first token.
    """

    tokens: npt.NDArray[np.int16]
    weights: npt.NDArray[np.float32]
    documents: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def sha256(self) -> str:
        """Digest of the tokens and weights, recorded with the trained model."""
        digest = hashlib.sha256(self.tokens.tobytes())
        digest.update(self.weights.tobytes())
        return digest.hexdigest()


def encode(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[list[int], list[float]]]:
    """Give token ids and loss weights of each document."""
    source = iter(documents)
    while chunk := list(islice(source, CHUNK)):
        encodings = tokenizer.encode_batch([document.text for document in chunk], add_special_tokens=False)
        for document, encoding in zip(chunk, encodings, strict=True):
            yield encoding.ids, _weights(document, encoding)


def _weights(document: Document, encoding: Encoding) -> list[float]:
    weights = [document.rest] * len(encoding.ids)
    for start, end, weight in document.spans:
        for index, (first, _) in enumerate(encoding.offsets):
            if start <= first < end:
                weights[index] = weight
    weights[0] = 0.0
    return weights


def pack(encoded: Iterable[tuple[Sequence[int], Sequence[float]]], length: int, pad: int) -> Rows:
    """First-fit packing over a few open rows, in order, so that neighbours in time stay neighbours.

    Raises `ValueError` for a document longer than a row: none is ever cut.
    """
    open_rows: list[list[tuple[Sequence[int], Sequence[float]]]] = []
    room: list[int] = []
    done: list[list[tuple[Sequence[int], Sequence[float]]]] = []
    for item in encoded:
        size = len(item[0])
        if size > length:
            raise ValueError(f"a document of {size} tokens does not fit a row of {length}")
        fit = next((i for i, free in enumerate(room) if free >= size), None)
        if fit is None:
            if len(open_rows) == OPEN_ROWS:
                fullest = min(range(OPEN_ROWS), key=room.__getitem__)
                done.append(open_rows.pop(fullest))
                room.pop(fullest)
            open_rows.append([])
            room.append(length)
            fit = -1
        open_rows[fit].append(item)
        room[fit] -= size
    return _fill(done + open_rows, length, pad)


def _fill(packed: list[list[tuple[Sequence[int], Sequence[float]]]], length: int, pad: int) -> Rows:
    shape = (len(packed), length)
    rows = Rows(
        np.full(shape, pad, np.int16),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.uint8),
        np.zeros(shape, np.int16),
    )
    for r, items in enumerate(packed):
        start = 0
        for number, (tokens, weights) in enumerate(items, 1):
            end = start + len(tokens)
            rows.tokens[r, start:end] = tokens
            rows.weights[r, start:end] = weights
            rows.documents[r, start:end] = number
            rows.positions[r, start:end] = np.arange(len(tokens))
            start = end
    return rows
