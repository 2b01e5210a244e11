"""Keeps label values few: each new one is a new time series, for ever."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection

from cert.core.errors import CertError

__all__ = ["OTHER", "Fixed", "Open", "error_codes"]

OTHER = "other"
# Names, versions, hub ids; not sentences, and not paths of this machine.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}")


class Fixed:
    """Lets the given values through and folds all others into ``other``."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(known)

    def __call__(self, value: str) -> str:
        """Return the value for the label."""
        return value if value in self._known else OTHER


class Open:
    """Lets the first few names through, and folds later ones and what is no name into ``other``.

    For names that the configuration sets (a circuit, a budget, a model) and no list knows.

    Args:
        most: how many different values there may be, besides ``other``.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        """Return the value for the label."""
        if value in self._seen:
            return value
        if not _NAME.fullmatch(value):
            return OTHER
        with self._lock:
            if len(self._seen) >= self._most and value not in self._seen:
                return OTHER
            self._seen.add(value)
        return value


def error_codes() -> set[str]:
    """Return the codes of the error tree, with those of packages that are loaded."""
    found: set[str] = set()
    classes = [CertError]
    while classes:
        kind = classes.pop()
        found.add(kind.code)
        classes.extend(kind.__subclasses__())
    return found
