"""A person labels answers: what comes next, and what each key does. Nothing here reads or shows anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cert.trajectory.calibration.label_file import LabelWriter
from cert.trajectory.calibration.labelling import ToLabel

__all__ = ["SKIPPED", "TAKEN_BACK", "LabellingSession"]

SKIPPED: Final = "skipped by the person who labels"
TAKEN_BACK: Final = "taken back"


class LabellingSession:
    """Goes through answers; each label is durable before the next answer is shown.

    Args:
        answers: in the order in which they are asked.
        writer: where labels go. What it has a label of is not asked again.
        skipped_too: ask again what was skipped before.
    """

    def __init__(self, answers: Sequence[ToLabel], writer: LabelWriter, *, skipped_too: bool = False) -> None:
        self._writer = writer
        self._again = {TAKEN_BACK} | ({SKIPPED} if skipped_too else set())
        self._queue = [one for one in answers if self._is_open(one)]
        self._place = 0
        self.total = len(answers)

    @property
    def current(self) -> ToLabel | None:
        """The answer that is asked now, ``None`` at the end."""
        return self._queue[self._place] if self._place < len(self._queue) else None

    @property
    def done(self) -> int:
        """How many of all have been dealt with, in earlier sessions too."""
        return self.total - len(self._queue) + self._place

    def label(self, correct: bool | None) -> None:
        """Label the current answer, or skip it with ``None``, and go on.

        Raises:
            OutputError: the label could not be written; the answer is still the current one.
        """
        current = self.current
        if current is not None:
            self._writer.write(current.id, correct, reason=SKIPPED if correct is None else None)
            self._place += 1

    def undo(self) -> bool:
        """Take the last label of this session back and go back to its answer; return whether there was one.

        Raises:
            OutputError: that could not be written.
        """
        if self._place == 0:
            return False
        self._writer.write(self._queue[self._place - 1].id, None, reason=TAKEN_BACK)
        self._place -= 1
        return True

    def _is_open(self, one: ToLabel) -> bool:
        known = self._writer.labels.get(one.id)
        return known is None or (known.correct is None and known.reason in self._again)
