"""Which characters of an answer's text each of its tokens stands for, without the model's tokenizer."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice, pairwise
from typing import TypeAlias

__all__ = ["Piece", "PieceDecoder", "Span", "TextAligner"]

Span: TypeAlias = tuple[int, int]

# What a token adds to the text; ``None``: a part of a character, which the next tokens complete.
Piece: TypeAlias = str | None

_REPLACEMENT = "\ufffd"
_LOOK_AHEAD = 512  # tokens that may in a row be missing from the text: special ones, hidden reasoning
_GAP = 16  # characters of the text, for each such token, that it may stand for unseen


class PieceDecoder:
    """Makes pieces of the bytes of tokens, which may cut a character anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bool:
        """Whether a character is incomplete."""
        return bool(self._decoder.getstate()[0])

    def push(self, data: bytes) -> Piece:
        """Return what is complete with these bytes."""
        text = self._decoder.decode(data)
        return None if self.pending and not text else text


class TextAligner:
    """Finds tokens in the text that they make, in any number of parts that need not come together.

    Tokens that are not in the text (special ones, and what a server cuts off) get an empty span as soon as a
    later token is found. Until then they wait, so that the end of the answer stays apart.
    """

    def __init__(self) -> None:
        self.position = 0
        self._text = ""
        self._waiting: deque[Piece] = deque()

    def push(self, text: str, pieces: Sequence[Piece]) -> list[Span]:
        """Take more text and more tokens; return the spans of the tokens that are settled, in order."""
        if not self._waiting and not self._text and (spans := self._whole(text, pieces)) is not None:
            return spans
        self._text += text
        self._waiting.extend(pieces)
        return self._settled(final=False)

    def finish(self) -> tuple[list[Span], str]:
        """Settle what can be when nothing more comes.

        Returns:
            The spans of further tokens, and the text that no token covers. Tokens that are then still
            waiting are not in the text: the token that ended the answer, and others that nobody sees.
        """
        spans = self._settled(final=True)
        # Parts of characters that were never completed stand for what is left.
        parts = [place for place, piece in enumerate(self._waiting) if piece is None or _REPLACEMENT in piece]
        if self._text and parts:
            span = (self.position, self.position + len(self._text))
            spans.extend([span] * (parts[-1] + 1))
            for _ in range(parts[-1] + 1):
                self._waiting.popleft()
            self.position, self._text = span[1], ""
        return spans, self._text

    def _whole(self, text: str, pieces: Sequence[Piece]) -> list[Span] | None:
        """Return all spans if the tokens just make the text, as they mostly do."""
        if not pieces or not pieces[-1] or None in pieces or "".join(_known(pieces)) != text:
            return None
        stops = list(accumulate(map(len, _known(pieces)), initial=self.position))
        self.position = stops[-1]
        return list(pairwise(stops))

    def _settled(self, *, final: bool) -> list[Span]:
        spans: list[Span] = []
        while self._waiting and (found := self._find(final=final)) is not None:
            skipped, gap, size = found
            start, begin = self.position, self.position + gap
            end = begin + size
            for _ in range(skipped):
                part = self._waiting.popleft() is None and not gap
                spans.append((begin, end) if part else (start, begin))
            self._waiting.popleft()
            spans.append((begin if skipped else start, end))
            self._text, self.position = self._text[end - start :], end
        return spans

    def _find(self, *, final: bool) -> tuple[int, int, int] | None:
        """Find the next token that is in the text: tokens before it, characters before it, its length."""
        blank = len(self._text) - len(self._text.lstrip())
        for place, piece in enumerate(islice(self._waiting, _LOOK_AHEAD)):
            if not piece:
                continue
            if not final and piece.startswith(self._text):
                return None if piece != self._text else (place, 0, len(piece))
            furthest = _GAP * place if place else blank
            at = self._text.find(piece, 0, furthest + len(piece))
            if at >= 0:
                return place, at, len(piece)
            bare = piece.lstrip()  # servers cut blanks at the start of an answer
            if self.position == 0 and bare and self._text.startswith(bare):
                return place, 0, len(bare)
        return None


def _known(pieces: Iterable[Piece]) -> list[str]:
    return [piece for piece in pieces if piece is not None]
