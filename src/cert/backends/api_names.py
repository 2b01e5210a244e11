"""Numbers for tokens that a source names by their text alone, and texts for those that it numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count
from typing import TypeAlias

import numpy as np

from cert.signals.steps import IntArray

__all__ = ["NO_TOKEN", "Key", "TokenNames", "id_in_text", "is_partial"]

# A token's text, its bytes where the text cannot show them, or one of these with the number of a further
# token that reads the same.
Key: TypeAlias = str | bytes | tuple[str | bytes, int]

NO_TOKEN = -1  # stands where a candidate is missing; no token has it

_ID_PREFIX = "token_id:"  # vLLM's option return_tokens_as_token_ids


class TokenNames:
    """The tokens of one record, numbered as they first appear; it only grows.

    Where the source gives the model's own ids, those are used (`note`), and this only names them.

    Attributes:
        unclear: a text stands for a part of a character; which one, its bytes would tell.
    """

    def __init__(self) -> None:
        self.unclear = False
        self._numbers: defaultdict[Key, int] = defaultdict(count().__next__)
        self._keys: list[Key] = []  # in the order of their numbers, made when it is asked for
        self._noted: dict[int, str] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return (_restored, (list(self._numbers), self._noted))

    def numbers(self, keys: Sequence[Key]) -> IntArray:
        """Return the numbers of keys, giving new ones to those that are new."""
        return np.fromiter(map(self._numbers.__getitem__, keys), np.int64, len(keys))

    def another(self, number: int, occurrence: int) -> int:
        """Return the number of a token that reads like another one and is not it."""
        key = self._key(number)
        other = (key[0] if isinstance(key, tuple) else key, occurrence)
        if other not in self._numbers:
            self._keys.append(other)
        return self._numbers[other]

    def note(self, ids: Iterable[int], texts: Iterable[str]) -> None:
        """Take the model's own ids with their texts."""
        self._noted.update(zip(ids, texts, strict=True))

    def text(self, token_id: int) -> str:
        """Return the text of one token by itself; a part of a character shows as U+FFFD."""
        if self._noted:
            return self._noted.get(token_id, "")
        if not 0 <= token_id < len(self._numbers):
            return ""
        key = self._key(token_id)
        plain = key[0] if isinstance(key, tuple) else key
        return plain if isinstance(plain, str) else plain.decode("utf-8", "replace")

    def _key(self, number: int) -> Key:
        if len(self._keys) < len(self._numbers):
            self._keys = list(self._numbers)
        return self._keys[number]


def is_partial(text: str) -> bool:
    r"""Say whether a text stands for bytes that make no whole character.

    Servers write U+FFFD in its place, OpenAI ``\x`` and two digits.
    """
    return "\ufffd" in text or "\\x" in text


def id_in_text(text: str) -> int | None:
    """Return the id that a server wrote in place of a token's text, ``None`` if it is a text."""
    digits = text.removeprefix(_ID_PREFIX)
    return int(digits) if digits is not text and digits.isdecimal() and len(digits) < 19 else None


def _restored(keys: list[Key], noted: dict[int, str]) -> TokenNames:
    names = TokenNames()
    names.numbers(keys)
    names.note(noted, noted.values())
    return names
