"""Analyses that are there already, and those that somebody is at work on: each is made once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from theine import Cache

from cert.core.errors import CertError, ConfigurationError, GenerationCancelledError, GenerationTimeoutError

__all__ = ["Claim", "Follow", "Hit", "Lead", "LeaderGoneError", "SingleFlightCache"]

V = TypeVar("V")


class LeaderGoneError(Exception):
    """Whoever made the result gave it up for a reason of his own; ask again."""


@dataclass(frozen=True, slots=True)
class Hit(Generic[V]):
    """The result is there."""

    value: V


@dataclass(frozen=True, slots=True)
class Follow(Generic[V]):
    """Somebody else is making the result.

    Attributes:
        future: of this follower alone; it fails with `LeaderGoneError` or with what the result failed with.
    """

    future: Future[V]


class Lead(Generic[V]):
    """The caller is to make the result, and must end with `fulfil` or `fail`."""

    def __init__(self, cache: SingleFlightCache[V], key: Hashable) -> None:
        self._cache = cache
        self._key = key
        self.followers: list[Future[V]] = []

    def fulfil(self, value: V) -> None:
        """Keep the result and hand it to the followers."""
        for follower in self._cache._land(self._key, self, value):
            if follower.set_running_or_notify_cancel():
                follower.set_result(value)

    def fail(self, error: BaseException, *, own: bool = False) -> None:
        """Hand the failure to the followers, unless it is the leader's own: then each asks again.

        Args:
            error: any, a time-out or a cancellation is always the leader's own.
            own: it may come from the leader's listeners.
        """
        own = own or isinstance(error, GenerationTimeoutError | GenerationCancelledError)
        shared = isinstance(error, CertError) and not own
        for follower in self._cache._land(self._key, self, None):
            if follower.set_running_or_notify_cancel():
                # Each a copy: an error that is raised in several threads gathers the tracebacks of all.
                follower.set_exception(copy.copy(error) if shared else LeaderGoneError())


Claim: TypeAlias = "Hit[V] | Follow[V] | Lead[V]"


class SingleFlightCache(Generic[V]):
    """A bounded cache for any number of threads and tasks; W-TinyLFU decides what stays (see ADR 0005).

    Args:
        size: the most results that are kept; 0 keeps none, and equal calls at the same time still share one.

    Raises:
        ConfigurationError: a negative size.
    """

    def __init__(self, size: int = 1000) -> None:
        if size < 0:
            raise ConfigurationError(f"a cache keeps 0 or more results, not {size}")
        self.size = size
        self._kept: Cache[Hashable, V] | None = None
        if size:
            # Every access is under our own lock, which no interrupt leaves locked.
            self._kept = Cache(size, nolock=True)
            # Nothing here expires; the task that looks for it would keep the cache alive for ever.
            self._kept.close()
        self._flights: dict[Hashable, Lead[V]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return 0 if self._kept is None else len(self._kept)

    def claim(self, key: Hashable) -> Claim[V]:
        """Return the result, a future of somebody else's, or the task of making it."""
        with self._lock:
            if self._kept is not None:
                value, found = self._kept.get(key)
                if found and value is not None:
                    return Hit(value)
            leader = self._flights.get(key)
            if leader is None:
                leader = self._flights[key] = Lead(self, key)
                return leader
            future: Future[V] = Future()
            leader.followers.append(future)
            return Follow(future)

    def clear(self) -> None:
        """Forget every result; what is on its way is handed out once more and not kept."""
        with self._lock:
            self._flights = {}
            if self._kept is not None:
                self._kept.clear()

    def _land(self, key: Hashable, leader: Lead[V], value: V | None) -> list[Future[V]]:
        with self._lock:
            # After `clear` somebody else may fly under this key, or nobody.
            if self._flights.get(key) is leader:
                del self._flights[key]
                if value is not None and self._kept is not None:
                    self._kept.set(key, value)
            return leader.followers
