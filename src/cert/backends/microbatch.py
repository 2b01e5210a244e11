"""Requests of many threads and tasks, run together on one device: a bounded queue and one thread."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from cert.backends.control import Control
from cert.backends.detached import detached
from cert.core.errors import ConfigurationError, OverloadedError

__all__ = ["IDLE_OF_ACCELERATORS", "BatchLimits", "Job", "MicroBatcher"]

# The thread ends after so many seconds without work, and starts again with the next request: a backend
# that nobody uses any more costs no thread and can be collected.
_IDLE = 1.0
# On an accelerator each thread that computes first makes its own handles of the vendor's libraries, seconds
# after which the next request comes: there the thread stays until the backend is closed or long unused.
IDLE_OF_ACCELERATORS = 600.0
# Requests that come together arrive within this many seconds of one another; waiting for the others is
# worth this much, and never more than the second.
_GATHER = 0.001
_GATHER_AT_MOST = 0.010
# How long the end of the process waits for a step that is being computed.
_AT_EXIT = 10.0


class Job(Protocol):
    """One request in the queue; jobs with equal keys can run as one batch."""

    control: Control

    @property
    def key(self) -> Hashable:
        """What has to be equal for two jobs to share a batch."""
        ...

    @property
    def future(self) -> Future[Any]:
        """What the caller waits for."""
        ...


J = TypeVar("J", bound=Job)


class BatchLimits:
    """How much work is taken.

    Args:
        rows: the most requests in one batch.
        waiting: the most requests in the queue.

    Raises:
        ConfigurationError: a limit below 1.
    """

    def __init__(self, rows: int = 32, waiting: int = 1024) -> None:
        if rows < 1 or waiting < 1:
            raise ConfigurationError(f"a batch needs at least one row and one place, not {rows}, {waiting}")
        self.rows = rows
        self.waiting = waiting


class MicroBatcher(Generic[J]):
    """Runs jobs in batches; the kinds (jobs with equal keys) take turns.

    A batch takes the jobs of one kind in order of arrival: nobody is passed by a later job of his own
    kind, and a kind waits for at most one batch of each other. A job that its caller withdraws or cancels
    leaves the queue at once.

    Args:
        run: runs a batch and fills the futures of its jobs; it raises nothing.
        limits: of a batch and of the queue.
        idle: seconds without work after which the thread ends; a second by default.
    """

    def __init__(
        self, run: Callable[[list[J]], None], limits: BatchLimits, idle: float | None = None
    ) -> None:
        self.limits = limits
        self._idle_seconds = idle
        self._run = run
        # The kinds in the order of their turns, the jobs of each, by their futures, in that of their arrival.
        self._kinds: dict[Hashable, dict[Future[Any], J]] = {}
        self._waiting: dict[Future[Any], Hashable] = {}
        self._running: list[J] = []
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._at_work: MicroBatcher[J] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, jobs: Sequence[J]) -> None:
        """Put jobs into the queue, all or none. A job from the batch thread itself runs at once.

        Raises:
            OverloadedError: the queue has no room for them.
            ConfigurationError: it was closed.
        """
        if threading.current_thread() is self._thread:
            # A listener asks the same model: waiting for the queue would be waiting for itself.
            self._run_here(jobs)
            return
        with self._condition:
            self._refuse_if_closed()
            if len(self._waiting) + len(jobs) > self.limits.waiting:
                raise OverloadedError(
                    f"{len(self._waiting)} requests wait already and the limit is {self.limits.waiting}",
                    hint="send fewer at once, or run more replicas",
                    retry_after=1.0,
                    context={"waiting": len(self._waiting), "limit": self.limits.waiting},
                )
            self._start()
            self._at_work = self  # until nothing waits: a caller may drop it and keep the future
            for job in jobs:
                self._waiting[job.future] = key = job.key
                self._kinds.setdefault(key, {})[job.future] = job
            self._condition.notify_all()
        forget = _forgetting(weakref.ref(self))
        for job in jobs:
            job.future.add_done_callback(forget)
            job.control.on_end(_withdrawal(weakref.ref(job.control), weakref.ref(job.future)))

    def close(self, wait: float | None = None) -> None:
        """Take no more jobs, withdraw those that wait, and end those that run within a step.

        Args:
            wait: seconds for the thread to end; ``None`` waits as long as it takes.
        """
        with self._condition:
            self._closed = True
            ended = [job for kind in self._kinds.values() for job in kind.values()] + self._running
            self._waiting, self._kinds = {}, {}
            thread = self._thread
            self._condition.notify_all()
        for job in ended:
            job.control.cancel()
            job.future.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(wait)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigurationError("the model was unloaded")

    def _remove(self, future: Future[Any]) -> None:
        if future in self._waiting:
            key = self._waiting.pop(future)
            kind = self._kinds[key]
            del kind[future]
            if not kind:
                del self._kinds[key]

    def _start(self) -> None:
        # After a fork the thread is not in the child, though the object is.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=_serve, args=(weakref.ref(self),), name="cert-batches", daemon=True
            )
            self._thread.start()
            _working.add(self)

    # A function of its own, so that an idle thread holds on to no job.
    def _step(self, idle_since: float) -> float | None:
        """Run a batch, or wait a while for one; return since when there was none, nothing at the end."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._waiting or self._closed, _IDLE) or self._closed:
                self._at_work = None
                longest = _IDLE if self._idle_seconds is None else self._idle_seconds
                if not self._closed and time.monotonic() - idle_since < longest:
                    return idle_since
                self._thread = None
                return None
            self._gather()
            self._running = jobs = self._take()
        self._run_claimed(jobs)
        self._running = []
        return time.monotonic()

    def _gather(self) -> None:
        end = time.monotonic() + _GATHER_AT_MOST
        seen = -1
        while seen < len(self._waiting) < self.limits.rows and time.monotonic() < end:
            seen = len(self._waiting)
            self._condition.wait(_GATHER)

    def _take(self) -> list[J]:
        if not self._kinds:  # withdrawn while others were awaited
            return []
        key = next(iter(self._kinds))
        # A copy in one go: the garbage collector may withdraw a job of an abandoned stream anywhere.
        jobs = list(self._kinds[key].values())[: self.limits.rows]
        for job in jobs:
            self._remove(job.future)
        if key in self._kinds:  # the rest of them come after the other kinds
            self._kinds[key] = self._kinds.pop(key)
        return jobs

    def _run_here(self, jobs: Sequence[J]) -> None:
        self._refuse_if_closed()
        outer = self._running
        for key in dict.fromkeys(job.key for job in jobs):
            kind = [job for job in jobs if job.key == key]
            for start in range(0, len(kind), self.limits.rows):
                batch = kind[start : start + self.limits.rows]
                self._running = outer + batch
                self._run_claimed(batch)
                self._running = outer

    def _run_claimed(self, jobs: Sequence[J]) -> None:
        claimed = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        late = [job for job in claimed if job.control.ending in ("timeout", "cancelled")]
        for job in late:
            job.future.set_exception(job.control.error())
        if rest := [job for job in claimed if job not in late]:
            try:
                self._run(rest)
            # A defect of ours must reach whoever waits, and the thread lives on for the others.
            except BaseException as error:
                _settle(rest, detached(error))
            _settle(rest, RuntimeError("the batch ended without a result of this request"))


# A thread that is inside torch when the interpreter goes away takes the process down with an abort.
_working: weakref.WeakSet[MicroBatcher[Any]] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for batcher in list(_working):
        batcher.close(_AT_EXIT)


def _serve(reference: weakref.ref[MicroBatcher[Any]]) -> None:
    # Between two waits it holds on to nothing, so that a backend that nobody uses any more can be collected.
    since: float | None = time.monotonic()
    while since is not None and (batcher := reference()) is not None:
        since = batcher._step(since)
        del batcher


def _settle(jobs: Sequence[Job], error: BaseException) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)


# What futures and controls keep must not keep them, or the batcher, in return: a circle would hold every
# result until the garbage collector comes by.


def _forgetting(reference: weakref.ref[MicroBatcher[Any]]) -> Callable[[Future[Any]], None]:
    def forget(future: Future[Any]) -> None:
        if (batcher := reference()) is not None:
            with batcher._condition:
                batcher._remove(future)

    return forget


def _withdrawal(control: weakref.ref[Control], future: weakref.ref[Future[Any]]) -> Callable[[], None]:
    def withdraw() -> None:
        ended, waiting = control(), future()
        # One that is only stopped gets its turn, and ends with what it has by then.
        if ended is not None and waiting is not None and ended.ending != "early_stop":
            waiting.cancel()

    return withdraw
