"""What a request may cost before a route sees it: size, form, time, and places at work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cert.services.common.direct import JSON_BODY
from cert.services.common.errors import problem_bytes
from cert.services.common.head import headers_of
from cert.services.common.http_metrics import HttpMetrics
from cert.services.common.principal import Principal

__all__ = ["Limits", "LimitsMiddleware"]

_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_MOST_TARGET_BYTES: Final = 8_192
_MOST_DEPTH: Final = 64
_MOST_HEADERS: Final = 100
_MOST_HEADER_BYTES: Final = 16_384
# Answered whatever the load: a probe that waits in the queue restarts a busy process.
_UNCOUNTED: Final = ("/health", "/ui/assets/")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a service; seconds and bytes.

    Attributes:
        body_bytes, body_seconds: of a request's body.
        concurrent, queue: requests at work, and those that wait for a place.
        streams: event streams that are open at once.
        request_seconds: until an answer begins, the waiting included.
        stream_seconds: that a stream may last.
    """

    body_bytes: int = 2_000_000
    body_seconds: float = 15.0
    concurrent: int = 64
    queue: int = 256
    streams: int = 2_000
    request_seconds: float = 120.0
    stream_seconds: float = 3_600.0


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.answer = (status, code, detail)
        self.retry_after = retry_after


class LimitsMiddleware:
    """Reads and checks the body, waits for a place, and ends what takes too long.

    A body is taken whole before the route runs: what is slow, too large, compressed, nested too deep or holds
    ``NaN`` never reaches one. A stream of events gives its place back when it begins, and counts as a stream.
    One tenant waits with half of the queue at most, so that there is room for the others.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: HttpMetrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        metrics.queue_limit.set(limits.queue)
        self._places = asyncio.Semaphore(limits.concurrent)
        self._waiting: Counter[str] = Counter()
        self._streams = 0
        self._held = 0  # bytes of bodies that are being read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request within the limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(self, scope, receive, send)
        try:
            await visit.run()
        except _RefusedError as refusal:
            if visit.begun:
                # A stream whose time is over ends between two events, and its reader may ask anew.
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            fields, body = problem_bytes(*refusal.answer, retry_after=refusal.retry_after)
            await send({"type": "http.response.start", "status": refusal.answer[0], "headers": fields})
            await send({"type": "http.response.body", "body": body})
        finally:
            visit.leave()

    async def enter(self, tenant: str | None) -> None:
        """Wait for a place.

        Raises:
            _RefusedError: too many wait already, of all or of this tenant.
        """
        if not self._places.locked():
            await self._places.acquire()
            return
        if self._waiting.total() >= self._limits.queue:
            raise _RefusedError(503, "overloaded", "too many requests are waiting", 1.0)
        owner = tenant or ""
        if owner and self._waiting[owner] >= max(1, self._limits.queue // 2):
            raise _RefusedError(429, "too_many_requests", "too many of your requests are waiting", 1.0)
        self._waiting[owner] += 1
        self._metrics.waiting.inc()
        try:
            await self._places.acquire()
        finally:
            self._metrics.waiting.dec()
            self._waiting[owner] -= 1
            self._waiting += Counter()  # forgets those who wait with nothing

    def hold(self, size: int) -> None:
        """Count bytes of a body in memory; negative ones are let go.

        Raises:
            _RefusedError: all bodies together take too much.
        """
        if size > 0 and self._held + size > self._limits.body_bytes * self._limits.concurrent:
            raise _RefusedError(503, "overloaded", "too much is being read", 1.0)
        self._held += size

    def release(self) -> None:
        """Give a place back."""
        self._places.release()

    def open_stream(self) -> bool:
        """Count a stream that begins; false if there are too many."""
        if self._streams >= self._limits.streams:
            return False
        self._streams += 1
        return True

    def close_stream(self) -> None:
        """Count a stream's end."""
        self._streams -= 1

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._limits

    @property
    def app(self) -> ASGIApp:
        """What is guarded."""
        return self._app


class _Visit:
    """One request on its way through."""

    def __init__(self, gate: LimitsMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._receive = receive
        self._send = send
        self._has_place = False
        self._is_stream = False
        self._deadline: asyncio.Timeout | None = None
        self._body: Message | None = None
        self._size = 0
        self._reading = True
        self.begun = False

    async def run(self) -> None:
        limits, headers = self._gate.limits, headers_of(self._scope)
        self._check_head(headers)
        try:
            async with asyncio.timeout(limits.body_seconds) as self._deadline:
                body = await self._read(headers)
                self._body = {"type": "http.request", "body": body, "more_body": False}
                self._reading = False
                self._deadline.reschedule(asyncio.get_running_loop().time() + limits.request_seconds)
                if not self._scope["path"].startswith(_UNCOUNTED):
                    await self._gate.enter(self._tenant())
                    self._has_place = True
                await self._gate.app(self._scope, self._replay, self._told)
        except TimeoutError as error:
            if self._deadline is None or not self._deadline.expired():
                raise
            if self._reading:
                raise _RefusedError(408, "body_too_slow", "the body did not come in time") from error
            told = f"there was no answer within {limits.request_seconds:g} s"
            raise _RefusedError(504, "deadline_exceeded", told) from error

    def leave(self) -> None:
        self._gate.hold(-self._size)
        self._give_place_back()
        if self._is_stream:
            self._gate.close_stream()

    def _tenant(self) -> str | None:
        principal: Principal | None = self._scope.get("cert.principal")
        return None if principal is None or principal.key_id is None else principal.tenant

    def _check_head(self, headers: Mapping[str, str]) -> None:
        if len(self._scope.get("raw_path") or b"") + len(self._scope["query_string"]) > _MOST_TARGET_BYTES:
            raise _RefusedError(414, "target_too_long", "the address is too long")
        raw = self._scope["headers"]
        size = sum([len(name) + len(value) for name, value in raw])
        if len(raw) > _MOST_HEADERS or size > _MOST_HEADER_BYTES:
            raise _RefusedError(431, "headers_too_large", "there are too many headers, or they are too long")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _RefusedError(415, "compressed", "a compressed body is not read")
        if "content-length" in headers and "transfer-encoding" in headers:
            raise _RefusedError(400, "invalid_request", "the request says two things of its length")
        declared = headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit():
            raise _RefusedError(400, "invalid_request", "Content-Length is no number")
        if int(declared[:20]) > self._gate.limits.body_bytes:
            raise self._too_large()

    async def _read(self, headers: Mapping[str, str]) -> bytes:
        """The whole body, and JSON where it says so."""
        if self._scope["method"] in _BODILESS and not {"content-length", "transfer-encoding"} & set(headers):
            return b""
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _RefusedError(400, "disconnected", "the request ended before its body")
            parts.append(message.get("body", b""))
            self._gate.hold(len(parts[-1]))
            self._size += len(parts[-1])
            if self._size > self._gate.limits.body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                break
        body = b"".join(parts)
        if body and "json" in headers.get("content-type", "json").lower():
            self._scope[JSON_BODY] = _checked_json(body)
        return body

    def _too_large(self) -> _RefusedError:
        return _RefusedError(413, "too_large", f"a request has at most {self._gate.limits.body_bytes} bytes")

    async def _replay(self) -> Message:
        message, self._body = self._body, None
        return await self._receive() if message is None else message

    async def _told(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if dict(message.get("headers", ())).get(b"content-type", b"").startswith(b"text/event-stream"):
                self._become_stream()
            elif self._deadline is not None:
                self._deadline.reschedule(None)
            self.begun = True
        await self._send(message)

    def _become_stream(self) -> None:
        if not self._gate.open_stream():
            raise _RefusedError(503, "overloaded", "too many streams are open", 5.0)
        self._is_stream = True
        self._give_place_back()
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._gate.limits.stream_seconds)

    def _give_place_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self._gate.release()


def _checked_json(body: bytes) -> Any:
    """Return what a body holds.

    Refused is what is no JSON, holds NaN or an infinity, or nests deeper than anything that is asked here.
    """
    try:
        whole = msgspec.json.decode(body)
    except RecursionError as error:
        raise _RefusedError(400, "invalid_json", "the JSON is nested too deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _RefusedError(400, "invalid_json", "the body is no JSON") from error
    if body.count(b"[") + body.count(b"{") <= _MOST_DEPTH:
        return whole
    level = [whole]
    for _ in range(_MOST_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, list | dict)
            for inner in (value if isinstance(value, list) else value.values())
        ]
        if not level:
            return whole
    raise _RefusedError(400, "invalid_json", "the JSON is nested too deep")
