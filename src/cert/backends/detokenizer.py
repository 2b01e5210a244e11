"""Text as it grows: which characters of the decoded text each token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cert.signals.steps import IntArray

__all__ = ["IncrementalDecoder", "TokenizerVocabulary", "align"]

_REPLACEMENT = "\ufffd"


@dataclass(slots=True)
class IncrementalDecoder:
    """Decodes a growing list of ids, O(1) work a token.

    A tokenizer may need the neighbours of a token to decode it (a space before it, the other bytes of a
    character), so each piece is the difference of two decodings that start a little earlier. While a
    character is incomplete no text is given out.
    """

    tokenizer: Any
    ids: list[int] = field(default_factory=list)
    _start: int = 0
    _read: int = 0
    _known: str = ""

    def push(self, token_id: int) -> str:
        """Take the next token and return the text that is complete with it, possibly none."""
        self.ids.append(token_id)
        text = self._decode(self._start, len(self.ids))
        if text.endswith(_REPLACEMENT) or len(text) <= len(self._known):
            return ""
        return self._advance(text)

    def flush(self) -> str:
        """Return what is left when no more tokens come: an incomplete character shows as U+FFFD."""
        text = self._decode(self._start, len(self.ids))
        return self._advance(text) if len(text) > len(self._known) else ""

    def _advance(self, text: str) -> str:
        piece = text[len(self._known) :]
        self._start, self._read = self._read, len(self.ids)
        self._known = self._decode(self._start, self._read)
        return piece

    def _decode(self, start: int, end: int) -> str:
        return _decode(self.tokenizer, self.ids[start:end])


def align(tokenizer: Any, token_ids: Sequence[int]) -> tuple[str, IntArray]:
    """Decode token ids and find the span of each in the text.

    Returns:
        The text without special tokens, and (T, 2) spans in characters as `Generation.offsets` has them.
    """
    text = _decode(tokenizer, token_ids)
    special = set(tokenizer.all_special_ids)
    decoder = IncrementalDecoder(tokenizer)
    spans = np.zeros((len(token_ids), 2), dtype=np.int64)
    position, pending = 0, list[int]()

    def settle(piece: str) -> None:
        nonlocal position
        spans[pending] = (position, position + len(piece))
        position += len(piece)
        pending.clear()

    for index, token_id in enumerate(token_ids):
        spans[index] = position
        if token_id in special:
            continue
        pending.append(index)
        if piece := decoder.push(token_id):
            settle(piece)
    settle(decoder.flush())
    if position != len(text):
        return text, _spans_by_prefix(tokenizer, token_ids, text)
    return text, spans


def _spans_by_prefix(tokenizer: Any, token_ids: Sequence[int], text: str) -> IntArray:
    """Find spans by decoding every prefix: quadratic, for tokenizers whose pieces do not add up."""
    ends = []
    for count in range(1, len(token_ids) + 1):
        decoded = _decode(tokenizer, token_ids[:count])
        common = next((i for i, (a, b) in enumerate(zip(decoded, text, strict=False)) if a != b), None)
        ends.append(min(len(decoded), len(text)) if common is None else common)
    ends[-1:] = [len(text)] if ends else []
    monotonic = np.maximum.accumulate(np.array(ends, dtype=np.int64))
    starts = np.concatenate((np.zeros(min(1, len(ends)), dtype=np.int64), monotonic[:-1]))
    return np.stack((starts, monotonic), axis=1)


def _decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


@dataclass(slots=True)
class TokenizerVocabulary:
    """Names tokens by decoding each once."""

    tokenizer: Any
    _texts: dict[int, str] = field(default_factory=dict)

    def text(self, token_id: int) -> str:
        """Return the text of one token by itself."""
        known = self._texts.get(token_id)
        if known is None:
            known = self._texts[token_id] = str(self.tokenizer.decode([token_id]))
        return known
