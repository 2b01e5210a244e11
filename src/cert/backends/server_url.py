"""Addresses of servers that can be trusted with a key."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from cert.core.errors import ConfigurationError

__all__ = ["checked_url"]


def checked_url(url: str, example: str = "http://127.0.0.1:8000/v1") -> str:
    """Return a base URL without a slash at its end.

    Raises:
        ConfigurationError: it is no http or https URL, or holds a user name, a query or a fragment. The
            message does not repeat it, since it may hold a secret; the hint shows the example.
    """
    if wrong := _wrong_with(url):
        raise ConfigurationError(
            f"the base URL of the server cannot be used: {wrong}", hint=f"such as {example}"
        ) from None
    return url.rstrip("/")


def _wrong_with(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it is not a URL"
    if any(not character.isprintable() or character.isspace() for character in url):
        return "it holds blanks or control characters"
    if parts.scheme not in ("http", "https") or not host:
        return "it must begin with http:// or https:// and a host"
    if _has_credentials(parts):
        return "it must not hold a user name or a password; give the key as api_key"
    if parts.query or parts.fragment:
        return "it must not hold a query or a fragment"
    return None


def _has_credentials(parts: SplitResult) -> bool:
    return "@" in parts.netloc
