"""One reply on its way: written in the words of a dialect, broken where the script says so."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from cert.testing.dialects import Dialect, Usage
from cert.testing.replies import Reply
from cert.testing.wire import Wire

__all__ = ["Answer"]


class Answer:
    """A reply in the words of a dialect.

    Args:
        dialect: of the request.
        number: of the request, for its ids.
        body: of the request.
        reply: what the script says.
    """

    def __init__(self, dialect: Dialect, number: int, body: Any, reply: Reply) -> None:
        self._dialect = dialect
        self._reply = reply
        self._number = number
        self._request_id = f"req_{number}"
        self._body = body if isinstance(body, dict) else {}
        limit = dialect.limit(self._body) if reply.status < 400 else None
        self._whole = limit is None or len(reply.tokens) <= limit
        self._answer = replace(reply, tokens=reply.tokens[:limit])

    @property
    def usage(self) -> Usage:
        """What it is charged with, if it is."""
        return self._dialect.charged(self._body, self._answer)

    async def send(self, wire: Wire) -> bool:
        """Send an answer; false when the connection is done with."""
        fault, headers = self._reply.fault, self._headers()
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "reset":
            await wire.reset()
            return False
        broken = fault in ("reset_midway", "truncated")
        if self._streamed:
            await wire.send_stream(headers, self._events(), whole=not broken)
        else:
            body = self._json()
            await wire.send(self._reply.status, headers, body, only=len(body) // 2 if broken else None)
        if fault == "reset_midway":
            # A reset discards what the client has not read yet: it gets a moment to read.
            await asyncio.sleep(0.01)
            await wire.reset()
        return not broken

    @property
    def _streamed(self) -> bool:
        return self._reply.status < 400 and self._reply.raw is None and bool(self._body.get("stream"))

    def _headers(self) -> dict[str, str]:
        kind = "text/event-stream" if self._streamed else "application/json"
        headers = {"content-type": kind, self._dialect.request_id_header: self._request_id}
        if self._reply.retry_after is not None:
            headers["retry-after"] = f"{self._reply.retry_after}"
        if self._reply.retry_after_ms is not None:
            headers["retry-after-ms"] = f"{self._reply.retry_after_ms:g}"
        if self._reply.retry_after_date is not None:
            # An HTTP date has no fractions: rounded up, so that it never says to come too early.
            moment = math.ceil(time.time() + self._reply.retry_after_date)
            headers["retry-after"] = formatdate(moment, usegmt=True)
        return headers | dict(self._reply.headers)

    def _json(self) -> bytes:
        if self._reply.status >= 400 or self._reply.fault == "error_inside":
            status = 500 if self._reply.status < 400 else self._reply.status
            told = self._dialect.error(status, self._reply, self._request_id)
            return json.dumps(self._rewritten(told)).encode()
        if self._reply.raw is not None:
            return self._reply.raw
        answer = self._dialect.answer(self._body, self._answer, self._whole, self._number)
        whole = json.dumps(self._rewritten(answer)).encode()
        return b'{"id": "not JSON", "content": [' if self._reply.fault == "malformed" else whole

    def _rewritten(self, data: Any) -> Any:
        return data if self._reply.rewrite is None else self._reply.rewrite(data)

    def _event(self, event: bytes) -> bytes:
        """Rewrite the data of an event."""
        name, mark, data = event.partition(b"data: ")
        if self._reply.rewrite is None or not data.startswith(b"{"):
            return event
        return name + mark + json.dumps(self._rewritten(json.loads(data))).encode() + b"\n\n"

    async def _events(self) -> AsyncIterator[bytes]:
        seen = 0
        for event, is_token in self._dialect.stream(self._body, self._answer, self._whole, self._number):
            if self._reply.fault == "no_done":
                if event.startswith(b"data: [DONE]"):
                    return
            elif self._reply.fault != "none" and seen >= self._reply.after_tokens:
                if self._reply.fault == "error_inside":
                    yield self._dialect.stream_error(self._reply, self._request_id)
                elif self._reply.fault == "malformed":
                    yield b'event: content_block_delta\ndata: {"type": "content_bl\n\n'
                return
            if is_token:
                await asyncio.sleep(self._reply.token_delay)
                seen += 1
            yield self._event(event)
