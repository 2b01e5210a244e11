"""Answers that occur twice: copies of one answer in both halves of a split break every promise."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import msgspec

from cert.backends.base import Prompt
from cert.core.errors import InputError
from cert.trajectory.calibration.answers import Answer

__all__ = ["Contents", "content_of"]


class _Seen(NamedTuple):
    unit: str
    correct: bool
    where: str


class Contents:
    """Remembers prompts with their answers, by digest.

    Args:
        drop: pass over an answer that is there under another unit, instead of refusing it.

    Attributes:
        unknown: how many answers had no content to look at.
    """

    def __init__(self, *, drop: bool) -> None:
        self._drop = drop
        self._seen: dict[bytes, _Seen] = {}
        self.unknown = 0

    def is_new(self, answer: Answer, unit: str, correct: bool) -> bool:
        """Take an answer, and say whether it is to be kept.

        Raises:
            InputError: it occurs under another unit, or with the other label.
        """
        digest = content_of(answer.prompt, answer.text)
        if digest is None:
            self.unknown += 1
            return True
        first = self._seen.setdefault(digest, _Seen(unit, correct, answer.where))
        if first.correct != correct:
            raise InputError(
                f"the same answer to the same prompt is right and wrong: {first.where} and {answer.where}",
                hint="one of the labels is an error, or the prompt does not hold what the answer is about",
            )
        if first.unit == unit:
            return True
        if self._drop:
            return False
        raise InputError(
            f"the same answer to the same prompt occurs under two units: {first.where} and {answer.where}",
            hint="name the field of what the answers have in common as the unit, or drop the copies",
        )


def content_of(prompt: Prompt | None, text: str | None) -> bytes | None:
    """Return a digest of what was asked and answered, ``None`` where one of them is not known."""
    if prompt is None or text is None:
        return None
    messages = prompt if isinstance(prompt, str) else [(one.role, one.content) for one in prompt]
    return blake2b(msgspec.json.encode([messages, text]), digest_size=16).digest()
