"""Server-sent events: those of an engine as they are read, and ours to its caller, one at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

__all__ = ["DONE", "ChunkStream", "data_of", "event"]

DONE = b"[DONE]"


def event(data: bytes) -> bytes:
    """Return data as an event; JSON has no bare line break."""
    return b"data: " + data + b"\n\n"


async def data_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the data of each event (WHATWG HTML, 9.2); of several lines they are joined by line feeds.

    Some servers write an error as a bare line of JSON in place of an event.
    """
    parts: list[bytes] = []
    async for line in _lines(chunks):
        if line.startswith(b"data:"):
            parts.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif not line and parts:
            yield b"\n".join(parts).strip()
            parts = []
        elif line.startswith(b"{"):
            yield line
    if parts:
        yield b"\n".join(parts).strip()


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    parts: list[bytes] = []
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for line in others:
            yield b"".join(parts).rstrip(b"\r")
            parts = [line]
    if last := b"".join(parts).rstrip(b"\r"):
        yield last


class ChunkStream(StreamingResponse):
    """Events to a caller, whose source is closed when he goes away, wherever it is at that moment."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None) -> None:
        more = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(source, headers={**more, **(headers or {})})
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Send all of it, or what somebody takes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._source.aclose()
