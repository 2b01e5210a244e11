"""How many log lines this process could not write: counted where they are lost, shown by the metrics."""

from __future__ import annotations

import threading

__all__ = ["count_lost_line", "lost_lines"]

_lost = 0
_lock = threading.Lock()


def count_lost_line() -> int:
    """Count one and return how many there are."""
    global _lost  # noqa: PLW0603  # one number for the process, whatever its handlers are
    with _lock:
        _lost += 1
        return _lost


def lost_lines() -> int:
    """Return how many log lines could not be written since the start (a full disk, a closed pipe)."""
    return _lost
