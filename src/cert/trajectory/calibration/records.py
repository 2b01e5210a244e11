"""The answers of a stored file one by one, with what a calibration needs of each and the user's own fields.

Of our own analyses the recorded signals are taken as they are: JSON keeps every bit of them, and the tokens
need not be read. Of a response the signals are computed from its steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from cert.backends.base import Generation
from cert.backends.stored import StoredItem, StoredOptions
from cert.backends.stored.items import record_error
from cert.backends.stored.jsonl import read_record_lines, refuse_repeated_keys
from cert.backends.stored.lines import Line, open_binary, read_lines
from cert.backends.stored.own_analyses import Number, StoredMessage, StoredModel, StoredSampling
from cert.backends.stored.reading import stored_format
from cert.core.errors import CertError
from cert.trajectory.calibration.answers import (
    MEMBERS,
    UNREADABLE,
    Answer,
    Broken,
    Fields,
    Found,
    JsonFields,
    name_of,
    numbered,
    reason_of,
    whole_or_reason,
)
from cert.trajectory.calibration.conditions import recorded_conditions
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.summaries import SIGNALS
from cert.trajectory.types import TrajectoryConfig

__all__ = ["answers_of_items", "answers_of_lines", "read_answers", "summary_answer"]


class _Config(msgspec.Struct):
    max_new_tokens: int
    top_k: int
    surprise_probability_threshold: float


_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Signals: Any = msgspec.defstruct(
    "_Signals",
    [("n_tokens", _Count), *((name, Number, None) for name in SIGNALS if name != "n_tokens")],
)


class _Analysis(msgspec.Struct):
    """What is read of an analysis of ours."""

    schema_version: Literal[1]
    kind: Literal["trajectory_analysis"]
    model: StoredModel
    logprobs_mode: str
    sampling: StoredSampling | None
    config: _Config
    prompt: str | list[StoredMessage] | None
    generated_text: str
    finish_reason: str
    signals: _Signals


class _Summary(msgspec.Struct):
    """What is read of a line of `write_summaries`, beside its signals."""

    number: _Count
    choice: _Count = 0
    key: str | None = None
    error: Any = None


_ANALYSIS = msgspec.json.Decoder(_Analysis)
_SUMMARY = msgspec.json.Decoder(_Summary)
_SIGNALS = msgspec.json.Decoder(_Signals)


def read_answers(
    path: Path, *, fields: Sequence[str] = (), key: str | None = None, options: StoredOptions | None = None
) -> Iterator[Found]:
    """Return the answers of a file as they are asked for, in constant memory but for columns of ``fields``.

    Args:
        path: as `cert.backends.stored.read_stored` takes it, or a file of `write_summaries`.
        fields: names that will be asked for; of a Parquet file, their columns are read.
        key: the field that names a record, in place of ``key`` and ``custom_id``.
        options: as `read_stored`.

    Raises:
        InputError: the file cannot be opened.
        DependencyMissingError: Parquet or ``.zst`` without pyarrow.
    """
    options = options or StoredOptions()
    if stored_format(path) == "parquet":
        from cert.trajectory.calibration.record_tables import read_table

        names = tuple(dict.fromkeys([*fields, *([key] if key else [])]))
        return read_table(path, names, key, options)
    return answers_of_lines(read_lines(open_binary(path), options.max_line_bytes), key, options)


def answers_of_lines(
    lines: Iterable[Line],
    key: str | None,
    options: StoredOptions,
    *,
    what: str = "line",
    beside: Mapping[str, Sequence[Any]] | None = None,
) -> Iterator[Found]:
    """Return the answers of lines; ``beside`` holds further members of each by column."""
    for line in lines:
        where = f"{what} {line.number}"
        try:
            if isinstance(line.data, CertError):
                raise line.data
            if options.refuse_repeated_keys:
                refuse_repeated_keys(line.data)
            members = MEMBERS.decode(line.data)
        except (CertError, *UNREADABLE) as error:
            cut_off = isinstance(error, msgspec.DecodeError) and not line.whole
            yield Broken(
                line.number, where, None, "the last line is cut off" if cut_off else reason_of(error)
            )
            continue
        row = {name: column[line.number - 1] for name, column in (beside or {}).items()}
        yield from _of_members(line, where, JsonFields(members, where, row), key, options)


def answers_of_items(
    items: Iterable[StoredItem], fields: Fields, where: str, key: str | None
) -> Iterator[Found]:
    """Return the answers that are to be measured yet, of one record."""
    for item in items:
        record = name_of(fields, key, item.key, where)
        if isinstance(item.outcome, CertError):
            yield Broken(item.number, where, numbered(record, item.choice), reason_of(item.outcome))
            continue
        g = item.outcome
        if reason := whole_or_reason(g.finish_reason):
            yield Broken(item.number, where, numbered(record, item.choice), reason)
            continue
        yield Answer(
            number=item.number,
            where=where,
            record=record,
            id=numbered(record, item.choice),
            fields=fields,
            prompt=g.prompt,
            text=g.text,
            conditions=_conditions_of(g),
            tokens=len(g.steps) if g.finish_reason == "length" else None,
            signals=item,
        )


def _of_members(
    line: Line, where: str, fields: JsonFields, key: str | None, options: StoredOptions
) -> Iterator[Found]:
    members = fields.members
    try:
        kind = None if "kind" not in members else msgspec.json.decode(members["kind"])
        if kind == "trajectory_analysis":
            yield _of_analysis(_ANALYSIS.decode(_bytes(line)), line, where, fields, key, None)
        elif kind == "trajectory_record":
            analysis = members.get("analysis")
            own = _name(fields.get("key"))
            if analysis is None or bytes(analysis) == b"null":
                yield Broken(
                    line.number, where, name_of(fields, key, own, where), "the record is of a failure"
                )
            else:
                yield _of_analysis(_ANALYSIS.decode(analysis), line, where, fields, key, own)
        elif kind is None and "sequence_logprob" in members and "n_tokens" in members:
            yield _of_summary(line, where, fields, key)
        else:
            yield from answers_of_items(read_record_lines([line], options), fields, where, key)
    except UNREADABLE:
        yield Broken(line.number, where, None, "the analysis cannot be read")


def _of_analysis(
    a: _Analysis, line: Line, where: str, fields: Fields, key: str | None, own: str | None
) -> Found:
    record = name_of(fields, key, own, where)
    if reason := whole_or_reason(a.finish_reason):
        return Broken(line.number, where, record, reason)
    prompt: Any = a.prompt
    return Answer(
        number=line.number,
        where=where,
        record=record,
        id=record,
        fields=fields,
        prompt=tuple(prompt) if isinstance(prompt, list) else prompt,
        text=a.generated_text,
        conditions=recorded_conditions(
            a.model,
            a.sampling,
            a.logprobs_mode,
            top_k=a.config.top_k,
            surprise_probability=a.config.surprise_probability_threshold,
            max_new_tokens=None if a.finish_reason == "given" else a.config.max_new_tokens,
        ),
        tokens=a.signals.n_tokens if a.finish_reason == "length" else None,
        signals=msgspec.structs.astuple(a.signals),
    )


def _of_summary(line: Line, where: str, fields: JsonFields, key: str | None) -> Found:
    data = _bytes(line)
    summary = _SUMMARY.decode(data)
    record = name_of(fields, key, summary.key, f"line {summary.number}")
    if summary.error is not None:
        return Broken(line.number, where, record, "the record is of a failure")
    signals = msgspec.structs.astuple(_SIGNALS.decode(data))
    return summary_answer(line.number, where, record, summary.choice, fields, signals)


def summary_answer(
    number: int, where: str, record: str, choice: int, fields: Fields, signals: Sequence[Any]
) -> Answer:
    """Return an answer of which the signals alone are known."""
    return Answer(
        number=number,
        where=where,
        record=record,
        id=numbered(record, choice),
        fields=fields,
        prompt=None,
        text=None,
        conditions=Conditions(),
        tokens=None,
        signals=signals,
    )


def _conditions_of(g: Generation) -> Conditions:
    usual = TrajectoryConfig()
    return recorded_conditions(
        g.model,
        g.sampling,
        g.logprobs_mode,
        top_k=g.steps.top_k,
        surprise_probability=usual.surprise_probability_threshold,
    )


def _bytes(line: Line) -> bytes:
    assert isinstance(line.data, bytes)
    return line.data


def _name(value: Any) -> str | None:
    if value is not None and not isinstance(value, str | int):
        raise record_error("the record's key is no text")
    return None if value is None else str(value)
