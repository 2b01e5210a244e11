"""Lua scripts on a Redis that replicas share: one atomic step each, and every failure of the store as ours.

Nothing is sent again but over a connection that turned out to be broken: a script is written so that running
it twice with the same id does the work once.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cert.core.errors import ConfigurationError, DependencyMissingError, StoreError

if TYPE_CHECKING:
    from cert.core.redis_connections import LoopConnections, ThreadConnections

__all__ = ["RedisScripts", "Script", "store_error"]


@dataclass(frozen=True)
class Script:
    """A Lua script and its name for Redis, which is its SHA-1.

    Attributes:
        source: a function body that answers with one flat list of texts and whole numbers.
        goes_on: a condition in Lua on its ``answer``: whether what is to come after it in the same round trip
            may be done (see `redis_steps`); left out, it may whatever the answer.
    """

    source: str
    goes_on: str | None = None
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
        self._unknown_script = redis.exceptions.NoScriptError
        self._url = url
        self._timeout = timeout
        self._client = client
        self._async_client = async_client
        self._lock = threading.Lock()
        self._threads: ThreadConnections | None = None
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopConnections] = (
            weakref.WeakKeyDictionary()
        )
        if client is None and url is not None:
            from cert.core.redis_connections import ThreadConnections

            try:
                self._threads = ThreadConnections(url, timeout)
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
        ask = self._client.execute_command if self._threads is None else self._threads.ask
        try:
            try:
                answer = ask("EVALSHA", script.digest, len(keys), *keys, *arguments)
            except self._unknown_script:
                answer = ask("EVAL", script.source, len(keys), *keys, *arguments)
        except self._failures as error:
            raise store_error(error) from error
        return list(answer)

    async def run_async(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]
    ) -> list[Any]:
        """Do what `run` does without holding up the event loop."""
        ask = self._async_client.execute_command if self._async_client is not None else self._of_loop().ask
        try:
            try:
                answer = await ask("EVALSHA", script.digest, len(keys), *keys, *arguments)
            except self._unknown_script:
                answer = await ask("EVAL", script.source, len(keys), *keys, *arguments)
        except self._failures as error:
            raise store_error(error) from error
        return list(answer)

    def close(self) -> None:
        """Close the connections of synchronous calls; a later call opens new ones."""
        if self._threads is not None:
            self._threads.close()
        elif self._client is not None:
            self._client.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        connections = self._async_client or self._by_loop.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.aclose()

    def _of_loop(self) -> LoopConnections:
        loop = asyncio.get_running_loop()
        connections = self._by_loop.get(loop)
        if connections is None:
            from cert.core.redis_connections import LoopConnections

            assert self._url is not None
            with self._lock:
                # A connection belongs to the loop that opened it.
                connections = self._by_loop[loop] = LoopConnections(self._url, self._timeout)
        return connections


def store_error(error: BaseException) -> StoreError:
    """Return our error for one of redis-py's."""
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
