"""The logs of a command: warnings for people on standard error, unless the environment asks for others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from cert.core.errors import ConfigurationError

__all__ = ["VARIABLES", "logs"]

# What a person at a terminal wants; a service's defaults (`info`, `json`) are in the settings.
_DEFAULTS: dict[str, Any] = {"level": "warning", "format": "console"}
# Their names are known here too, so that a command whose environment has none of them loads no settings.
VARIABLES = (
    *("CERT_LOG_LEVEL", "CERT_LOG_FORMAT", "CERT_LOG_OUTPUT", "CERT_LOG_FILE"),
    *("CERT_LOG_MAX_BYTES", "CERT_LOG_BACKUPS", "LOG_LEVEL", "LOG_FORMAT", "LOG_OUTPUT", "LOG_FILE"),
)


@contextlib.contextmanager
def logs(environ: Mapping[str, str] | None = None) -> Iterator[None]:
    """Log during a block as the environment says, the core's events included.

    Raises:
        ConfigurationError: before the block: a variable has a wrong value, or the file cannot be written.
    """
    options = _options(os.environ if environ is None else environ)
    from cert.core.events import default_hub
    from cert.observability.log_events import log_observer
    from cert.observability.logging import configure_logging

    restore = configure_logging(**options)
    hub = default_hub()
    forget = hub.observe(log_observer())
    try:
        yield
    finally:
        hub.flush(1.0)
        forget()
        restore()


def _options(environ: Mapping[str, str]) -> dict[str, Any]:
    if not any(environ.get(name, "").strip() for name in VARIABLES):
        return _DEFAULTS
    from cert.core.config import read_settings

    settings, reading, problems = read_settings(
        {name: environ[name] for name in VARIABLES if name in environ}
    )
    if settings is None:
        raise ConfigurationError(
            "wrong settings of the logs: " + "; ".join(map(str, problems)),
            hint="`cert config check` lists all settings that are wrong",
        )
    defaults = {
        name: value for name, value in _DEFAULTS.items() if f"CERT_LOG_{name.upper()}" not in reading.found
    }
    return {**settings.logging.model_dump(), **defaults}
