"""What was asked and said, task by task: text of strangers, which the template shows as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from cert.coordination.report.words import money, points, scores
from cert.coordination.suite.report import Row
from cert.coordination.types import AgentResponse, Transcript
from cert.core.money import dollars

__all__ = ["MOST_CHARS", "rows_of", "talks"]

MOST_CHARS: Final = 4_000_000
"""Of transcripts in one page, with which a browser still opens it at once."""
_MISSING: Final = {
    "tie": "a tie",
    "undecided": "nothing here can tell which answers say the same",
    "absent": "whoever had to give it said nothing",
    "quorum": "too few agents answered",
}
_ABSENT: Final = {"refusal": "the model refused", "empty": "an empty answer"}


def rows_of(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return one entry a task, with the scores of every system on it.

    Rows of one task stand together, as a report has them.
    """
    return [
        {
            "task_id": task_id,
            "text": of[0].task_text,
            "references": of[0].references,
            "cells": {row.system: _cell(row) for row in of},
        }
        for task_id, of in ((task_id, list(of)) for task_id, of in groupby(rows, lambda row: row.task_id))
    ]


def talks(rows: Iterable[Row]) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Return what was said on each task, and how many tasks are left out since the page would not open."""
    shown: dict[str, list[dict[str, Any]]] = {}
    chars = left_out = 0
    for task_id, of in groupby(rows, lambda row: row.task_id):
        said = [(row, transcript) for row in of for transcript in row.transcripts]
        chars += sum(len(one.text or "") for _, talk in said for one in talk.responses)
        if chars > MOST_CHARS:
            left_out += 1
            continue
        shown[task_id] = [transcript_view(talk, row.system) for row, talk in said]
    return shown, left_out


def transcript_view(transcript: Transcript, system: str) -> dict[str, Any]:
    """Return what the template shows of one transcript."""
    return {
        "system": system,
        "strategy": transcript.strategy,
        "final": transcript.final,
        "missing": None if transcript.final is not None else _why(transcript.missing, _MISSING),
        "rounds": [[_response(one) for one in said] for said in transcript.rounds],
        "told": ", ".join(_told(transcript)),
    }


def _cell(row: Row) -> dict[str, Any]:
    team, single = row.coordinated, row.single
    change = None if team is None or single is None else team - single
    return {
        "team": scores(team),
        "single": scores(single),
        "change": "" if change is None else points(change),
        "kind": "" if not change else "gain" if change > 0 else "loss",
        "samples": row.samples,
        "why": "; ".join(f"{_arm(arm)}: {why}" for arm, why in row.missing.items()),
    }


def _arm(name: str) -> str:
    return {"coordinated": "team", "independent": "independent agents", "single": "single agent"}.get(
        name, name
    )


def _response(said: AgentResponse) -> dict[str, Any]:
    cached = ", kept from before" if said.from_cache else ""
    cost = f", {money(said.cost)}" if said.cost_micro_dollars else ""
    return {
        "agent": said.agent,
        "role": said.role,
        "text": said.text,
        "absent": None if said.text is not None else _why(said.absent, _ABSENT),
        "told": f"{said.usage.output_tokens:,} tokens written{cost}, {said.seconds:.1f} s{cached}",
        "ended": "" if said.finish in ("stop", "unknown") else f"ended by {said.finish}",
        "template": said.template,
        "model": said.model,
    }


def _told(transcript: Transcript) -> Iterator[str]:
    yield f"{len(transcript.responses)} answers in {len(transcript.rounds)} rounds"
    if transcript.cost_micro_dollars:
        yield money(dollars(transcript.cost_micro_dollars))
    if transcript.rule:
        yield f"answers compared by: {transcript.rule}"


def _why(code: str | None, words: Mapping[str, str]) -> str:
    return words.get(code or "", code or "no reason is recorded")
