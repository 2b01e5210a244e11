"""The two carriers of calls: one blocks, one awaits. Both retry by the same policy."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cert.client.calls import Call, read_answer, read_problem
from cert.client.errors import ConnectionFailedError
from cert.client.retry import RetryPolicy

if TYPE_CHECKING:
    import httpx2

__all__ = ["AsyncCarrier", "Carrier"]

T = TypeVar("T")
_LARGEST_EVENT = 64_000_000


def _options(url: str, api_key: str | None, timeout: float, transport: Any) -> dict[str, Any]:
    headers = {"Accept": "application/json", "User-Agent": "cert-client"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    options: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}
    return options if transport is None else options | {"transport": transport}


def _library() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise ImportError("the client needs httpx2: pip install 'cert-framework[client]'") from error
    return httpx2


def _request(call: Call[Any]) -> dict[str, Any]:
    query = {name: value for name, value in call.query.items() if value is not None}
    request: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "params": query,
        "headers": dict(call.headers),
    }
    return request if call.body is None else request | {"json": dict(call.body)}


def _failed(error: Exception) -> ConnectionFailedError:
    return ConnectionFailedError(f"the service was not reached or broke off: {type(error).__name__}")


class Carrier:
    """Carries calls and blocks meanwhile; may be shared by threads.

    Args:
        url: of the service.
        api_key: one of its keys; ``None`` for a service of this machine without keys.
        timeout: seconds between two pieces of an answer.
        retry: when a call is tried again.
        transport: of httpx2, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 120.0,
        retry: RetryPolicy | None = None,
        transport: Any = None,
    ) -> None:
        self._httpx = _library()
        self._retry = retry or RetryPolicy()
        self._url = url
        self._http: httpx2.Client = self._httpx.Client(**_options(url, api_key, timeout, transport))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, call: Call[T]) -> T:
        """Make a call.

        Raises:
            ClientError: it could not be made, or the service says no.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._http.request(**_request(call))
            except self._httpx.TransportError as error:
                wait = self._retry.wait(attempt, None, None, repeatable=call.repeatable)
                if wait is None:
                    raise _failed(error) from None
            else:
                if answer.is_success:
                    return read_answer(answer.content, call.type)
                after = answer.headers.get("retry-after")
                wait = self._retry.wait(attempt, answer.status_code, after, repeatable=call.repeatable)
                if wait is None:
                    raise read_problem(answer.status_code, answer.content)
            time.sleep(wait)

    def events(self, call: Call[Any]) -> Iterator[httpx2.ServerSentEvent]:
        """Yield the events of a stream; leaving early ends what makes them. Streams are not tried again."""
        request = _request(call)
        request["headers"]["Accept"] = "text/event-stream"
        try:
            with self._http.stream(**request) as answer:
                if not answer.is_success:
                    raise read_problem(answer.status_code, answer.read())
                yield from self._httpx.EventSource(answer, max_event_size=_LARGEST_EVENT)
        except self._httpx.TransportError as error:
            raise _failed(error) from None


class AsyncCarrier:
    """The same for tasks; it has the arguments of `Carrier`."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 120.0,
        retry: RetryPolicy | None = None,
        transport: Any = None,
    ) -> None:
        self._httpx = _library()
        self._retry = retry or RetryPolicy()
        self._url = url
        self._http: httpx2.AsyncClient = self._httpx.AsyncClient(**_options(url, api_key, timeout, transport))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, call: Call[T]) -> T:
        """Make a call, as `Carrier.call` does."""
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._http.request(**_request(call))
            except self._httpx.TransportError as error:
                wait = self._retry.wait(attempt, None, None, repeatable=call.repeatable)
                if wait is None:
                    raise _failed(error) from None
            else:
                if answer.is_success:
                    return read_answer(answer.content, call.type)
                after = answer.headers.get("retry-after")
                wait = self._retry.wait(attempt, answer.status_code, after, repeatable=call.repeatable)
                if wait is None:
                    raise read_problem(answer.status_code, answer.content)
            await asyncio.sleep(wait)

    async def events(self, call: Call[Any]) -> AsyncIterator[httpx2.ServerSentEvent]:
        """Yield the events of a stream, as `Carrier.events` does."""
        request = _request(call)
        request["headers"]["Accept"] = "text/event-stream"
        try:
            async with self._http.stream(**request) as answer:
                if not answer.is_success:
                    raise read_problem(answer.status_code, await answer.aread())
                async with contextlib.aclosing(
                    aiter(self._httpx.EventSource(answer, max_event_size=_LARGEST_EVENT))
                ) as events:
                    async for event in events:
                        yield event
        except self._httpx.TransportError as error:
            raise _failed(error) from None
