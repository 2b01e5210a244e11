"""Lua scripts on a Redis that replicas share: one atomic step each, and every failure of the store as ours.

redis-py's own retries are off but for one on a broken connection: a script is written so that running it
twice with the same id does the work once.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cert.core.errors import ConfigurationError, DependencyMissingError, StoreError

__all__ = ["RedisScripts", "Script"]

# How long a call may wait for a free connection of the pool: that is our own load, not Redis being slow.
_POOL_WAIT_SECONDS = 5.0
_CONNECTIONS = 32


@dataclass(frozen=True)
class Script:
    """A Lua script and its name for Redis, which is its SHA-1."""

    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


class RedisScripts:
    """Runs scripts on one Redis, from threads and from any number of event loops.

    Args:
        url: such as ``redis://127.0.0.1:6379/0`` (``CERT_REDIS_URL``).
        timeout: seconds for connecting, and for each answer.
        client: a client to use for synchronous calls in place of one made from the URL.
        async_client: the same for asynchronous calls.

    Raises:
        ConfigurationError: the URL is none of Redis, or neither a URL nor a client is given.
        DependencyMissingError: the package redis is not installed.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 1.0,
        client: Any = None,
        async_client: Any = None,
    ) -> None:
        try:
            import redis
        except ModuleNotFoundError as error:
            raise DependencyMissingError(
                "limits shared by replicas need the package redis",
                hint='install it with: pip install "cert-framework[redis]"',
            ) from error
        if url is None and client is None and async_client is None:
            raise ConfigurationError("a Redis URL is needed", hint="such as redis://127.0.0.1:6379/0")
        self._failures = (redis.RedisError, OSError, asyncio.TimeoutError)
        self._url = url
        self._timeout = timeout
        self._client = client
        self._async_client = async_client
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        if client is None and url is not None:
            try:
                self._client = self._connect(redis)
            except ValueError as error:
                # The URL may hold a password, so it is not repeated.
                raise ConfigurationError(
                    "the Redis URL is not one", hint="it starts with redis://, rediss:// or unix://"
                ) from error

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        """Run a script and return its answer.

        Raises:
            StoreError: Redis is gone, too slow, full, or refuses.
        """
        import redis

        client = self._client
        try:
            try:
                answer = client.evalsha(script.digest, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:
                answer = client.eval(script.source, len(keys), *keys, *arguments)
        except self._failures as error:
            raise _store_error(error) from error
        return list(answer)

    async def run_async(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]
    ) -> list[Any]:
        """Do what `run` does without holding up the event loop."""
        import redis

        client = self._client_of_loop()
        try:
            try:
                answer = await client.evalsha(script.digest, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:
                answer = await client.eval(script.source, len(keys), *keys, *arguments)
        except self._failures as error:
            raise _store_error(error) from error
        return list(answer)

    def close(self) -> None:
        """Close the connections of synchronous calls; a later call opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        client = self._async_client or self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
            await client.connection_pool.disconnect()

    def _client_of_loop(self) -> Any:
        if self._async_client is not None:
            return self._async_client
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._by_loop.get(loop)
            if client is None:
                import redis.asyncio

                # A connection belongs to the loop that opened it.
                client = self._by_loop[loop] = self._connect(redis.asyncio)
            return client

    def _connect(self, package: Any) -> Any:
        import redis
        from redis.backoff import NoBackoff

        retry = redis.asyncio.retry.Retry if package is redis.asyncio else redis.retry.Retry
        pool = package.BlockingConnectionPool.from_url(
            self._url,
            max_connections=_CONNECTIONS,
            timeout=_POOL_WAIT_SECONDS,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            # A connection that went stale while idle is opened anew; a slow answer is not asked for again.
            retry=retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        )
        return package.Redis(connection_pool=pool)


def _store_error(error: BaseException) -> StoreError:
    reason = type(error).__name__
    if reason == "OutOfMemoryError" or "maxmemory" in str(error):
        return StoreError(
            "the shared Redis is full",
            hint="raise maxmemory, or give the limits a Redis of their own",
            context={"store": "redis", "reason": "full"},
        )
    return StoreError(
        f"the shared Redis did not answer as it should: {reason}",
        hint="see that Redis runs and that its URL is right",
        context={"store": "redis", "reason": reason},
    )
