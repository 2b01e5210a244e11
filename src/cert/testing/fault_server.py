"""A server on loopback that answers like a vendor's API, and fails as a test tells it to.

It speaks the Anthropic Messages API (``/v1/messages``) and the OpenAI API (``/v1/chat/completions``,
``/v1/completions`` and ``/v1/models``), the latter as OpenAI or as one of the servers that speak it too, over
real sockets, so that a vendor's own SDK can be pointed at it unchanged::

    with FaultServer([error(529), error(429, retry_after=2), ok("Paris")]) as server:
        client = anthropic.Anthropic(base_url=server.url, api_key="test", max_retries=0)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, TypeAlias

from cert.testing.answers import Answer
from cert.testing.dialects import ANTHROPIC, Dialect, Usage
from cert.testing.flavours import FLAVOURS, Flavour
from cert.testing.openai_api import chat_completions, completions
from cert.testing.replies import Reply, Token, error, ok
from cert.testing.wire import Wire, WireRequest

__all__ = ["Account", "FaultServer", "RecordedRequest", "Script"]


@dataclass(frozen=True)
class RecordedRequest:
    """A request that arrived.

    Attributes:
        number: 0 for the first.
        at: monotonic seconds at its arrival.
        dialect: ``anthropic`` or ``openai``; ``None`` for a path of neither.
        headers: with names in lower case.
        body: decoded JSON, ``None`` if it is none.
    """

    number: int
    at: float
    method: str
    path: str
    dialect: str | None
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Account:
    """What the vendor would charge, each answer rounded up: also for answers that got lost on the way."""

    charged_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micro_dollars: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


Script: TypeAlias = Iterable[Reply] | Callable[[RecordedRequest], Reply]


class FaultServer:
    """Runs on a thread of its own, for code with and without an event loop.

    Args:
        script: replies, one a request in order of arrival, after which all is well; or a function that
            chooses the reply to a request. It is called on the server's thread.
        otherwise: the reply when the script has come to its end.
        api_key: that requests must bring; any if it is not given.
        input_price: dollars for a million tokens, which is millionths of a dollar for one.
        output_price: the same for generated tokens.
        cache_read_price, cache_write_price: the same for tokens of the cache; as ``input_price`` by default.
        clock: monotonic seconds.
        flavour: the server whose habits the OpenAI API has; one of `cert.testing.flavours.FLAVOURS`.
        known: tokens of given texts that are scored; others are as likely as unscripted ones.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        otherwise: Reply | None = None,
        api_key: str | None = None,
        input_price: Decimal | int = 3,
        output_price: Decimal | int = 15,
        cache_read_price: Decimal | int | None = None,
        cache_write_price: Decimal | int | None = None,
        clock: Callable[[], float] = time.monotonic,
        flavour: str | Flavour = "openai",
        known: Iterable[Token] = (),
    ) -> None:
        self._flavour = FLAVOURS[flavour] if isinstance(flavour, str) else flavour
        known = tuple(known)
        self._dialects: Mapping[str, Dialect] = {
            "/v1/messages": ANTHROPIC,
            "/v1/chat/completions": chat_completions(self._flavour, known),
            "/v1/completions": completions(self._flavour, known),
        }
        self._otherwise = otherwise or ok()
        self._choose = self._chooser(script)
        self._api_key = api_key
        self._prices = (
            input_price,
            output_price,
            input_price if cache_read_price is None else cache_read_price,
            input_price if cache_write_price is None else cache_write_price,
        )
        self._clock = clock
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []
        self._account = Account()
        self._in_flight = self._peak = 0
        self._script_error: Exception | None = None
        self._wires: set[Wire] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    def then(self, script: Script) -> None:
        """Go on with another script from the next request on."""
        self._choose = self._chooser(script)

    def _chooser(self, script: Script) -> Callable[[RecordedRequest], Reply]:
        return script if callable(script) else _one_by_one(iter(script), self._otherwise)

    # --- what a test looks at ---

    @property
    def url(self) -> str:
        """The address without a path: the base of Anthropic's SDK; OpenAI's wants ``/v1`` after it."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """Every request so far."""
        with self._changed:
            return tuple(self._requests)

    @property
    def account(self) -> Account:
        """What has been charged so far."""
        with self._changed:
            return self._account

    @property
    def peak(self) -> int:
        """The most requests that were in work at one time."""
        with self._changed:
            return self._peak

    def wait_for_requests(self, count: int, timeout: float = 5.0) -> bool:
        """Wait until so many requests have arrived; false if they do not within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._requests) >= count, timeout)

    # --- its life ---

    def start(self) -> FaultServer:
        """Listen on a free port of loopback."""
        ready: threading.Event = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="cert-fault-server", daemon=True
        )
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the fault server did not start")
        return self

    def stop(self) -> None:
        """Drop every connection and stop listening.

        Raises:
            RuntimeError: the script's function raised; the clients got a 500.
        """
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # stopped already
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(10)
        if self._script_error is not None:
            failure, self._script_error = self._script_error, None
            raise RuntimeError("the script of the fault server raised") from failure

    def __enter__(self) -> FaultServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except RuntimeError:
            if raised is None:
                raise

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 20)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for wire in list(self._wires):
            wire.abort()
        # Handlers that wait (a hang, a delay) are cancelled by asyncio.run.

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        self._wires.add(wire)
        try:
            while (request := await wire.read_request()) is not None:
                with self._counted():
                    if not await self._handle(wire, request):
                        break
        except (OSError, asyncio.CancelledError):
            pass  # the client hung up, or the server stops
        finally:
            self._wires.discard(wire)
            await wire.close()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._changed:
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1

    # --- one request ---

    async def _handle(self, wire: Wire, request: WireRequest) -> bool:
        dialect = self._dialects.get(request.path) if request.method == "POST" else None
        recorded = self._record(request, dialect)
        if request.method == "GET" and request.path == "/v1/models":
            cards = json.dumps(self._flavour.models()).encode()
            await wire.send(200, {"content-type": "application/json"}, cards)
            return True
        if dialect is None:
            await wire.send(404, {"content-type": "application/json"}, b'{"error": {"message": "not found"}}')
            return True
        reply = self._reply(recorded, dialect)
        await asyncio.sleep(0 if reply.fault == "hang" else reply.delay)
        answer = Answer(dialect, recorded.number, recorded.body, reply)
        if reply.charged:
            self._charge(answer.usage)
        return await answer.send(wire)

    def _record(self, request: WireRequest, dialect: Dialect | None) -> RecordedRequest:
        try:
            body = json.loads(request.body)
        except ValueError:
            body = None
        with self._changed:
            recorded = RecordedRequest(
                number=len(self._requests),
                at=self._clock(),
                method=request.method,
                path=request.path,
                dialect=dialect.name if dialect else None,
                headers=request.headers,
                body=body,
            )
            self._requests.append(recorded)
            self._changed.notify_all()
        return recorded

    def _reply(self, request: RecordedRequest, dialect: Dialect) -> Reply:
        if self._api_key is not None and dialect.key(request.headers) != self._api_key:
            return error(401, "invalid API key")
        if (problem := dialect.problem(request.body)) is not None:
            return error(400, problem)
        try:
            return self._choose(request)
        except Exception as failure:
            self._script_error = failure
            return error(500, "the script raised")

    def _charge(self, usage: Usage) -> None:
        counts = (usage.input_tokens, usage.output_tokens, usage.cache_read, usage.cache_write)
        cost = math.ceil(sum(count * price for count, price in zip(counts, self._prices, strict=True)))
        with self._changed:
            so_far = self._account
            self._account = Account(
                so_far.charged_requests + 1,
                so_far.input_tokens + usage.input_tokens,
                so_far.output_tokens + usage.output_tokens,
                so_far.micro_dollars + cost,
                so_far.cache_read_tokens + usage.cache_read,
                so_far.cache_write_tokens + usage.cache_write,
            )


def _one_by_one(replies: Iterator[Reply], otherwise: Reply) -> Callable[[RecordedRequest], Reply]:
    lock = threading.Lock()

    def choose(request: RecordedRequest) -> Reply:  # noqa: ARG001  # order alone decides
        with lock:
            return next(replies, otherwise)

    return choose
