"""Connections to one Redis, kept open, and the shortest way through each: for threads, and for an event loop.

redis-py opens them (address, TLS, password, database) and reads the answers. Its client and pool stand aside:
around a question that Redis answers in 40 µs they spend several times as long, on tests of idle connections,
on measurements for OpenTelemetry, and in asyncio on a task for every write.

A connection that went stale while idle is opened anew, and the question is sent again; a slow answer is not
asked for again. Whatever interrupts an exchange closes its connection, so that no answer is ever read by the
wrong question.
"""

from __future__ import annotations

import asyncio
import os
import threading
from types import TracebackType
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry
from redis.backoff import NoBackoff

__all__ = ["LoopConnections", "ThreadConnections"]

# How long a call may wait for a free connection: that is our own load, not Redis being slow.
_WAIT_SECONDS = 5.0
_CONNECTIONS = 32
# Nothing but answers comes over a connection of the second protocol, and opening one takes no introductions.
_QUIET: dict[str, Any] = {"protocol": 2, "driver_info": None}


def pack(parts: tuple[str | int, ...]) -> bytes:
    """Return a command in Redis's protocol.

    redis-py's own packing in Python takes 3 µs a part; a script has dozens.
    """
    encoded = [part.encode() if isinstance(part, str) else b"%d" % part for part in parts]
    return b"".join([b"*%d\r\n" % len(encoded), *[b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded]])


class ThreadConnections:
    """Connections that threads take turns with; a forked child opens its own.

    Args:
        url: of the Redis.
        timeout: seconds for connecting, and for each answer.

    Raises:
        ValueError: the URL is none of Redis.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": redis.retry.Retry(NoBackoff(), 0),
            **_QUIET,
        }
        self._start_over()

    def ask(self, *parts: str | int) -> Any:
        """Send a command and return the answer.

        Raises:
            redis.RedisError, OSError: there is none, or it is an error.
        """
        if self._process != os.getpid():
            self._start_over()
        idle, places, command = self._idle, self._places, [pack(parts)]
        if not places.acquire(timeout=_WAIT_SECONDS):
            raise redis.ConnectionError("no connection became free")
        try:
            try:
                connection = idle.pop()
            except IndexError:
                connection = self._pool.make_connection()
            try:
                try:
                    return _exchange(connection, command)
                except redis.ConnectionError:
                    return _exchange(connection, command)
            finally:
                idle.append(connection)
        finally:
            places.release()

    def close(self) -> None:
        """Close those that are idle; they are opened again when needed."""
        for connection in list(self._idle):
            connection.disconnect()

    def _start_over(self) -> None:
        self._process = os.getpid()
        self._idle: list[Any] = []
        self._places = threading.Semaphore(_CONNECTIONS)
        self._pool = redis.ConnectionPool.from_url(self._url, **self._options)


def _exchange(connection: Any, command: list[bytes]) -> Any:
    try:
        connection.send_packed_command(command)
        return connection.read_response()
    except redis.ResponseError:
        raise  # read to its end
    except BaseException:
        connection.disconnect()
        raise


class LoopConnections:
    """Connections that the tasks of one event loop take turns with.

    Args:
        url: of the Redis.
        timeout: seconds for connecting, and for each answer.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._timeout = timeout
        self._idle: list[Any] = []
        self._places = asyncio.Semaphore(_CONNECTIONS)
        # Time-outs are ours: redis-py's own would start a task for each write.
        retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        self._pool: Any = redis.asyncio.ConnectionPool.from_url(
            url, retry=retry, socket_timeout=None, protocol=2
        )

    async def ask(self, *parts: str | int) -> Any:
        """Send a command and return the answer.

        Raises:
            redis.RedisError, OSError, TimeoutError: there is none, or it is an error.
        """
        command, places = [pack(parts)], self._places
        if places.locked():
            async with asyncio.timeout(_WAIT_SECONDS):
                await places.acquire()
        else:
            await places.acquire()
        try:
            connection = self._idle.pop() if self._idle else self._pool.make_connection()
            try:
                try:
                    return await self._exchange(connection, command)
                except redis.ConnectionError:
                    return await self._exchange(connection, command)
            finally:
                self._idle.append(connection)
        finally:
            places.release()

    async def aclose(self) -> None:
        """Close those that are idle; they are opened again when needed."""
        for connection in list(self._idle):
            await connection.disconnect()

    async def _exchange(self, connection: Any, command: list[bytes]) -> Any:
        try:
            if not connection.is_connected:
                async with _silence(self._timeout):
                    await connection.connect()
            async with _silence(self._timeout):
                await connection.send_packed_command(command)
                return await connection.read_response()
        except redis.ResponseError:
            raise  # read to its end
        except BaseException:
            await connection.disconnect(nowait=True)
            raise


class _silence:  # noqa: N801  # reads as what it bounds
    """A time-out for what Redis does, not for what the event loop does meanwhile.

    A loop that stood still finds the answer and the time-out together; the answer comes first.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        loop = asyncio.get_running_loop()
        # Not the end itself: only now it is put in the line, behind all that has arrived.
        self._alarm = loop.call_later(self._seconds, self._limit.reschedule, 0.0)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        await self._limit.__aexit__(kind, error, trace)
