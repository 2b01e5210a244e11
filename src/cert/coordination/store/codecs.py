"""Completions and evaluations as JSON, and back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from cert.coordination.chat import Completion, Usage
from cert.coordination.types import Evaluation

__all__ = ["CompletionCodec", "EvaluationCodec"]

VALUE_VERSION = 1


class CompletionCodec:
    """All of a completion but the record of its tokens (`Completion.generation`), which is not kept."""

    def encode(self, value: Completion, /) -> str:
        """Return a completion as JSON."""
        return _encode(value, leave_out={"generation", "from_cache"})

    def decode(self, value: str, /) -> Completion:
        """Return a completion of a store."""
        fields = _decode(value)
        return Completion(**fields | {"usage": Usage(**fields["usage"]), "from_cache": True})

    def cost(self, value: Completion, /) -> int:
        """Return what it cost, in micro-dollars."""
        return value.cost_micro_dollars

    def counts(self, _value: Completion, /) -> bool:
        """Every completion counts, one of a model that costs nothing too."""
        return True

    def keep(self, _value: Completion, /) -> bool:
        """Every completion is kept, a refusal and an empty one too: they are what the model answers."""
        return True


class EvaluationCodec:
    """Evaluations that a model was paid for."""

    def encode(self, value: Evaluation, /) -> str:
        """Return an evaluation as JSON."""
        return _encode(value, leave_out={"from_cache"})

    def decode(self, value: str, /) -> Evaluation:
        """Return an evaluation of a store."""
        fields = _decode(value)
        # Sequences of an evaluation are tuples; JSON knows lists alone.
        fields |= {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return Evaluation(**fields | {"usage": Usage(**fields["usage"]), "from_cache": True})

    def cost(self, value: Evaluation, /) -> int:
        """Return what the judging cost, in micro-dollars."""
        return value.cost_micro_dollars

    def counts(self, value: Evaluation, /) -> bool:
        """Say whether a model was asked: what a rule says is neither hit nor miss."""
        return bool(value.usage.total_tokens or value.cost_micro_dollars)

    def keep(self, value: Evaluation, /) -> bool:
        """Say whether it is worth keeping.

        A missing one is not: the judge may answer the next time. One that took no tokens is made again for
        nothing, by code that may have changed since.
        """
        return value.score is not None and self.counts(value)


def _encode(value: Completion | Evaluation, leave_out: set[str]) -> str:
    fields: dict[str, Any] = {
        field.name: getattr(value, field.name)
        for field in dataclasses.fields(value)
        if field.name not in leave_out
    }
    fields["usage"] = dataclasses.asdict(value.usage)
    # ASCII alone: PostgreSQL takes neither the null character nor lone surrogates.
    return json.dumps({"value_version": VALUE_VERSION, **fields}, default=dict, separators=(",", ":"))


def _decode(value: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(value)
    if fields.pop("value_version") != VALUE_VERSION:
        raise ValueError("of another version")
    return fields
