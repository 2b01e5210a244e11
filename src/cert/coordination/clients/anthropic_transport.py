"""Requests to the Messages API by the anthropic SDK, and the bytes of its answers, bounded and undecoded.

The SDK brings authentication and its errors. It retries nothing here, follows no redirect, and takes nothing
from its environment variables: a key goes to the address that was given with it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anthropic
import httpx2
from pydantic import SecretStr

from cert.backends.http_answers import BoundedAnswers, body_of, expect
from cert.backends.http_errors import raising_ours
from cert.coordination.clients.anthropic_errors import ANTHROPIC_ERRORS

__all__ = ["AnthropicTransport"]

_UNUSED_KEY = "unused"
_HINT = "check that the base URL is that of the API, which has no /v1 at its end"
# The names of the SDK's own arguments; what else the API takes goes in as it is.
_ARGUMENTS = ("model", "max_tokens", "messages", "system", "tools", "tool_choice")
# What a request may carry: nothing that the SDK reads in ANTHROPIC_CUSTOM_HEADERS.
_HEADERS = frozenset(
    {"accept", "accept-encoding", "anthropic-version", "connection", "content-length", "content-type",
     "host", "user-agent"}
)  # fmt: skip


class AnthropicTransport:
    """One client of the API; it belongs to one event loop.

    Args:
        base_url: checked.
        api_key: without one no authorization is sent.
        most_bytes: of one answer. Compressed answers are not asked for and not read.
        connect_seconds: for a connection to be made. What an answer may take is the caller's to bound.
    """

    def __init__(
        self, base_url: str, api_key: SecretStr | None, *, most_bytes: int, connect_seconds: float
    ) -> None:
        self._api_key = api_key.get_secret_value() if api_key else ""
        timeout = httpx2.Timeout(None, connect=connect_seconds)
        self._client = anthropic.AsyncAnthropic(
            api_key=self._api_key or _UNUSED_KEY,
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            default_headers={"Accept-Encoding": "identity"},
            open_telemetry=False,  # calls are told as our own events; two spans for each would mislead
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

    async def send(self, body: Mapping[str, Any], secrets: Sequence[str]) -> bytes:
        """Send a request and return the whole answer.

        Args:
            body: of the request.
            secrets: texts that no error may quote.

        Raises:
            UpstreamError: the server cannot be reached, fails, refuses, or its answer is not JSON.
            PromptTooLongError: the server says so.
        """
        with raising_ours(ANTHROPIC_ERRORS, anthropic.APIError, lambda: (self._api_key, *secrets)):
            arguments = {name: value for name, value in body.items() if name in _ARGUMENTS}
            rest = {name: value for name, value in body.items() if name not in _ARGUMENTS}
            asked = self._client.messages.with_streaming_response.create(**arguments, extra_body=rest or None)
            async with asked as response:
                expect(response, "application/json", _HINT)
                return await body_of(response)

    async def _tidy(self, request: httpx2.Request) -> None:
        """Take out what the SDK adds by itself, and see that the key is the one that was given."""
        for name in list(request.headers):
            if name.lower() not in _HEADERS and not name.lower().startswith("x-stainless-"):
                del request.headers[name]
        if self._api_key:
            request.headers["Authorization"] = f"Bearer {self._api_key}"
