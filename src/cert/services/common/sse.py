"""Server-sent events (WHATWG HTML, 9.2) with a heartbeat, for as long as somebody reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import StreamingResponse

from cert.core.errors import CertError
from cert.services.common.errors import GENERIC, problem, problem_of

__all__ = ["Event", "EventStream", "event_stream"]

HEARTBEAT = b": still here\n\n"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: a name, JSON-ready data, and an id to resume after."""

    name: str
    data: Any
    id: str | None = None

    def encode(self) -> bytes:
        """Return it as it goes over the wire. JSON has no bare line break, so that one line holds it."""
        head = f"id: {self.id}\n" if self.id is not None else ""
        return f"{head}event: {self.name}\ndata: ".encode() + msgspec.json.encode(self.data) + b"\n\n"


class EventStream(StreamingResponse):
    """A response of events."""

    media_type = "text/event-stream"


def event_stream(events: AsyncIterator[Event], *, heartbeat: float = 15.0) -> EventStream:
    """Send events as they come.

    One event is asked for at a time, and the next when the reader has taken it: a slow reader slows its own
    source and fills nothing. When the reader goes away the source is closed, which ends what makes it. An
    error of the source becomes a last event ``error``, a problem as an answer would have been.
    """
    return EventStream(
        _encoded(events, heartbeat), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


async def _encoded(events: AsyncIterator[Event], heartbeat: float) -> AsyncGenerator[bytes, None]:
    source = aiter(events)
    asked: asyncio.Task[Event] | None = None
    try:
        while True:
            asked = asked or asyncio.ensure_future(_next(source))
            done, _ = await asyncio.wait({asked}, timeout=heartbeat)
            if not done:
                yield HEARTBEAT
                continue
            finished, asked = asked, None
            try:
                event = finished.result()
            except StopAsyncIteration:
                return
            except CertError as error:
                yield Event("error", problem_of(error)).encode()
                return
            except Exception:
                yield Event("error", problem(500, "internal", GENERIC)).encode()
                raise
            yield event.encode()
    finally:
        if asked is not None:
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await asked
        if isinstance(source, AsyncGenerator):
            await source.aclose()


async def _next(source: AsyncIterator[Event]) -> Event:
    return await anext(source)
