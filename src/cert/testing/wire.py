"""As much of HTTP/1.1 as a scripted server needs, with the ways in which a connection breaks."""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

__all__ = ["Wire", "WireRequest"]

_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class WireRequest:
    """A request as it arrived; names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read_request(self) -> WireRequest | None:
        """Return the next request; ``None`` when the client is gone or does not speak HTTP."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            body = await self._read_body(headers)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
            return None
        return WireRequest(method, target.partition("?")[0], headers, body)

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int((await self._reader.readline()).split(b";")[0], 16):
                parts.append(await self._reader.readexactly(size))
                await self._reader.readexactly(2)
            await self._reader.readuntil(b"\r\n")
            return b"".join(parts)
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= _MOST_BYTES:
            raise ValueError("content-length")
        return await self._reader.readexactly(length)

    async def send(
        self, status: int, headers: Mapping[str, str], body: bytes, *, only: int | None = None
    ) -> None:
        """Send an answer whose length is known; ``only`` so many bytes of it, if that is given."""
        await self._head(status, {**headers, "content-length": str(len(body))})
        await self._write(body if only is None else body[:only])

    async def send_stream(
        self, headers: Mapping[str, str], chunks: AsyncIterator[bytes], *, whole: bool
    ) -> None:
        """Send an answer in chunks; without its end unless it is ``whole``."""
        await self._head(200, {**headers, "transfer-encoding": "chunked"})
        async for chunk in chunks:
            await self._write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        if whole:
            await self._write(b"0\r\n\r\n")

    async def reset(self) -> None:
        """Break the connection so that the other side gets ECONNRESET, not an orderly end."""
        with contextlib.suppress(OSError):
            await self._writer.drain()
        connection: socket.socket | None = self._writer.get_extra_info("socket")
        if connection is not None:
            # Linger for zero seconds: close() sends RST (socket(7)).
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        """End the connection in good order."""
        # Cancelled when the server stops: the transport has been dropped, so there is nothing to wait for.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            self._writer.close()
            await self._writer.wait_closed()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._writer.transport.abort()

    async def _head(self, status: int, headers: Mapping[str, str]) -> None:
        try:
            phrase = http.HTTPStatus(status).phrase
        except ValueError:
            phrase = "Scripted"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        await self._write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
