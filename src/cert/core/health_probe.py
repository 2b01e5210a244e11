"""One health check: run in its own time, whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cert.core.errors import CertError

__all__ = ["Finding", "HealthCheck", "Probe", "Status"]

Status: TypeAlias = Literal["healthy", "degraded", "unhealthy"]


@dataclass(frozen=True)
class Finding:
    """What a check has to say.

    Attributes:
        code: machine-readable name of what is wrong.
        detail: for people; it is shown to whoever may ask for the health, so it holds no secret.
    """

    status: Status
    code: str | None = None
    detail: str | None = None


_Answer: TypeAlias = Finding | bool | None
HealthCheck: TypeAlias = Callable[[], _Answer | Awaitable[_Answer]]


class Probe:
    """A registered check.

    A run that hangs is left behind, and until it ends no second one is started: a check that never returns
    costs one thread, not one for each probe.
    """

    def __init__(
        self,
        name: str,
        check: HealthCheck,
        critical: bool,
        timeout: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self.name = name
        self.critical = critical
        self._check = check
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._holders = 0  # of the run in hand: its task, and its thread if it has one

    async def run(self) -> tuple[Finding, float]:
        """Return what the check finds and the seconds that it took; never raises and never hangs."""
        started = self._clock()
        with self._lock:
            if self._holders:
                return Finding("unhealthy", "timeout", "an earlier run of this check has not ended"), 0.0
            self._holders = 1
        finding = await self._within_time()
        return finding, self._clock() - started

    async def _within_time(self) -> Finding:
        work = asyncio.ensure_future(self._work())
        work.add_done_callback(lambda _: self._let_go())
        timer = asyncio.ensure_future(self._sleep(self._timeout))
        try:
            await asyncio.wait({work, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            if not work.done():
                work.cancel()
        if not work.done():
            return Finding("unhealthy", "timeout", f"no answer within {self._timeout:g} s")
        if work.cancelled():
            return Finding("unhealthy", "check_failed", "the check cancelled itself")
        return work.result()

    async def _work(self) -> Finding:
        try:
            if _is_async(self._check):
                answer = self._check()
            else:
                answer = await self._on_a_thread()
            if inspect.isawaitable(answer):
                answer = await answer
            return _finding(answer)
        except Exception as error:
            return _failure(error)

    async def _on_a_thread(self) -> _Answer | Awaitable[_Answer]:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_Answer | Awaitable[_Answer]] = loop.create_future()
        context = copy_context()

        def settle(answer: _Answer | Awaitable[_Answer], error: Exception | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(answer)

        def run() -> None:
            answer: _Answer | Awaitable[_Answer] = None
            failure: Exception | None = None
            try:
                answer = context.run(self._check)
            except Exception as error:
                failure = error
            except BaseException as error:  # a check that calls sys.exit ends itself, not the process
                failure = RuntimeError(type(error).__name__)
            finally:
                self._let_go()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, answer, failure)

        with self._lock:
            self._holders += 1
        # A daemon, not an executor's thread: those are joined when Python ends.
        thread = threading.Thread(target=run, name="cert-health-check", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._let_go()
            raise
        return await outcome

    def _let_go(self) -> None:
        with self._lock:
            self._holders -= 1


def _is_async(check: HealthCheck) -> bool:
    return inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(
        getattr(check, "__call__", None)  # noqa: B004  # an object whose call is asynchronous
    )


def _finding(answer: object) -> Finding:
    if isinstance(answer, Finding):
        return answer
    if answer is None or answer is True:
        return Finding("healthy")
    if answer is False:
        return Finding("unhealthy", "check_failed", None)
    return Finding("unhealthy", "check_failed", f"the check returned a {type(answer).__name__}")


def _failure(error: Exception) -> Finding:
    if isinstance(error, CertError):
        return Finding("unhealthy", error.code, error.message)
    # The text of a foreign error may hold an address with a password.
    return Finding("unhealthy", "check_failed", type(error).__name__)
