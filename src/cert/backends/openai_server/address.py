"""Where a server is, in one name: ``openai:MODEL@URL``."""

from __future__ import annotations

from cert.backends.server_url import checked_url
from cert.core.errors import ConfigurationError

__all__ = ["PREFIX", "checked_url", "parse_name"]

PREFIX = "openai:"
_EXAMPLE = "openai:Qwen/Qwen2.5-7B@http://127.0.0.1:8000/v1"


def parse_name(name: str) -> tuple[str, str]:
    """Split ``openai:MODEL@URL`` into the model and the checked URL.

    Raises:
        ConfigurationError: it is not of this form, or the URL is not one of a server.
    """
    model, found, url = name.removeprefix(PREFIX).rpartition("@")
    # The last @ of a URL with a user name would be inside it.
    at = name.find("@http")
    if at >= 0:
        model, found, url = name[len(PREFIX) : at], "@", name[at + 1 :]
    if not (name.startswith(PREFIX) and found and model.strip()):
        raise ConfigurationError("a model on a server is named openai:MODEL@URL", hint=f"such as {_EXAMPLE}")
    return model, checked_url(url)
