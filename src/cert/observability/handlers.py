"""Handlers that count what they lose, say so once, and never raise into the work."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO

from cert.observability.losses import count_lost_line

__all__ = ["CountingHandler", "StreamLines"]


class CountingHandler(logging.Handler):
    """Counts a line that cannot be written, and says so once on standard error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """Count the loss; called by the standard library inside the handling of the exception."""
        if count_lost_line() == 1:
            reason = type(sys.exception()).__name__
            with contextlib.suppress(Exception):  # there may be nowhere left to say it
                sys.stderr.write(f"cert: log lines are being lost ({reason} in {record.name})\n")

    def format(self, record: logging.LogRecord) -> str:
        """Format the record; one whose arguments do not fit its message is still told."""
        try:
            return super().format(record)
        except Exception as error:
            record.msg, record.args, record.exc_info = f"{record.msg} ({type(error).__name__})", (), None
            return super().format(record)


class StreamLines(CountingHandler, logging.StreamHandler[TextIO]):
    """Writes to a stream in whatever encoding it has: what that lacks is spelled out."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record in characters that the stream can take."""
        text = super().format(record)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)
