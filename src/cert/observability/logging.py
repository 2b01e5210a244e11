"""Logs: one line a record, JSON or readable, with the correlation id, without prompts, outputs and keys.

`configure_logging` is for programs. The library itself never calls it: on import nothing is configured, and
`get_logger` writes to the standard library's logging like any other package.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import structlog

from cert.core.errors import ConfigurationError
from cert.observability.handlers import StreamLines
from cert.observability.lines import console_line, formatter, json_line, shared_steps
from cert.observability.redaction import Redaction

__all__ = ["Format", "Level", "Output", "configure_logging", "get_logger"]

Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
Format: TypeAlias = Literal["json", "console"]
Output: TypeAlias = Literal["stderr", "stdout", "file"]

MAX_BYTES = 100_000_000
BACKUPS = 10
# At debug level these write bodies of requests (prompts, outputs, headers) in words that no rule knows.
_WRITE_BODIES = ("anthropic", "openai", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3")

_NUMBERS = {level: logging.getLevelNamesMapping()[level.upper()] for level in get_args(Level)}

_redaction = Redaction()
_restore: Callable[[], None] | None = None


def configure_logging(
    level: Level = "info",
    format: Format = "json",
    output: Output = "stderr",
    file: str | Path | None = None,
    *,
    library_level: Level = "warning",
    redact_fields: Collection[str] = (),
    max_bytes: int = MAX_BYTES,
    backups: int = BACKUPS,
) -> Callable[[], None]:
    """Send the logs of this process through one pipe: ours, those of libraries, and warnings.

    Replaces what an earlier call set up. Plain handlers on the root logger (those of
    ``logging.basicConfig``) are put aside, since they would write the same lines unredacted.

    Args:
        level: of the loggers of this package.
        format: ``json``, one ASCII object a line; or ``console``, for people.
        output: where the lines go.
        file: the path when ``output`` is ``file``; rotated safely by several processes at once. Each of
            them calls this function with the same values.
        library_level: of everybody else's loggers. The libraries that write bodies of requests at debug
            level are held at ``info``.
        redact_fields: further names of fields whose values must not be logged.
        max_bytes: size of the file from which it is rotated, 100 MB by default.
        backups: rotated files to keep; with 0 the file is emptied when it is full.

    Returns:
        The function that puts everything back as it was.

    Raises:
        ConfigurationError: an unknown name, a wrong number, or a file that cannot be written.
    """
    global _redaction, _restore  # noqa: PLW0603  # logging is the process's
    _check(level=level, library_level=library_level, format=format, output=output)
    if max_bytes < 1 or backups < 0:
        raise ConfigurationError(f"a log cannot be rotated at {max_bytes} bytes into {backups} files")
    redaction = Redaction(redact_fields)
    handler = _handler(output, file, max_bytes, backups)
    render = json_line if format == "json" else _console(handler)
    handler.setFormatter(formatter(render, redaction))
    if _restore is not None:
        _restore()
    _redaction = redaction
    _restore = _install(handler, level, library_level)
    return _restore


def get_logger(name: str = "cert") -> Any:
    """Return a structlog logger that redacts and carries the correlation id, whatever is configured.

    Its lines go where the standard library's logger of that name sends them.
    """
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=_steps(),
        wrapper_class=_Lines,
        context_class=dict,
        cache_logger_on_first_use=False,
    )


class _Lines(structlog.stdlib.BoundLogger):
    """Writes lines without a search for the caller's file and line, which no line of ours tells."""

    def _proxy_to_logger(
        self, method_name: str, event: str | None = None, *event_args: str, **event_kw: Any
    ) -> Any:
        if event_args or method_name not in _NUMBERS:
            return super()._proxy_to_logger(method_name, event, *event_args, **event_kw)
        logger: logging.Logger = self._logger
        number = _NUMBERS[method_name]
        if logger.isEnabledFor(number):
            (fields,), options = self._process_event(method_name, event, event_kw)
            line = logger.makeRecord(logger.name, number, "", 0, fields, (), None, extra=options["extra"])
            logger.handle(line)
        return None


def _steps() -> list[Any]:
    def redact(fields: Mapping[Any, Any]) -> dict[str, Any]:
        return _redaction(fields)  # as configured when the line is written, not when the logger was made

    return [
        structlog.stdlib.filter_by_level,
        *shared_steps(redact),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]


def _check(**choices: str) -> None:
    known = {
        "level": get_args(Level),
        "library_level": get_args(Level),
        "format": get_args(Format),
        "output": get_args(Output),
    }
    for name, value in choices.items():
        if value not in known[name]:
            raise ConfigurationError(
                f"{value!r} is no log {name.replace('_', ' ')}", hint=f"one of: {', '.join(known[name])}"
            )


def _handler(output: Output, file: str | Path | None, max_bytes: int, backups: int) -> logging.Handler:
    if output == "file":
        if not file or not str(file).strip():
            raise ConfigurationError("logs go to a file, but none is named", hint="set CERT_LOG_FILE")
        from cert.observability.log_file import FileLines

        return FileLines(Path(file), max_bytes=max_bytes, backups=backups)
    return StreamLines(sys.stderr if output == "stderr" else sys.stdout)


def _console(handler: logging.Handler) -> Callable[[Mapping[str, Any]], str]:
    stream = getattr(handler, "stream", None)
    coloured = bool(stream is not None and stream.isatty())
    return functools.partial(console_line, colours=coloured)


def _install(handler: logging.Handler, level: Level, library_level: Level) -> Callable[[], None]:
    root, ours = logging.getLogger(), logging.getLogger("cert")
    libraries = _number(library_level)
    levels = {root: libraries, ours: _number(level)}
    levels |= {logging.getLogger(name): max(libraries, logging.INFO) for name in _WRITE_BODIES}
    before = {logger: logger.level for logger in levels}
    aside = [other for other in root.handlers if type(other) is logging.StreamHandler]
    structlogs = structlog.get_config() if structlog.is_configured() else None

    for other in aside:
        root.removeHandler(other)
    root.addHandler(handler)
    for logger, number in levels.items():
        logger.setLevel(number)
    logging.captureWarnings(True)
    # For a program's own `structlog.get_logger()`.
    structlog.configure(
        processors=_steps(),
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )

    def restore() -> None:
        global _restore, _redaction
        if handler not in root.handlers:
            return
        _restore, _redaction = None, Redaction()
        root.removeHandler(handler)
        with contextlib.suppress(OSError, ValueError):
            handler.close()
        for other in aside:
            root.addHandler(other)
        for logger, number in before.items():
            logger.setLevel(number)
        logging.captureWarnings(False)
        structlog.configure(**structlogs) if structlogs else structlog.reset_defaults()

    return restore


def _number(level: Level) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
