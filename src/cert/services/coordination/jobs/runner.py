"""Works on jobs: claims one, gives signs of life, tells how far it is, and ends it, once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from cert.core.correlation import correlated
from cert.core.errors import CertError, StoreError, StoreUnusableError
from cert.observability.logging import get_logger
from cert.services.common.errors import GENERIC, problem, problem_of
from cert.services.coordination.jobs.claims import JobClaims
from cert.services.coordination.jobs.records import Claim

__all__ = ["JobRunner", "Outcome", "Work", "WorkInHand"]

_LOOK_SECONDS: Final = 0.5
_TELL_SECONDS: Final = 0.3
# A job that was at work whenever its process died so often is the likely reason.
_MOST_DEATHS: Final = 4
_Reason: TypeAlias = Literal["cancel", "lost", "drain"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a measurement came to: JSON, HTML, a few numbers, and how many measurements were made."""

    result: str
    report: str
    summary: dict[str, Any]
    done: int


@dataclass
class WorkInHand:
    """A job while this process works on it.

    Attributes:
        claim: the right to it.
        reason: why it has to end before it is done.
    """

    claim: Claim
    claims: JobClaims
    reason: _Reason | None = None
    task: asyncio.Task[Outcome] | None = None
    _far: tuple[int, int, dict[str, Any]] | None = None
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def permit(self) -> None:
        """Return where the job may make one more call, and never where it may not.

        Raises:
            StoreError: nobody can tell.
        """
        standing = await self.claims.standing(self.claim)
        if standing != "held":
            self.end(standing)
        if self.reason is not None:
            # What waits here is cancelled with the job; an error would be taken for an agent's.
            await asyncio.Event().wait()

    def end(self, reason: _Reason) -> None:
        """End the work, once."""
        if self.reason is None:
            self.reason = reason
            if self.task is not None:
                self.task.cancel()

    def moved(self, done: int, saved: int, data: dict[str, Any]) -> None:
        """Say how far it is; of several in a short time the last one is kept."""
        self._far = (done, saved, data)
        self._moved.set()

    async def tell(self) -> None:
        """Keep how far it is, for ever."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            await self._keep()
            await asyncio.sleep(_TELL_SECONDS)

    async def tell_last(self) -> None:
        """Keep what was not kept yet."""
        if self._moved.is_set():
            self._moved.clear()
            await self._keep()

    async def _keep(self) -> None:
        if self._far is not None:
            with contextlib.suppress(StoreError):  # the next one tells of this one too
                await self.claims.progress(self.claim, *self._far)


Work: TypeAlias = Callable[[WorkInHand], Awaitable[Outcome]]


class JobRunner:
    """Keeps a few jobs at work, for as long as the process lives.

    Args:
        claims: where jobs come from.
        work: measures one.
        concurrent: jobs at once.
    """

    def __init__(self, claims: JobClaims, work: Work, concurrent: int = 2) -> None:
        self._claims = claims
        self._work = work
        self._places = asyncio.Semaphore(concurrent)
        self._wanted = asyncio.Event()
        self._in_hand: dict[str, WorkInHand] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._ending = False
        self._log = get_logger("cert.services.coordination")

    @property
    def in_hand(self) -> tuple[str, ...]:
        """Ids of the jobs at work here."""
        return tuple(self._in_hand)

    def start(self) -> None:
        """Begin to claim jobs."""
        self._loop = asyncio.create_task(self._claiming())

    def wake(self) -> None:
        """Say that there is a job to claim."""
        self._wanted.set()

    def cancel(self, identifier: str) -> None:
        """End a job at once if it is at work here; its database knows already that it is not wanted."""
        if identifier in self._in_hand:
            self._in_hand[identifier].end("cancel")

    def drain(self) -> None:
        """Claim no more, and give back what is at work: another goes on with it where it is."""
        self._ending = True
        if self._loop is not None:
            self._loop.cancel()
        for held in list(self._in_hand.values()):
            held.end("drain")

    async def stop(self) -> None:
        """Drain, and wait until all is given back."""
        self.drain()
        waited = [*self._tasks, *([self._loop] if self._loop is not None else [])]
        await asyncio.gather(*waited, return_exceptions=True)

    async def _claiming(self) -> None:
        while True:
            await self._places.acquire()
            # A claim that is cut off half way would keep a job waiting for its lease to expire.
            claiming = asyncio.create_task(self._claimed())
            try:
                claim = await asyncio.shield(claiming)
            except asyncio.CancelledError:
                claim = await claiming
                if claim is not None:
                    with contextlib.suppress(StoreError):
                        await self._claims.release(claim)
                raise
            if claim is None:
                self._places.release()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), _LOOK_SECONDS)
                self._wanted.clear()
                continue
            task = asyncio.create_task(self._run(claim))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _claimed(self) -> Claim | None:
        try:
            return await self._claims.claim()
        except StoreError as error:
            self._log.warning("claim_failed", error=error.code, reason=_reason(error))
            return None

    async def _run(self, claim: Claim) -> None:
        held = WorkInHand(claim, self._claims)
        self._in_hand[claim.job.id] = held
        try:
            with correlated(claim.job.id):
                if self._ending:
                    held.end("drain")
                await self._to_its_end(held)
        except StoreError as error:
            # The lease expires, and whoever claims the job then finds the answers.
            self._log.error("job_left", job=claim.job.id, error=error.code, reason=_reason(error))
        finally:
            del self._in_hand[claim.job.id]
            self._places.release()

    async def _to_its_end(self, held: WorkInHand) -> None:
        if held.claim.deaths > _MOST_DEATHS:
            told = "its process died each time that it was at work"
            await self._claims.finish(held.claim, "failed", error=problem(500, "abandoned", told))
            return
        if held.reason is None:
            held.task = asyncio.ensure_future(self._work(held))
        beside = [asyncio.create_task(self._live(held)), asyncio.create_task(held.tell())]
        try:
            if held.task is not None:
                await asyncio.wait({held.task})
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        await held.tell_last()
        await self._end(held)

    async def _end(self, held: WorkInHand) -> None:
        claim, task = held.claim, held.task
        if task is not None and not task.cancelled() and task.exception() is None:
            # Done is done, also where somebody wanted its end in the last moment.
            outcome = task.result()
            await self._finished(
                claim,
                "succeeded",
                result=outcome.result,
                report=outcome.report,
                summary=outcome.summary,
                done=outcome.done,
            )
        elif held.reason == "cancel":
            await self._finished(claim, "cancelled")
        elif held.reason == "drain":
            await self._claims.release(claim)
        elif held.reason is None:
            await self._failed(claim, task)

    async def _failed(self, claim: Claim, task: asyncio.Task[Outcome] | None) -> None:
        error = None if task is None or task.cancelled() else task.exception()
        if isinstance(error, StoreError) and not isinstance(error, StoreUnusableError):
            self._log.warning("job_given_back", job=claim.job.id, error=error.code, reason=_reason(error))
            await asyncio.sleep(_LOOK_SECONDS)
            await self._claims.release(claim)
            return
        if isinstance(error, CertError):
            told = problem_of(error)
        else:
            # Its name alone: the text of an error that nobody foresaw may quote a prompt.
            self._log.error("job_failed", job=claim.job.id, error=type(error).__name__)
            told = problem(500, "internal", GENERIC)
        await self._finished(claim, "failed", error=told)

    async def _finished(self, claim: Claim, state: Any, **outcome: Any) -> None:
        until = time.monotonic() + self._claims.lease_seconds
        while True:
            try:
                await self._claims.finish(claim, state, **outcome)
                return
            except StoreUnusableError:
                raise
            except StoreError:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(_LOOK_SECONDS)

    async def _live(self, held: WorkInHand) -> None:
        """Give signs of life, and hear that somebody wants the end."""
        every = self._claims.lease_seconds / 3
        renewed = heard = time.monotonic()
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, every))
            now = time.monotonic()
            try:
                if now - renewed >= every:
                    standing = await self._claims.renew(held.claim)
                    renewed = now
                else:
                    standing = await self._claims.standing(held.claim)
                heard = now
            except StoreError:
                if now - heard < self._claims.lease_seconds:
                    continue
                standing = "lost"
            if standing != "held":
                held.end(standing)
                return


def _reason(error: StoreError) -> str:
    """Return what failed in a store, such as ``busy`` or a SQLSTATE: neither a place nor a text."""
    return str(error.context.get("reason", ""))
