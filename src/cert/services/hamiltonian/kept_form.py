"""An analysis as bytes, and back: recorded floats and the verdict; signals are computed from the floats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from cert.backends.base import (
    FinishReason,
    Generation,
    LogprobsMode,
    ModelIdentity,
    Prompt,
    Sampling,
)
from cert.core.errors import StoreUnusableError
from cert.services.hamiltonian.recent import Entry, Listed, Source
from cert.signals import TokenSteps, analyze_steps
from cert.trajectory.analysis import energies_of
from cert.trajectory.gate import GateDecision
from cert.trajectory.types import EarlyStop, TrajectoryAnalysis, TrajectoryConfig

__all__ = ["entry_of", "listed_of", "pack", "pack_listed"]

_FORM = 1


class _Steps(msgspec.Struct):
    token_ids: bytes
    logprob: bytes
    top_ids: bytes
    top_logprobs: bytes
    entropy: bytes
    self_certainty: bytes
    top_k: int
    vocab_size: int | None


class _Generation(msgspec.Struct):
    prompt: Prompt | None
    text: str
    steps: _Steps
    offsets: bytes
    finish_reason: FinishReason
    stop_step: _Steps | None
    prompt_tokens: int | None
    sampling: Sampling | None
    model: ModelIdentity
    logprobs_mode: LogprobsMode
    names: dict[int, str]
    duration_s: float | None
    token_ids_known: bool
    stages: tuple[tuple[str, float], ...]


class _Kept(msgspec.Struct):
    form: int
    model: str
    source: Source
    group: str | None
    generation: _Generation
    config: TrajectoryConfig
    decision: GateDecision
    created_at: str
    stages: tuple[tuple[str, float], ...]
    from_cache: bool
    early_stop: EarlyStop | None


@dataclass(frozen=True, slots=True)
class _Names:
    """The texts of the tokens of one analysis."""

    names: dict[int, str]

    def text(self, token_id: int) -> str:
        return self.names[token_id]


def pack(entry: Entry) -> bytes:
    """Return an entry without its id, number and label."""
    analysis, g = entry.analysis, entry.analysis.generation
    seen = [g.steps.top_ids.ravel(), g.steps.token_ids]
    seen += [] if g.stop_step is None else [g.stop_step.token_ids]
    names = {int(token): g.vocabulary.text(int(token)) for token in np.unique(np.concatenate(seen))}
    return msgspec.msgpack.encode(
        _Kept(
            form=_FORM,
            model=entry.model,
            source=entry.source,
            group=entry.group,
            generation=_Generation(
                prompt=g.prompt,
                text=g.text,
                steps=_steps(g.steps),
                offsets=_bytes(g.offsets),
                finish_reason=g.finish_reason,
                stop_step=None if g.stop_step is None else _steps(g.stop_step),
                prompt_tokens=g.prompt_tokens,
                sampling=g.sampling,
                model=g.model,
                logprobs_mode=g.logprobs_mode,
                names=names,
                duration_s=g.duration_s,
                token_ids_known=g.token_ids_known,
                stages=g.stages,
            ),
            config=analysis.config,
            decision=analysis.decision,
            created_at=analysis.created_at,
            stages=analysis.stages,
            from_cache=analysis.from_cache,
            early_stop=analysis.early_stop,
        )
    )


def entry_of(packed: bytes, identifier: str, number: int, label: bool | None) -> Entry:
    """Return the entry of `pack`.

    Raises:
        StoreUnusableError: it is of a form that this program does not know.
    """
    kept = _read(packed, _Kept)
    g = kept.generation
    generation = Generation(
        prompt=g.prompt,
        text=g.text,
        steps=_steps_of(g.steps),
        offsets=np.frombuffer(g.offsets, "<i8").reshape(-1, 2),
        finish_reason=g.finish_reason,
        stop_step=None if g.stop_step is None else _steps_of(g.stop_step),
        prompt_tokens=g.prompt_tokens,
        sampling=g.sampling,
        model=g.model,
        logprobs_mode=g.logprobs_mode,
        vocabulary=_Names(g.names),
        duration_s=g.duration_s,
        token_ids_known=g.token_ids_known,
        stages=g.stages,
    )
    step, running, signals = analyze_steps(generation.steps, kept.config.signal_options)
    analysis = TrajectoryAnalysis(
        generation=generation,
        config=kept.config,
        step=step,
        running=running,
        signals=signals,
        energy=energies_of(step, kept.config),
        decision=kept.decision,
        created_at=kept.created_at,
        stages=kept.stages,
        from_cache=kept.from_cache,
        early_stop=kept.early_stop,
    )
    return Entry(
        id=identifier,
        number=number,
        model=kept.model,
        source=kept.source,
        generation=generation,
        analysis=analysis,
        group=kept.group,
        label=label,
        kept=True,
    )


def pack_listed(entry: Entry) -> bytes:
    """Return what a list shows of an entry."""
    return msgspec.msgpack.encode(entry.listed())


def listed_of(packed: bytes, number: int, label: bool | None) -> Listed:
    """Return the line of `pack_listed` with what changes.

    Raises:
        StoreUnusableError: it is of a form that this program does not know.
    """
    listed: Listed = _read(packed, Listed)
    return replace(listed, number=number, label=label)


def _read(packed: bytes, kind: Any) -> Any:
    try:
        read = msgspec.msgpack.decode(packed, type=kind)
    except msgspec.MsgspecError as error:
        raise StoreUnusableError(
            "an analysis is of a form that this program does not know",
            hint="Use the newer version of cert-framework that wrote it.",
            context={"reason": "version"},
        ) from error
    return read


def _steps(steps: TokenSteps) -> _Steps:
    return _Steps(
        token_ids=_bytes(steps.token_ids),
        logprob=_bytes(steps.logprob),
        top_ids=_bytes(steps.top_ids),
        top_logprobs=_bytes(steps.top_logprobs),
        entropy=_bytes(steps.entropy),
        self_certainty=_bytes(steps.self_certainty),
        top_k=steps.top_k,
        vocab_size=steps.vocab_size,
    )


def _steps_of(steps: _Steps) -> TokenSteps:
    length = len(steps.logprob) // 8
    return TokenSteps(
        token_ids=np.frombuffer(steps.token_ids, "<i8"),
        logprob=np.frombuffer(steps.logprob, "<f8"),
        top_ids=np.frombuffer(steps.top_ids, "<i8").reshape(length, steps.top_k),
        top_logprobs=np.frombuffer(steps.top_logprobs, "<f8").reshape(length, steps.top_k),
        entropy=np.frombuffer(steps.entropy, "<f8"),
        self_certainty=np.frombuffer(steps.self_certainty, "<f8"),
        vocab_size=steps.vocab_size,
    )


def _bytes(column: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    return column.astype("<i8" if column.dtype.kind == "i" else "<f8", copy=False).tobytes()
