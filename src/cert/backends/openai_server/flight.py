"""One request on its way: what came of it so far, and who hears of it."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from cert.backends.api_records import ApiRecord, ReadOptions, RecordBuilder
from cert.backends.base import FinishReason, Generation, Prompt, Sampling
from cert.backends.control import Control, TokenBlock

__all__ = ["Flight", "ListenerError"]


class ListenerError(Exception):
    """A listener raised; `Flight.raised` has what."""


@dataclass(eq=False, slots=True)
class Flight:
    """One request.

    Attributes:
        future: what its caller waits for.
        builder: what came of the attempt in hand, where it is streamed.
        sampling: as it is settled, ``None`` for a text that is scored.
        told: steps that listeners have heard of: from then on no other attempt may be made.
        raised: what a listener raised.
        begun, started, first: when it was begun, when it got its place, when its first token came.
    """

    prompt: Prompt
    control: Control
    future: Future[Generation] = field(default_factory=Future)
    builder: RecordBuilder | None = None
    sampling: Sampling | None = None
    told: int = 0
    raised: BaseException | None = None
    begun: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    first: float = 0.0

    @property
    def listened_to(self) -> bool:
        """Whether somebody wants the tokens as they come."""
        control = self.control
        return control.on_block is not None or control.on_step is not None or control.follower is not None

    def attempt(self, options: ReadOptions) -> None:
        """Begin anew."""
        self.builder = RecordBuilder(options)

    def feed(self, data: bytes) -> None:
        """Take the data of one event and tell of the tokens in it.

        Raises:
            ListenerError: a listener raised.
            UpstreamProtocolError: it cannot be read.
        """
        assert self.builder is not None
        self._tell(self.builder.feed(data))

    def take(self, record: ApiRecord) -> ApiRecord:
        """Take an answer that came as a whole; its tokens are told of in one block."""
        if len(record.steps):
            self._tell(TokenBlock(record.steps, record.additions()))
        return record

    def finish(self, ending: FinishReason | None = None) -> ApiRecord:
        """Return the record of what came; the last tokens are told of unless it was ended from outside."""
        assert self.builder is not None
        block, record = self.builder.finish(ending)
        if ending is None:
            self._tell(block)
        return record

    def stages(self) -> tuple[tuple[str, float], ...]:
        """Return where the time went, up to now."""
        now = time.perf_counter()
        first = self.first or now
        return (
            ("queue", self.started - self.begun),
            ("prefill", first - self.started),
            ("decode", now - first),
        )

    def _tell(self, block: TokenBlock | None) -> None:
        if block is None:
            return
        self.first = self.first or time.perf_counter()
        before, self.told = self.told, self.told + (len(block.steps) if self.listened_to else 0)
        try:
            if (
                self.control.follower is not None
                and len(block.steps)
                and self.control.follower.update(block.steps)
            ):
                self.control.stop()
            if self.control.on_step is not None:
                for count in range(before + 1, self.told + 1):
                    self.control.on_step(count)
            if self.control.on_block is not None:
                self.control.on_block(block)
        # A listener's own failure is its caller's, whatever it is.
        except BaseException as error:
            self.raised = error
            raise ListenerError from error
