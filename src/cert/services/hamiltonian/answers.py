"""From a request to an entry of the recent analyses, and from an entry to what is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from cert.core.errors import CertError, InputError
from cert.services.common.errors import problem_of
from cert.services.hamiltonian.options import HamiltonianOptions
from cert.services.hamiltonian.recent import Entry, Listed, Page, cursor_of
from cert.services.hamiltonian.state import HamiltonianState
from cert.services.hamiltonian.wire import AnalyzeRequest, BatchRequest, ScoreRequest, StreamRequest
from cert.trajectory.streaming import AsyncTrajectoryStream

__all__ = ["analyze", "analyze_batch", "page_of", "record_bytes", "record_of", "score", "stream"]

# A longer answer is written anew each time: what is kept written takes memory beside the ring's own.
_MOST_WRITTEN = 256 * 1024
_EXCERPT = 120


async def analyze(state: HamiltonianState, tenant: str, asked: AnalyzeRequest) -> Entry:
    """Generate, analyse and keep."""
    name = state.models.name_of(asked.model)
    analysis = await state.models.monitor(name, tenant).analyze_async(
        asked.asked(),
        timeout=_seconds(state.options, asked.timeout_s),
        use_cache=asked.use_cache,
        group=asked.group,
        early_stop=asked.early_stop,
        **_sampling(state.options, asked),
    )
    return await state.recent.keep(tenant, analysis, model=name, source="analyze", group=asked.group)


async def score(state: HamiltonianState, tenant: str, asked: ScoreRequest) -> Entry:
    """Read a text that is there already, and keep the analysis."""
    name = state.models.name_of(asked.model)
    analysis = await state.models.monitor(name, tenant).score_async(
        asked.asked(),
        asked.completion,
        timeout=_seconds(state.options, asked.timeout_s),
        use_cache=asked.use_cache,
        group=asked.group,
    )
    return await state.recent.keep(tenant, analysis, model=name, source="score", group=asked.group)


async def analyze_batch(state: HamiltonianState, tenant: str, asked: BatchRequest) -> bytes:
    """Analyse many prompts; the error of one stands in its place.

    Raises:
        InputError: there are more prompts than the operator allows.
    """
    most = state.options.most_prompts
    if len(asked.prompts) > most:
        raise InputError(f"a batch has at most {most} prompts, and this one has {len(asked.prompts)}")
    name = state.models.name_of(asked.model)
    outcomes: Sequence[Any] = await state.models.monitor(name, tenant).analyze_batch_async(
        asked.prompts,
        timeout=_seconds(state.options, asked.timeout_s),
        return_exceptions=True,
        use_cache=asked.use_cache,
        group=asked.group,
        early_stop=asked.early_stop,
        **_sampling(state.options, asked),
    )

    async def item(outcome: Any) -> dict[str, Any]:
        if isinstance(outcome, CertError):
            return {"record": None, "error": problem_of(outcome)}
        entry = await state.recent.keep(tenant, outcome, model=name, source="batch", group=asked.group)
        return {"record": record_of(entry, asked.detail), "error": None}

    items = await asyncio.gather(*map(item, outcomes))
    failed = sum(item["error"] is not None for item in items)
    return msgspec.json.encode({"schema_version": 1, "items": items, "failed": failed})


def stream(state: HamiltonianState, tenant: str, asked: StreamRequest) -> tuple[str, AsyncTrajectoryStream]:
    """Return the name of the model and its tokens as they come; nothing is begun yet."""
    name = state.models.name_of(asked.model)
    return name, state.models.monitor(name, tenant).stream_async(
        asked.asked(),
        timeout=_seconds(state.options, asked.timeout_s),
        group=asked.group,
        early_stop=asked.early_stop,
        **_sampling(state.options, asked),
    )


def record_of(entry: Entry, detail: str) -> dict[str, Any]:
    """Return an entry as `AnalysisRecord` has it."""
    analysis = entry.analysis
    if detail == "summary":
        # The columns of no token are soon written.
        analysis = _without_tokens(entry)
    written = analysis.to_dict()
    left_out = {"summary": ("tokens", "top", "stop"), "tokens": ("top",), "full": ()}[detail]
    for part in left_out:
        written.pop(part)
    return {
        "schema_version": 1,
        "id": entry.id,
        "model": entry.model,
        "source": entry.source,
        "group": entry.group,
        "label": entry.label,
        "kept": entry.kept,
        "reasons": list(entry.analysis.decision.reasons),
        "analysis": written,
    }


def record_bytes(entry: Entry, detail: str) -> bytes:
    """Return the same as JSON; what is asked for again is written once."""
    analysis = entry.analysis
    by = analysis.decision.certificate
    key = (detail, analysis.from_cache, by is not None and by.void)
    if (written := entry.written.get(key)) is not None:
        return written
    written = msgspec.json.encode(record_of(entry, detail))
    if analysis.from_cache and len(written) <= _MOST_WRITTEN:
        entry.written.clear()
        entry.written[key] = written
    return written


def page_of(page: Page) -> dict[str, Any]:
    """Return a page as `AnalysisPage` has it."""
    return {
        "schema_version": 1,
        "items": [_summary(entry) for entry in page.entries],
        "next": cursor_of(page.next),
    }


def _summary(entry: Listed) -> dict[str, Any]:
    text = entry.text
    return {
        "id": entry.id,
        "created_at": entry.created_at,
        "model": entry.model,
        "source": entry.source,
        "verdict": entry.verdict,
        "calibrated": entry.calibrated,
        "reasons": list(entry.reasons),
        "finish_reason": entry.finish_reason,
        "tokens": entry.tokens,
        "excerpt": text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…",
        "label": entry.label,
    }


def _without_tokens(entry: Entry) -> Any:
    analysis = entry.analysis
    generation = analysis.generation
    return replace(
        analysis,
        generation=replace(generation, steps=generation.steps[:0], offsets=generation.offsets[:0]),
        step=_cut(analysis.step),
        running=_cut(analysis.running),
        energy=analysis.energy[:0],
    )


def _cut(columns: Any) -> Any:
    names = type(columns).__dataclass_fields__
    return type(columns)(**{name: getattr(columns, name)[:0] for name in names})


def _seconds(options: HamiltonianOptions, asked: float | None) -> float:
    return options.timeout_seconds if asked is None else min(asked, options.timeout_seconds)


def _sampling(
    options: HamiltonianOptions, asked: AnalyzeRequest | BatchRequest | StreamRequest
) -> dict[str, Any]:
    if asked.max_new_tokens is not None and asked.max_new_tokens > options.most_new_tokens:
        raise InputError(
            f"max_new_tokens is at most {options.most_new_tokens} here, not {asked.max_new_tokens}"
        )
    return asked.sampling()
