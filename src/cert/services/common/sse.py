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
from cert.observability.logging import get_logger
from cert.services.common.correlation import places_of
from cert.services.common.drain import Drain
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


def event_stream(
    events: AsyncIterator[Event], *, heartbeat: float = 15.0, drain: Drain | None = None
) -> EventStream:
    """Send events as they come.

    One event is asked for at a time, and the next when the reader has taken it: a slow reader slows its own
    source and fills nothing. When the reader goes away the source is closed, which ends what makes it. An
    error of the source becomes a last event ``error``, a problem as an answer would have been.

    Args:
        events: what is sent.
        heartbeat: seconds of silence after which a comment is sent, so that no proxy takes it for dead.
        drain: for a stream that looks on work which goes on without it: the end of the service ends it too.
    """
    return EventStream(
        _encoded(events, heartbeat, drain), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


async def _encoded(
    events: AsyncIterator[Event], heartbeat: float, drain: Drain | None
) -> AsyncGenerator[bytes, None]:
    source = aiter(events)
    asked: asyncio.Task[Event] | None = None
    ended = None if drain is None else asyncio.ensure_future(drain.wait())
    try:
        while ended is None or not ended.done():
            asked = asked or asyncio.ensure_future(_next(source))
            first = {asked} if ended is None else {asked, ended}
            await asyncio.wait(first, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                if ended is None or not ended.done():
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
            except Exception as error:
                # A defect. Its text may hold a prompt; the reader has the id by which the log tells where.
                get_logger("cert.services").error(
                    "stream_failed", error=type(error).__name__, at=places_of(error)
                )
                yield Event("error", problem(500, "internal", GENERIC)).encode()
                return
            yield event.encode()
    finally:
        if ended is not None:
            ended.cancel()
        if asked is not None:
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await asked
        if isinstance(source, AsyncGenerator):
            await source.aclose()


async def _next(source: AsyncIterator[Event]) -> Event:
    return await anext(source)
