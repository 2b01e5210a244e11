"""The id that ties together everything done for one request, across tasks, threads and processes."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["correlated", "correlation_id", "new_correlation_id"]

# An id comes from outside too (a header): only what is safe in a log line and a header is taken over.
_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_current: ContextVar[str | None] = ContextVar("cert_correlation_id", default=None)


def correlation_id() -> str | None:
    """Return the id of the request in hand, if there is one.

    asyncio tasks inherit it; a thread does when its function runs in ``contextvars.copy_context()``, as
    ``asyncio.to_thread`` does by itself. To another process it goes as an argument.
    """
    return _current.get()


def new_correlation_id() -> str:
    """Return a new random id: 128 bits as 32 hexadecimal digits, like a W3C trace id."""
    return secrets.token_hex(16)


@contextlib.contextmanager
def correlated(identifier: str | None = None) -> Iterator[str]:
    """Run a block under an id: the given one if it is safe, else the current one, else a new one."""
    taken = identifier if identifier and _SAFE.fullmatch(identifier) else None
    chosen = taken or _current.get() or new_correlation_id()
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)
