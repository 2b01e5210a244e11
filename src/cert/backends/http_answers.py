"""Answers of a server as bytes: bounded, uncompressed, and of the kind that was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2

from cert.core.errors import UpstreamProtocolError

__all__ = ["BoundedAnswers", "body_of", "expect"]


class BoundedAnswers:
    """A hook of the HTTP library for responses: limits what is read of one, of errors too, before any is.

    Args:
        most_bytes: of one answer. Compressed answers are refused: what they grow to is known too late.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes

    async def __call__(self, response: httpx2.Response) -> None:
        """Take a response whose body was not read yet."""
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise UpstreamProtocolError(
                "the server compresses its answer though it was asked not to",
                hint="switch compression off in front of the server",
                context={"encoding": encoding[:20], "retry": False},
            )
        response.stream = _Bounded(response.stream, self._most_bytes)


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of an answer, up to a limit."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream = stream
        self._left = most
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise UpstreamProtocolError(
                    f"the server's answer is larger than {self._most} bytes",
                    context={"most_bytes": self._most, "retry": False},
                )
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def expect(response: Any, kind: str, hint: str) -> None:
    """Refuse an answer of another media type, such as a proxy's page.

    Raises:
        UpstreamProtocolError: it is of another type; ``hint`` says where to look.
    """
    given = str(response.headers.get("content-type", ""))
    if given.partition(";")[0].strip().lower() != kind:
        raise UpstreamProtocolError(
            f"the server answers with '{given[:60]}' in place of {kind}", hint=hint, context={"retry": False}
        )


async def body_of(response: Any) -> bytes:
    """Return all bytes of an SDK's streaming response."""
    return b"".join([chunk async for chunk in response.iter_bytes()])
