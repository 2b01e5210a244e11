"""The ids that a request comes with and goes on with, and where an error came through."""

from __future__ import annotations

import contextlib
import re
import secrets
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from cert.core.correlation import correlation_id

__all__ = ["outgoing_headers", "places_of", "trace_id_of", "traced"]

_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_trace: ContextVar[str | None] = ContextVar("cert_trace_id", default=None)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def trace_id_of(header: str) -> str | None:
    """Return the trace id of a W3C ``traceparent``, or ``None`` if it is not one."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None or set(match[1]) == {"0"} or set(match[2]) == {"0"}:
        return None
    return match[1]


def places_of(error: BaseException) -> list[str]:
    """Return where an exception came through, innermost last: files and lines, and no text of its own."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


@contextlib.contextmanager
def traced(trace_id: str | None) -> Iterator[None]:
    """Run a block under the trace that a request came with."""
    token = _trace.set(trace_id)
    try:
        yield
    finally:
        _trace.reset(token)


def outgoing_headers() -> dict[str, str]:
    """Return the headers that carry the request in hand on to a server that we call.

    ``traceparent`` goes on with the trace id that came, or with the correlation id where that can be one.
    """
    identifier = correlation_id()
    if identifier is None:
        return {}
    trace = _trace.get() or (identifier if _TRACE_ID.fullmatch(identifier) else None)
    headers = {"X-Request-ID": identifier}
    if trace is not None and set(trace) != {"0"}:
        headers["traceparent"] = f"00-{trace}-{secrets.token_hex(8)}-00"
    return headers
