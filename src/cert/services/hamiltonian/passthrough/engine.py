"""The engine behind the pass-through: one pooled client, no retries, no redirects, bounded answers.

Callers retry by themselves, so that a request goes out once. A circuit breaker refuses while the engine is
down; what counts are connections that fail and answers of 5xx.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import httpx2

from cert.backends.http_answers import BoundedAnswers
from cert.backends.openai_server import OpenAIBackend
from cert.backends.openai_server.probe import Profile
from cert.core.circuit_breaker import CircuitBreaker
from cert.core.circuit_state import BreakerPolicy
from cert.core.correlation import correlation_id
from cert.core.errors import (
    CertError,
    UpstreamConnectionError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from cert.core.events import EventHub
from cert.core.resilience import ResiliencePolicy, ResilienceStack
from cert.services.hamiltonian.options import UpstreamOptions
from cert.trajectory.calibration.watch import GateWatch

__all__ = ["Engine", "Refusal"]

# Of an engine's answer: what tells a client how to go on, and nothing of the connection.
_PASSED = ("openai-processing-ms", "retry-after", "retry-after-ms", "x-should-retry")
_PASSED_PREFIXES = ("x-ratelimit-",)
_ERROR_BYTES = 64 * 1024
_BROKE = "the connection to the engine broke before its answer was whole"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of the engine with a status of 400 or more: its status, body and headers to pass."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class _BrokenError(UpstreamUnavailableError):
    """An answer of 5xx, on its way past the breaker."""

    refusal: Refusal


class Engine:
    """Sends requests to the operator's engine with the operator's key.

    Args:
        options: where it is and how long things may take.
        breaker: when calls to it stop.
        hub: hears of calls.
    """

    def __init__(
        self, options: UpstreamOptions, *, breaker: BreakerPolicy | None = None, hub: EventHub | None = None
    ) -> None:
        self.options = options
        self._hub = hub
        # What an engine was found not to give, by model: candidates to ask for, 0 for none at all.
        self.accepted: dict[str, int] = {}
        self._profiles: dict[str, Profile] = {}
        self._probing = asyncio.Lock()
        self._watches: dict[tuple[str, str], GateWatch] = {}
        self._key = options.api_key.get_secret_value() if options.api_key else ""
        self._stack = ResilienceStack(
            "engine",
            ResiliencePolicy(deadline_seconds=options.answer_seconds, attempt_seconds=options.answer_seconds),
            retry_on=lambda _: False,
            breaker=CircuitBreaker("engine", breaker, hub=hub),
            hub=hub,
        )
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(options.silence_seconds, connect=options.connect_seconds),
            limits=httpx2.Limits(
                max_connections=options.connections, max_keepalive_connections=options.connections
            ),
            follow_redirects=False,
            trust_env=False,
            event_hooks={"response": [BoundedAnswers(options.most_bytes)]},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def profile_of(self, model: str) -> Profile | None:
        """Find out, once, what the engine gives of a model that has a gate; ``None`` for one that has none.

        A certificate holds for a kind of server and of log-probabilities, which no answer tells by itself.

        Raises:
            CertError: as `cert.backends.openai_server.OpenAIBackend.probe`.
        """
        if model not in self.options.gates:
            return None
        async with self._probing:
            if model not in self._profiles:
                backend = OpenAIBackend(
                    model,
                    self.options.base_url,
                    api_key=self.options.api_key,
                    top_logprobs=self.options.top_logprobs,
                    vocab_size=self.options.vocab_size,
                )
                try:
                    self._profiles[model] = await asyncio.to_thread(backend.probe)
                finally:
                    await asyncio.to_thread(backend.close)
            return self._profiles[model]

    def watch_of(self, model: str, tenant: str) -> GateWatch | None:
        """Return a tenant's watch of the gate of a model; ``None`` where it has none."""
        gate = self.options.gates.get(model)
        if gate is None:
            return None
        return self._watches.setdefault((model, tenant), GateWatch(gate, hub=self._hub))

    async def ask(self, body: bytes, *, accept: str) -> httpx2.Response | Refusal:
        """Send a chat and return its answer with the body still to be read; the caller closes it.

        Raises:
            CertError: the engine cannot be reached, says nothing in time, or was down a moment ago.
        """
        return await self._send("POST", "/chat/completions", body, accept)

    async def models(self) -> httpx2.Response | Refusal:
        """Ask for the list of models.

        Raises:
            CertError: as `ask`.
        """
        return await self._send("GET", "/models", None, "application/json")

    async def whole(self, response: httpx2.Response) -> bytes:
        """Read an answer to its end and close it.

        Raises:
            CertError: it breaks, takes too long, or is larger than the operator allows.
        """
        return b"".join([chunk async for chunk in self.chunks(response)])

    async def chunks(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of an answer as they come; the next are read when these were taken.

        Raises:
            CertError: as `whole`.
        """
        until = asyncio.get_running_loop().time() + self.options.answer_seconds
        try:
            async for chunk in response.aiter_raw():
                yield chunk
                if asyncio.get_running_loop().time() > until:
                    raise UpstreamTimeoutError("the engine did not finish its answer in time")
        except httpx2.TimeoutException as error:
            raise UpstreamTimeoutError("the engine fell silent") from error
        except httpx2.HTTPError as error:
            raise UpstreamConnectionError(_BROKE) from error
        finally:
            # Whoever goes away before the end ends the engine's work with it.
            await response.aclose()

    def passed(self, response: httpx2.Response) -> dict[str, str]:
        """Return the headers of an answer that its caller may see."""
        return {
            name: value
            for name, value in response.headers.items()
            if name.lower() in _PASSED or name.lower().startswith(_PASSED_PREFIXES)
        }

    async def _send(
        self, method: str, path: str, body: bytes | None, accept: str
    ) -> httpx2.Response | Refusal:
        async def attempt() -> httpx2.Response | Refusal:
            return await self._once(method, path, body, accept)

        try:
            return await self._stack.call_async(attempt)
        except _BrokenError as error:
            return error.refusal

    async def _once(
        self, method: str, path: str, body: bytes | None, accept: str
    ) -> httpx2.Response | Refusal:
        request = self._client.build_request(
            method, self.options.base_url + path, content=body, headers=self._headers(accept, body)
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx2.ConnectTimeout as error:
            raise UpstreamConnectionError("the engine cannot be reached") from error
        except httpx2.TimeoutException as error:
            raise UpstreamTimeoutError("the engine gave no answer in time") from error
        except httpx2.HTTPError as error:
            raise UpstreamConnectionError("the engine cannot be reached") from error
        if response.status_code == 200:
            return response
        refusal = await self._refusal(response)
        if refusal.status >= 500:
            broken = _BrokenError("the engine failed", context={"status": refusal.status})
            broken.refusal = refusal
            raise broken
        return refusal

    async def _refusal(self, response: httpx2.Response) -> Refusal:
        read = bytearray()
        try:
            async for chunk in self.chunks(response):
                read += chunk
                if len(read) > _ERROR_BYTES:
                    read.clear()
                    break
        except CertError:
            read.clear()
        if response.status_code < 400:
            # A redirect would take the operator's key elsewhere.
            raise UpstreamProtocolError(
                "the engine answers with neither a chat nor an error",
                context={"status": response.status_code, "retry": False},
            )
        body = bytes(read).replace(self._key.encode(), b"***") if self._key else bytes(read)
        return Refusal(response.status_code, body, self.passed(response))

    def _headers(self, accept: str, body: bytes | None) -> dict[str, str]:
        headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "cert"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if (known := correlation_id()) is not None:
            headers["X-Request-ID"] = known
        return headers
