"""Requests to a server by the openai SDK, and the bytes of its answers, bounded and undecoded.

The SDK brings authentication and its errors. It retries nothing here, follows no redirect, and parses
nothing: answers go to `cert.backends.api_records` as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

import httpx2
import openai
from pydantic import SecretStr

from cert.backends.http_answers import BoundedAnswers, body_of, expect
from cert.backends.http_errors import raising_ours
from cert.backends.openai_server.errors import OPENAI_ERRORS
from cert.core.errors import UpstreamConnectionError

__all__ = ["Transport"]

_DONE = b"[DONE]"
_UNUSED_KEY = "unused"
_HINT = "check that the base URL is that of the API, which mostly ends with /v1"


class Transport:
    """One client of one server; it belongs to one event loop.

    Args:
        base_url: checked.
        api_key: sent as a bearer token; without one no authorization is sent.
        most_bytes: of one answer. Compressed answers are not asked for and not read.
        connect_seconds: for a connection to be made. What an answer may take is the caller's to bound.
    """

    def __init__(
        self, base_url: str, api_key: SecretStr | None, *, most_bytes: int, connect_seconds: float
    ) -> None:
        self._api_key = api_key.get_secret_value() if api_key else ""
        timeout = httpx2.Timeout(None, connect=connect_seconds)
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=self._api_key or _UNUSED_KEY,
            max_retries=0,
            timeout=timeout,
            default_headers={"Accept-Encoding": "identity"},
            http_client=httpx2.AsyncClient(
                timeout=timeout,
                follow_redirects=False,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
                event_hooks={"request": [self._tidy], "response": [BoundedAnswers(most_bytes)]},
            ),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def models(self) -> bytes:
        """Return the list of models.

        Raises:
            CertError: as `complete`.
        """
        with self._mapped(()):
            async with self._client.models.with_streaming_response.list() as response:
                return await body_of(response)

    async def complete(self, body: Mapping[str, Any], secrets: Sequence[str] = ()) -> bytes:
        """Send a request and return the whole answer; one with ``messages`` is a chat.

        Args:
            body: of the request.
            secrets: texts that no error may quote.

        Raises:
            UpstreamError: the server cannot be reached, fails, refuses, or its answer is not JSON.
            PromptTooLongError: the server says so.
        """
        with self._mapped(secrets):
            async with self._ask(body) as response:
                expect(response, "application/json", _HINT)
                return await body_of(response)

    async def stream(
        self, body: Mapping[str, Any], secrets: Sequence[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        """Send a request and yield the data of the answer's events as they come.

        Raises:
            UpstreamConnectionError: the answer ended before it was said to be whole.
            CertError: as `complete`.
        """
        with self._mapped(secrets):
            async with self._ask({**body, "stream": True}) as response:
                expect(response, "text/event-stream", _HINT)
                async for data in _events(response):
                    if data == _DONE:
                        return
                    yield data
        raise UpstreamConnectionError("the stream ended before the answer was whole")

    def _ask(self, body: Mapping[str, Any]) -> Any:
        rest = {name: value for name, value in body.items() if name not in ("model", "messages", "prompt")}
        if "messages" in body:
            return self._client.chat.completions.with_streaming_response.create(
                model=body["model"], messages=body["messages"], extra_body=rest
            )
        return self._client.completions.with_streaming_response.create(
            model=body["model"], prompt=body["prompt"], extra_body=rest
        )

    async def _tidy(self, request: httpx2.Request) -> None:
        """Take out what the SDK adds by itself: a stand-in for a key, and names from the environment."""
        for name in ("OpenAI-Organization", "OpenAI-Project", *(() if self._api_key else ("Authorization",))):
            request.headers.pop(name, None)

    def _mapped(self, secrets: Sequence[str]) -> contextlib.AbstractContextManager[None]:
        return raising_ours(OPENAI_ERRORS, openai.APIError, lambda: (self._api_key, *secrets))


async def _events(response: Any) -> AsyncIterator[bytes]:
    """Yield the data of server-sent events; only single-line data is in use here.

    See https://html.spec.whatwg.org/multipage/server-sent-events.html.
    """
    async for line in _lines(response):
        if line.startswith(b"data:"):
            yield line[5:].strip()
        elif line.startswith(b"{"):
            # An error as plain JSON in place of an event.
            yield line


async def _lines(response: Any) -> AsyncIterator[bytes]:
    parts: list[bytes] = []
    async for chunk in response.iter_bytes():
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for line in others:
            yield b"".join(parts).strip()
            parts = [line]
    if last := b"".join(parts).strip():
        yield last
