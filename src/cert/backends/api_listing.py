"""The two forms of listed log-probabilities, of chats and of legacy completions, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cert.backends.api_names import NO_TOKEN, Key, TokenNames, id_in_text, is_partial
from cert.backends.api_schema import Logprobs
from cert.backends.api_steps import Listed, as_column
from cert.backends.api_text import Piece, PieceDecoder
from cert.core.errors import UpstreamProtocolError
from cert.signals.steps import FloatArray, IntArray

__all__ = ["listing"]

S = TypeVar("S", np.int64, np.float64)


def listing(
    logprobs: Logprobs[Any] | None, names: TokenNames, decoder: PieceDecoder, chosen_takes_a_place: bool
) -> tuple[Listed | None, Sequence[Piece]]:
    """Return the steps of a choice and what each token adds to the text; ``None`` where there are none.

    Args:
        logprobs: as the choice has them.
        names: of the record, also for its later parts.
        decoder: the same.
        chosen_takes_a_place: see `Listed`.

    Raises:
        UpstreamProtocolError: columns of different lengths, or an id for some tokens only.
    """
    if logprobs is None:
        return None, ()
    entries = logprobs.content or logprobs.refusal
    if entries:
        return _of_entries(entries, names, decoder, chosen_takes_a_place)
    if logprobs.tokens:
        return _of_columns(logprobs, names, chosen_takes_a_place)
    return None, ()


def _of_entries(
    entries: Sequence[Any], names: TokenNames, decoder: PieceDecoder, chosen_takes_a_place: bool
) -> tuple[Listed, Sequence[Piece]]:
    tops = [entry.top_logprobs or () for entry in entries]
    counts = np.array([*map(len, tops)], np.int64)
    tokens = [token for entry, top in zip(entries, tops, strict=True) for token in (entry, *top)]
    if hasattr(entries[0], "bytes"):
        keys: list[Key] = list(map(_key, tokens))
    else:
        texts = [token.token for token in tokens]
        names.unclear = names.unclear or is_partial("\n".join(texts))
        keys = list(texts)
    return _listed(
        keys,
        as_column([token.logprob for token in tokens]),
        counts,
        _own_ids(tokens, names),
        names,
        chosen_takes_a_place,
    ), _pieces(entries, decoder)


def _listed(
    keys: Sequence[Key],
    logprobs: FloatArray,
    counts: IntArray,
    own_ids: Sequence[int] | None,
    names: TokenNames,
    chosen_takes_a_place: bool,
) -> Listed:
    """Part the chosen tokens from the candidates that follow each of them.

    Tokens are numbered step by step, so that a stream has the numbers of the whole.
    """
    numbers = names.numbers(keys) if own_ids is None else np.array(own_ids, np.int64)
    ids, logprobs = _rows(numbers, counts, NO_TOKEN), _rows(logprobs, counts, np.nan)
    return Listed(
        ids=ids[:, 0],
        logprobs=logprobs[:, 0],
        counts=counts,
        candidate_ids=ids[:, 1:],
        candidate_logprobs=logprobs[:, 1:],
        own_ids=own_ids is not None,
        chosen_takes_a_place=chosen_takes_a_place,
    )


def _rows(values: NDArray[S], counts: IntArray, missing: float) -> NDArray[S]:
    """Return a step a row, its chosen token first, filled up to the longest list."""
    steps, widest = len(counts), int(counts.max()) + 1
    if len(values) == steps * widest:
        return values.reshape(steps, widest)
    rows = np.full((steps, widest), missing, dtype=values.dtype)
    rows[np.arange(widest) <= counts[:, None]] = values
    return rows


def _own_ids(tokens: Sequence[Any], names: TokenNames) -> list[int] | None:
    """Return the model's own ids, if these tokens bring them."""
    first = tokens[0]
    if first.id is None and id_in_text(first.token) is None:
        return None
    ids = [token.id if token.id is not None else id_in_text(token.token) for token in tokens]
    known = [number for number in ids if number is not None]
    if len(known) < len(ids):
        raise UpstreamProtocolError("the response has an id for some tokens and none for others")
    names.note(known, (token.token for token in tokens))
    return known


def _key(token: Any) -> Key:
    """Return what tells a token from others: its text, or its bytes where the text does not show them."""
    text: str = token.token
    given = getattr(token, "bytes", None)
    if given and is_partial(text):
        return _bytes(given)
    return text


def _bytes(numbers: Sequence[int]) -> bytes:
    try:
        return bytes(numbers)
    except ValueError:
        raise UpstreamProtocolError("the bytes of a token are not all between 0 and 255") from None


def _pieces(entries: Sequence[Any], decoder: PieceDecoder) -> Sequence[Piece]:
    texts = [entry.token for entry in entries]
    if not is_partial("\n".join(texts)) and not decoder.pending:
        return texts
    return [_piece(decoder, entry) for entry in entries]


def _piece(decoder: PieceDecoder, entry: Any) -> Piece:
    given = getattr(entry, "bytes", None)
    if given is None:
        # Parts of characters, whose bytes nobody knows.
        return None if "\ufffd" in entry.token else entry.token
    piece = decoder.push(_bytes(given))
    # Servers that decode each token by itself give the bytes of U+FFFD for every part of a character.
    return None if piece is not None and "\ufffd" in piece else piece


def _of_columns(
    logprobs: Logprobs[Any], names: TokenNames, chosen_takes_a_place: bool
) -> tuple[Listed, Sequence[Piece]]:
    tokens = logprobs.tokens or []
    chosen = logprobs.token_logprobs or [None] * len(tokens)
    tops = [top or {} for top in logprobs.top_logprobs or [None] * len(tokens)]
    if not len(tokens) == len(chosen) == len(tops):
        raise UpstreamProtocolError("tokens, token_logprobs and top_logprobs differ in length")
    keys = [key for token, top in zip(tokens, tops, strict=True) for key in (token, *top)]
    values = [value for one, top in zip(chosen, tops, strict=True) for value in (one, *top.values())]
    counts = np.array([len(top) for top in tops], np.int64)
    own_ids = _ids_in_texts(keys, names)
    listed = _listed(keys, as_column(values), counts, own_ids, names, chosen_takes_a_place)
    return replace(listed, by_text=own_ids is None), [
        None if "\ufffd" in token else token for token in tokens
    ]


def _ids_in_texts(texts: Sequence[str], names: TokenNames) -> list[int] | None:
    if id_in_text(texts[0]) is None:
        return None
    ids = [number for number in map(id_in_text, texts) if number is not None]
    if len(ids) < len(texts):
        raise UpstreamProtocolError("the response has an id for some tokens and none for others")
    names.note(ids, texts)
    return ids
