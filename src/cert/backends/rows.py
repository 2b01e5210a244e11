"""One request on its way through a batch of the in-process backend."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from cert.backends.base import Generation, GenerationRequest, ScoreRequest
from cert.backends.control import Control, Ending, TokenBlock
from cert.backends.detokenizer import IncrementalDecoder
from cert.core.errors import GenerationError
from cert.signals.steps import TokenSteps

__all__ = ["Row", "ScoreRow", "steps_of"]


@dataclass(eq=False, slots=True)
class Row:
    """One generation of a batch.

    Attributes:
        limit: the most tokens it may have.
        seed: of its random numbers; ``None`` when it is greedy.
        encode_s: seconds that encoding the prompt took.
        told: steps that the listeners have heard of. A batch that is begun anew, since memory ran out,
            takes the same steps again and tells only the later ones.
        at: steps taken in the attempt in hand.
        raised: what a listener raised, which ends the row in a batch that is begun anew as well.
    """

    request: GenerationRequest
    control: Control
    prompt_ids: list[int]
    limit: int
    seed: int | None
    encode_s: float
    decoder: IncrementalDecoder
    future: Future[Generation] = field(default_factory=Future)
    queued_at: float = field(default_factory=time.perf_counter)
    told: int = 0
    at: int = 0
    raised: BaseException | None = None

    @property
    def key(self) -> Hashable:
        """Rows of one batch are sampled in one way and keep the same number of candidates."""
        return (replace(self.request.sampling, seed=None), self.request.top_logprobs)

    @property
    def ending(self) -> Ending | None:
        """Why it has to end now."""
        ending = self.control.ending
        # Where a batch is begun anew, what there was of an answer that was stopped has to come again first.
        return None if ending == "early_stop" and self.at < self.told else ending

    @property
    def listens(self) -> bool:
        """Whether somebody wants the tokens as they come."""
        return self.control.on_block is not None

    @property
    def follows(self) -> bool:
        """Whether somebody decides at each token whether it goes on."""
        return self.control.follower is not None

    def follow(self, count: int, values: Sequence[float], token_id: int) -> None:
        """Ask at step number ``count``, before `tell`, whether it goes on.

        Raises:
            GenerationError: as `tell`.
        """
        if self.control.follower is None or self.raised is not None:
            return
        if count <= self.told:
            self._compare(count, token_id)
            return
        if not self.listens:  # else the decoder keeps what may have to be compared
            self.decoder.ids.append(token_id)
        try:
            if self.control.follower.take(values):
                self.control.stop()
        except BaseException as error:
            self.raised = error
            raise

    def tell(self, count: int, floats: NDArray[Any] | None, ids: NDArray[Any] | None, width: int) -> None:
        """Tell the listeners of step number ``count``, counted from 1.

        Raises:
            GenerationError: a batch that was begun anew does not repeat the tokens that were told already.
            BaseException: what a listener raised.
        """
        self.at = count
        if self.raised is not None:
            raise self.raised
        if count <= self.told:
            if self.listens:
                self._compare(count, None if ids is None else int(ids[0]))
            return
        self.told = count
        try:
            self._tell(count, floats, ids, width)
        except BaseException as error:
            self.raised = error
            raise

    def _tell(self, count: int, floats: NDArray[Any] | None, ids: NDArray[Any] | None, width: int) -> None:
        if self.control.on_step is not None:
            self.control.on_step(count)
        if self.control.on_block is not None and floats is not None and ids is not None:
            piece = self.decoder.push(int(ids[0]))
            self.control.on_block(TokenBlock(steps_of(floats[None], ids[None], width), (piece,)))

    def _compare(self, count: int, token_id: int | None) -> None:
        # Another device has other random numbers and rounds in another way.
        told = self.decoder.ids[count - 1 : count]
        if told and token_id != told[0]:
            raise GenerationError(
                f"memory ended after {self.told} tokens had been told, and begun anew the answer is another",
                hint="ask again",
                context={"told": self.told, "token": count - 1},
            )

    def tell_the_rest(self) -> None:
        """Tell the characters that were incomplete when the generation ended."""
        if self.control.on_block is not None and (piece := self.decoder.flush()):
            nothing = TokenSteps.empty(self.request.top_logprobs, None)
            self.control.on_block(TokenBlock(nothing, (piece,)))


@dataclass(eq=False, slots=True)
class ScoreRow:
    """One given text to be scored."""

    request: ScoreRequest
    control: Control
    prompt_ids: list[int]
    given_ids: list[int]
    encode_s: float
    future: Future[Generation] = field(default_factory=Future)
    queued_at: float = field(default_factory=time.perf_counter)

    @property
    def key(self) -> Hashable:
        """Scoring shares the queue with generating, and no batch."""
        return ("score", self.request.top_logprobs)


def steps_of(floats: NDArray[Any], ids: NDArray[Any], vocab_size: int) -> TokenSteps:
    """Make the record of T steps from the columns of `cert.backends.reduction.StepColumns`."""
    return TokenSteps.build(
        token_ids=ids[:, 0],
        logprob=floats[:, 0],
        top_ids=ids[:, 1:],
        top_logprobs=floats[:, 3:],
        entropy=floats[:, 1],
        self_certainty=floats[:, 2],
        vocab_size=vocab_size,
    )
