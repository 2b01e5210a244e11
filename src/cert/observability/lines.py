"""How one log record becomes one line: JSON for machines, aligned text for people."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import structlog
from structlog.typing import EventDict

from cert.core.correlation import correlation_id
from cert.observability.redaction import without_keys

__all__ = ["Clean", "console_line", "formatter", "iso_time", "json_line", "shared_steps"]

_FIRST = ("timestamp", "level", "logger", "event", "correlation_id")
_LONGEST_TRACEBACK = 65_536  # characters
# What needs no quotes after `key=`: then no value can look like another key.
_PLAIN = re.compile(r"[^\s\"'=\\]+")
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

Step: TypeAlias = Callable[[Any, str, EventDict], EventDict]
Clean: TypeAlias = Callable[[Mapping[Any, Any]], dict[str, Any]]


def shared_steps(redact: Clean) -> list[Step]:
    """Return what every record passes on the thread that wrote it, whoever that is."""

    def clean(_: Any, __: str, event: EventDict) -> EventDict:
        structlogs = {key: event.pop(key) for key in ("_record", "_from_structlog") if key in event}
        return {**redact(event), **structlogs}

    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamped,
        _correlated,
        _exception_told,
        clean,
    ]


def formatter(render: Callable[[Mapping[str, Any]], str], redact: Clean) -> logging.Formatter:
    """Return a formatter of the standard library for records of structlog and of anybody else."""
    steps = shared_steps(redact)

    def ordered(event: EventDict) -> str:
        first = {key: event[key] for key in _FIRST if key in event}
        return render({**first, **event})

    def rendered(_: Any, __: str, event: EventDict) -> str:
        return ordered(event)

    class Lines(structlog.stdlib.ProcessorFormatter):
        def format(self, record: logging.LogRecord) -> str:
            # A record of structlog's has passed the steps where it was written, and needs no copy.
            if isinstance(record.msg, dict) and hasattr(record, "_name"):
                return ordered(record.msg)
            return super().format(record)

    return Lines(
        foreign_pre_chain=steps,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
    )


def json_line(fields: Mapping[str, Any]) -> str:
    """Return one JSON object in ASCII, on one line."""
    return json.dumps(fields, separators=(",", ":"), allow_nan=False)


def console_line(fields: Mapping[str, Any], *, colours: bool = False) -> str:
    """Return ``time level event key=value …``; a traceback follows, each of its lines set in."""
    rest = dict(fields)
    stamp, level = str(rest.pop("timestamp", "")), str(rest.pop("level", ""))
    event, logger = str(rest.pop("event", "")), rest.pop("logger", None)
    rest.pop("pid", None)
    frames = rest.pop("exception", None)
    shown = f"{level:<8}"
    if colours:
        shown = f"\x1b[{_COLOURS.get(level, '0')}m{shown}\x1b[0m"
    pairs = [f"{_quoted(key)}={_quoted(value)}" for key, value in rest.items()]
    if logger:
        pairs.append(f"logger={_quoted(logger)}")
    told = event if not set(event) & set('="') else json.dumps(event, ensure_ascii=False)
    line = " ".join([stamp, shown, told, *pairs])
    return "\n    | ".join([line, *frames]) if isinstance(frames, list) else line


def _quoted(value: Any) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _stamped(_: Any, __: str, event: EventDict) -> EventDict:
    # An event of the core brings the time at which it happened; a record, the time of its writing.
    if "timestamp" not in event:
        record = event.get("_record")
        event["timestamp"] = iso_time(record.created if record is not None else None)
    event["pid"] = os.getpid()
    return event


def iso_time(seconds: float | None = None) -> str:
    """Return a time (now, if none is given) as RFC 3339 in UTC with microseconds."""
    utc = datetime.UTC
    moment = datetime.datetime.now(utc) if seconds is None else datetime.datetime.fromtimestamp(seconds, utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _correlated(_: Any, __: str, event: EventDict) -> EventDict:
    if event.get("correlation_id") is None:
        event.pop("correlation_id", None)
        identifier = correlation_id()
        if identifier is not None:
            event["correlation_id"] = identifier
    return event


def _exception_told(_: Any, __: str, event: EventDict) -> EventDict:
    # As a list of lines without the values of local variables, which hold prompts.
    info = event.pop("exc_info", None)
    record = event.get("_record")
    if info is None and record is not None:
        info = record.exc_info
    if info is True:
        info = sys.exc_info()
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
    if error is not None:
        text = "".join(traceback.format_exception(error, limit=-20))
        if len(text) > _LONGEST_TRACEBACK:
            text = f"{text[: _LONGEST_TRACEBACK // 2]}\n…\n{text[-_LONGEST_TRACEBACK // 2 :]}"
        # Before the lines are parted: a private key has several.
        event["exception"] = without_keys(text).splitlines()[-100:]
    event.pop("stack_info", None)
    return event
