"""Requests of many threads and tasks, run together on one device: a bounded queue and one thread."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from cert.backends.control import Control
from cert.core.errors import ConfigurationError, OverloadedError

__all__ = ["BatchLimits", "Job", "MicroBatcher"]

# The thread ends after so many seconds without work, and starts again with the next request: a backend
# that nobody uses any more costs no thread and can be collected.
_IDLE = 1.0
# Requests that come together arrive within this many seconds of one another; waiting for the others is
# worth this much, and never more than the second.
_GATHER = 0.001
_GATHER_AT_MOST = 0.010


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
    """Runs jobs in batches, the longest waiting first.

    The batch takes the oldest job and those with its key, in order of arrival: nobody is passed by a later
    job of his own kind, and a kind waits for at most one batch of each other. A job that its caller
    withdraws leaves the queue at once.

    Args:
        run: runs a batch and fills the futures of its jobs; it raises nothing.
        limits: of a batch and of the queue.
    """

    def __init__(self, run: Callable[[list[J]], None], limits: BatchLimits) -> None:
        self.limits = limits
        self._run = run
        self._waiting: dict[J, None] = {}
        self._running: list[J] = []
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

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
            self._run_claimed(list(jobs))
            return
        with self._condition:
            if self._closed:
                raise ConfigurationError("the model was unloaded")
            if len(self._waiting) + len(jobs) > self.limits.waiting:
                raise OverloadedError(
                    f"{len(self._waiting)} requests wait already and the limit is {self.limits.waiting}",
                    hint="send fewer at once, or run more replicas",
                    retry_after=1.0,
                    context={"waiting": len(self._waiting), "limit": self.limits.waiting},
                )
            self._waiting.update(dict.fromkeys(jobs))
            self._start()
            self._condition.notify_all()
        for job in jobs:
            job.future.add_done_callback(self._forget(job))

    def close(self) -> None:
        """Take no more jobs, withdraw those that wait, and end those that run within a step."""
        with self._condition:
            self._closed = True
            waiting, self._waiting = list(self._waiting), {}
            running, thread = list(self._running), self._thread
            self._condition.notify_all()
        for job in waiting + running:
            job.control.cancel()
            job.future.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _forget(self, job: J) -> Callable[[Future[Any]], None]:
        reference = weakref.ref(self)

        def forget(_: Future[Any]) -> None:
            if (batcher := reference()) is not None:
                with batcher._condition:
                    batcher._waiting.pop(job, None)

        return forget

    def _start(self) -> None:
        # After a fork the thread is not in the child, though the object is.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=_serve, args=(weakref.ref(self),), name="cert-batches", daemon=True
            )
            self._thread.start()

    def _step(self) -> bool:
        with self._condition:
            if not self._condition.wait_for(lambda: self._waiting or self._closed, _IDLE) or self._closed:
                self._thread = None
                return False
            self._gather()
            jobs = self._take()
        self._run_claimed(jobs)
        return True

    def _gather(self) -> None:
        end = time.monotonic() + _GATHER_AT_MOST
        seen = -1
        while seen < len(self._waiting) < self.limits.rows and time.monotonic() < end:
            seen = len(self._waiting)
            self._condition.wait(_GATHER)

    def _take(self) -> list[J]:
        if not self._waiting:  # withdrawn while others were awaited
            return []
        key = next(iter(self._waiting)).key
        jobs = [job for job in self._waiting if job.key == key][: self.limits.rows]
        for job in jobs:
            del self._waiting[job]
        return jobs

    def _run_claimed(self, jobs: list[J]) -> None:
        claimed = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        late = [job for job in claimed if job.control.ending is not None]
        for job in late:
            job.future.set_exception(job.control.error())
        if not (rest := [job for job in claimed if job not in late]):
            return
        self._running.extend(rest)
        try:
            self._run(rest)
        # A defect of ours must reach whoever waits, and the thread lives on for the others.
        except BaseException as error:
            for job in rest:
                if not job.future.done():
                    job.future.set_exception(error)
        finally:
            del self._running[-len(rest) :]


def _serve(reference: weakref.ref[MicroBatcher[Any]]) -> None:
    while (batcher := reference()) is not None and batcher._step():
        del batcher
