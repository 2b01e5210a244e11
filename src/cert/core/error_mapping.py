"""Vendors' exceptions in our own terms: each adapter registers its mapping once; core knows no vendor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cert.core.errors import CertError

__all__ = ["ErrorMapping"]

E = TypeVar("E", bound=BaseException)


class ErrorMapping:
    """A table from exception classes to functions that make a `CertError` of them.

    The most specific registered class decides, so that a vendor's subclass (a spend limit that subclasses a
    rate limit) can mean something else than its base.
    """

    def __init__(self) -> None:
        self._table: dict[type[BaseException], Callable[[Any], CertError]] = {}

    def register(self, kind: type[E], translate: Callable[[E], CertError]) -> None:
        """Say what an exception class becomes; a later registration of the same class replaces it."""
        self._table[kind] = translate

    def covers(self, kind: type[BaseException]) -> bool:
        """Say whether a class or one of its bases is registered."""
        return any(base in self._table for base in kind.__mro__)

    def translate(self, error: BaseException) -> CertError | None:
        """Return our error for a vendor's, or ``None`` if the vendor's class is not registered."""
        for base in type(error).__mro__:
            if base in self._table:
                return self._table[base](error)
        return None

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Raise our error in place of a registered one; anything else passes through unchanged."""
        try:
            yield
        except CertError:
            raise
        except Exception as error:
            mapped = self.translate(error)
            if mapped is None:
                raise
            raise mapped from error
