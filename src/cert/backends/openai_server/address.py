"""Where a server is: names like ``openai:MODEL@URL``, and URLs that can be trusted with a key."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

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


def checked_url(url: str) -> str:
    """Return a base URL without a slash at its end.

    Raises:
        ConfigurationError: it is no http or https URL, or holds a user name, a query or a fragment. The
            message does not repeat it, since it may hold a secret.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _wrong("it is not a URL") from None
    if any(not character.isprintable() or character.isspace() for character in url):
        raise _wrong("it holds blanks or control characters")
    if parts.scheme not in ("http", "https") or not host:
        raise _wrong("it must begin with http:// or https:// and a host")
    if _has_credentials(parts):
        raise _wrong("it must not hold a user name or a password; give the key as api_key")
    if parts.query or parts.fragment:
        raise _wrong("it must not hold a query or a fragment")
    return url.rstrip("/")


def _has_credentials(parts: SplitResult) -> bool:
    return "@" in parts.netloc


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the base URL of the server cannot be used: {what}", hint="such as http://127.0.0.1:8000/v1"
    )
