"""What a log says: of the evaluation, and of each sample in each epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from cert.coordination.chat import Usage
from cert.core.errors import InputError
from cert.integrations.inspect_logs.wire import NULL, WireHeader, WireSample, WireUsage, decode

__all__ = ["InspectLog", "Key", "Record", "log_of", "record_of"]

Key: TypeAlias = tuple[str, int]

# Summaries cut inputs and targets at 5,120 characters: what both forms of a log have of them.
_COMPARED: Final = 4096
_MOST_BYTES: Final = 64 * 1024  # of a value that may have any form
_MOST_EPOCHS: Final = 10_000
_MOST_CELLS: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One sample in one epoch.

    Attributes:
        scores: the value of each scorer, as the log has it; ``None`` for one that is not scored.
        lost: why its scores do not count (``error``, ``invalidated``), else ``None``.
        usage: tokens of each model; empty where the log has none.
        asked: a digest of input and choices, or of input and target where nothing is to be chosen. Choices
            may be shuffled from log to log, and their letters with them.
    """

    scores: Mapping[str, Any]
    lost: str | None
    usage: Mapping[str, Usage]
    asked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectLog:
    """A log that has ended.

    Attributes:
        path: of the file.
        status: ``success``, ``cancelled`` or ``error``.
        task, task_version, task_args, dataset, solver, model, roles: what was evaluated.
        created: when, as the log says it.
        revision: commit of the program, with a ``+`` where it was changed after that; ``None`` if not known.
        version: of Inspect.
        scorers: name and options of each; ``None`` where the log does not say.
        epochs: how often each sample was to be run.
        reducers: by which Inspect makes one score of a sample's epochs.
        expected: ids of the samples that were to be run.
        records: of those that were, by id and epoch.
    """

    path: str
    status: str
    task: str
    task_version: int | str
    task_args: Mapping[str, Any]
    dataset: str | None
    solver: str | None
    model: str
    roles: Mapping[str, Any]
    created: str
    revision: str | None
    version: str | None
    scorers: tuple[tuple[str, Mapping[str, Any]], ...] | None
    epochs: int
    reducers: tuple[str, ...]
    expected: tuple[str, ...]
    records: Mapping[Key, Record] = field(repr=False)

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of all scores that any sample has."""
        return tuple(dict.fromkeys(name for record in self.records.values() for name in record.scores))


def log_of(path: str, header: WireHeader, records: dict[Key, Record]) -> InspectLog:
    """Return the log of a header and its samples.

    Raises:
        InputError: more epochs or samples than can be.
    """
    spec, config = header.eval, header.eval.config
    expected = tuple(
        dict.fromkeys([*map(str, spec.dataset.sample_ids or ()), *(sample for sample, _ in records)])
    )
    epochs = max([config.epochs or 1, *(epoch for _, epoch in records)])
    if not 1 <= epochs <= _MOST_EPOCHS or epochs * len(expected) > _MOST_CELLS:
        raise InputError(f"'{path}' says that {len(expected):,} samples were run {epochs:,} times each")
    return InspectLog(
        path=path,
        status=header.status,
        task=spec.task,
        task_version=spec.task_version,
        task_args=_settings(spec.task_args, "task_args"),
        dataset=spec.dataset.name or spec.dataset.location,
        solver=spec.solver,
        model=spec.model,
        roles=_settings(spec.model_roles, "model_roles"),
        created=spec.created,
        revision=_revision(header),
        version=(spec.packages or {}).get("inspect_ai"),
        scorers=None
        if spec.scorers is None
        else tuple((one.name, _settings(one.options, "options")) for one in spec.scorers),
        epochs=epochs,
        reducers=tuple(config.epochs_reducer or ()),
        expected=expected,
        records=records,
    )


def record_of(sample: WireSample, *, score_on_error: bool, invalidated: bool) -> Record:
    """Return the record of a sample or of its summary.

    Args:
        sample: of the log.
        score_on_error: scores of a sample that failed were meant to count.
        invalidated: somebody has declared it invalid.
    """
    lost = "error" if sample.error != NULL and not score_on_error else None
    return Record(
        scores={name: _any(score.value, "a score") for name, score in (sample.scores or {}).items()},
        lost="invalidated" if invalidated else lost,
        usage={model: _usage(usage) for model, usage in (sample.model_usage or {}).items()},
        asked=_asked(sample),
    )


def _revision(header: WireHeader) -> str | None:
    revision = header.eval.revision
    return None if revision is None else f"{revision.commit}{'+' if revision.dirty else ''}"


def _settings(raw: msgspec.Raw, what: str) -> Mapping[str, Any]:
    value = _any(raw, what)
    if not isinstance(value, dict | None):
        raise InputError(f"'{what}' is no object")
    return value or {}


def _any(raw: msgspec.Raw, what: str) -> Any:
    if len(memoryview(raw)) > _MOST_BYTES:
        raise InputError(f"{what} is larger than {_MOST_BYTES // 1024} KiB")
    return decode(raw, object, what)


def _usage(usage: WireUsage) -> Usage:
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens_cache_read or 0,
        usage.input_tokens_cache_write or 0,
    )
    if any(not 0 <= count < 2**53 for count in counts):
        raise InputError("a number of tokens is negative or impossibly large")
    return Usage(*counts)


def _asked(sample: WireSample) -> str:
    said = [_texts(sample.input)]
    said += sorted(sample.choices) if sample.choices else [_texts(sample.target)]
    return hashlib.sha256("\0".join(said).encode(errors="replace")).hexdigest()


def _texts(raw: msgspec.Raw) -> str:
    """Return the first texts of an input or target: a text, or messages, of which ids are new in each log."""
    value = decode(raw, object, "an input")
    if isinstance(value, str):
        return value[:_COMPARED]
    said = []
    for part in value if isinstance(value, list) else ():
        content = part.get("content") if isinstance(part, dict) else part
        texts = content if isinstance(content, list) else [content]
        said += [text.get("text") if isinstance(text, dict) else text for text in texts]
    return "\n".join(text[:_COMPARED] for text in said if isinstance(text, str))[:_COMPARED]
