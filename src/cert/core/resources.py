"""Things that are expensive to load and must not go away under a user: models, above all.

::

    unloaded ──load──▶ loading ──▶ loaded ──unload──▶ unloading ──▶ unloaded
                          └─ an error: back to unloaded; the next load tries again
                             time is up: back to loaded ◀──┘
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from cert.core.errors import CertError, ConfigurationError, ResourceError
from cert.core.events import EventHub, ModelLoaded, ModelUnloaded, default_hub
from cert.core.health_probe import Finding
from cert.core.memory import MemoryTracker

__all__ = ["ManagedResource", "ResourceState", "preload"]

T = TypeVar("T")
ResourceState: TypeAlias = Literal["unloaded", "loading", "loaded", "unloading"]


class _Flight:
    """A load in progress, which every thread that wants the resource waits for."""

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None


class ManagedResource(ABC, Generic[T]):
    """Base of what is loaded, used by many threads at once, and unloaded.

    A subclass says how in `_load`, `_release` and, where a failed load leaves something behind, `_abandon`;
    what must not count as memory of the thing goes into `_prepare`, and what makes its memory free once the
    last reference is gone into `_reclaim`.

    Loading happens once, however many ask; all of them get its error if it fails, and the next to ask tries
    again. Unloading waits for the users; while it does, new users are refused, so that it comes to an end.

    Args:
        name: for messages, events and health; from a small fixed set.
        device: that it takes memory of.
        memory: measures what it takes; with a limit, a load that goes over it fails.
        hub: where its events go.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        memory: MemoryTracker | None = None,
        hub: EventHub | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.device = device
        self._memory = memory or MemoryTracker()
        self._hub = default_hub() if hub is None else hub
        self._clock = clock
        self._changed = threading.Condition()
        self._state: ResourceState = "unloaded"
        self._flight: _Flight | None = None
        self._value: T | None = None
        self._users = 0
        # Not the error itself: its traceback would keep a half-loaded model in memory.
        self._failure: Finding | None = None

    # --- what a subclass says ---

    @abstractmethod
    def _load(self) -> T:
        """Make the thing; called on one thread at a time, never while another one exists."""

    def _release(self, value: T) -> None:
        """Let go of the thing; nobody uses it any more."""

    def _prepare(self) -> None:
        """Do what comes before the memory is measured: libraries, and which ``device`` it will be."""

    def _abandon(self) -> None:
        """Clear up what a failed `_load` may have left behind."""

    def _reclaim(self) -> None:
        """Give memory back that is free but kept, after the last reference is gone."""

    # --- what can be seen ---

    @property
    def state(self) -> ResourceState:
        """Where in its life it is."""
        return self._state

    @property
    def users(self) -> int:
        """How many use it just now."""
        return self._users

    # --- its life ---

    def load(self) -> None:
        """Load it unless it is loaded; wait for a load that another thread has begun.

        Raises:
            ResourceError: it is being unloaded, or the subclass says so.
            Exception: whatever else `_load` raises.
        """
        self._ensure_loaded(take=False)

    @contextlib.contextmanager
    def acquire(self) -> Iterator[T]:
        """Use it, loading it if need be; it is not unloaded before the block ends.

        Raises:
            ResourceError: it is being unloaded.
            Exception: whatever `_load` raises.
        """
        self._ensure_loaded(take=True)
        try:
            yield self._held()
        finally:
            self._give_back()

    @contextlib.asynccontextmanager
    async def acquire_async(self) -> AsyncIterator[T]:
        """Do what `acquire` does, loading on another thread so that the event loop goes on."""
        # The reference is taken here, not on the thread, so that a cancelled wait leaves none behind.
        while not self._take_if_loaded():
            await asyncio.to_thread(self.load)
        try:
            yield self._held()
        finally:
            self._give_back()

    def unload(self, *, wait: float = 30.0) -> None:
        """Unload it once nobody uses it; nothing happens if it is not loaded.

        Args:
            wait: seconds that users and a load in progress get to end; 0 refuses at once if there are any.
                A thread that unloads what it uses itself waits in vain.

        Raises:
            ResourceError: it is still in use after that time; it stays loaded and usable.
            Exception: whatever `_release` raises; it counts as unloaded all the same.
        """
        if not (math.isfinite(wait) and wait >= 0):
            raise ConfigurationError(f"wait must be a finite number of seconds, 0 or more, not {wait!r}")
        deadline = self._clock() + wait
        with self._changed:
            while self._state in ("loading", "unloading"):
                self._wait_until(deadline)
            if self._state == "unloaded":
                return
            self._set("unloading")
            try:
                while self._users:
                    self._wait_until(deadline)
            except BaseException:
                self._set("loaded")
                raise
            value = self._held()
            self._value = None
        try:
            self._release(value)
        finally:
            del value  # the last reference, so that the memory is free when the state says so
            try:
                self._reclaim()
            finally:
                with self._changed:
                    self._set("unloaded")
                self._hub.emit(ModelUnloaded(model=self.name))

    def health(self, *, require_loaded: bool = False) -> Finding:
        """Return a finding for a health check.

        Args:
            require_loaded: whether it has to be in memory already; otherwise the first use loads it, which
                is slow but works: degraded.
        """
        with self._changed:
            state, failure = self._state, self._failure
        if state == "loaded":
            return Finding("healthy")
        if state == "unloaded" and failure is not None:
            return failure
        code = "not_loaded" if state == "unloaded" else state
        return Finding("unhealthy" if require_loaded else "degraded", code, f"{self.name} is {state}")

    # --- inside ---

    def _ensure_loaded(self, *, take: bool) -> None:
        while True:
            with self._changed:
                if self._take_if_loaded(take=take):
                    return
                if self._flight is None:
                    flight = self._flight = _Flight()
                    self._set("loading")
                    break
                joined = self._flight
                self._changed.wait_for(lambda: joined.done)  # noqa: B023  # awaited before it changes
                if joined.error is not None:
                    raise joined.error
        self._fly(flight, take=take)

    def _take_if_loaded(self, *, take: bool = True) -> bool:
        with self._changed:
            if self._state == "unloading":
                raise ResourceError(f"{self.name} is being unloaded", hint="try again in a moment")
            if self._state == "loaded":
                self._users += take
                return True
            return False

    def _fly(self, flight: _Flight, *, take: bool) -> None:
        started = self._clock()
        try:
            self._prepare()
            before = self._memory.read(self.device).used
            value = self._load_within_limit()
        except BaseException as error:
            self._clear_up(error)
            with self._changed:
                # An interrupted load says nothing of the resource: those who wait try for themselves.
                if isinstance(error, Exception):
                    flight.error = error
                    self._failure = _finding(error)
                self._land(flight, "unloaded")
            raise
        with self._changed:
            self._value = value
            self._failure = None
            self._users += take
            self._land(flight, "loaded")
        after = self._memory.read(self.device).used
        used = None if before is None or after is None else max(0, after - before)
        seconds = self._clock() - started
        self._hub.emit(ModelLoaded(model=self.name, device=self.device, seconds=seconds, bytes_used=used))

    def _load_within_limit(self) -> T:
        value = self._load()
        try:
            self._memory.require_within_limit(self.device)
        except CertError:
            self._release(value)
            del value
            self._reclaim()
            raise
        return value

    def _clear_up(self, error: BaseException) -> None:
        try:
            self._abandon()
        except Exception as second:
            error.add_note(f"clearing up after the failed load failed too: {type(second).__name__}: {second}")

    def _land(self, flight: _Flight, state: ResourceState) -> None:
        flight.done = True
        self._flight = None
        self._set(state)

    def _set(self, state: ResourceState) -> None:
        self._state = state
        self._changed.notify_all()

    def _wait_until(self, deadline: float) -> None:
        left = deadline - self._clock()
        if left <= 0:
            raise ResourceError(
                f"{self.name} is in use and stays loaded",
                hint="wait longer, or end what uses it first",
                context={"state": self._state, "users": self._users},
            )
        self._changed.wait(left)

    def _held(self) -> T:
        value: Any = self._value
        return value  # type: ignore[no-any-return]  # T may itself allow None

    def _give_back(self) -> None:
        with self._changed:
            self._users -= 1
            self._changed.notify_all()


def _finding(error: Exception) -> Finding:
    if isinstance(error, CertError):
        return Finding("unhealthy", error.code, error.message)
    # The text of a foreign error may hold an address with a password.
    return Finding("unhealthy", "load_failed", type(error).__name__)


def preload(resources: Iterable[ManagedResource[Any]]) -> None:
    """Load several resources, one after the other, before the first request needs them.

    One at a time: they share the device's memory, and two at once would each be measured with the other.

    Raises:
        Exception: what the first failing load raises; those loaded by this call are unloaded again.
    """
    loaded: list[ManagedResource[Any]] = []
    try:
        for resource in resources:
            if resource.state != "loaded":
                resource.load()
                loaded.append(resource)
    except BaseException:
        for resource in reversed(loaded):
            with contextlib.suppress(
                Exception
            ):  # in use already, or it does not unload: the first error counts
                resource.unload(wait=0)
        raise
