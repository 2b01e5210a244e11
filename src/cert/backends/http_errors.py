"""What goes wrong between us and a model's server, in our own terms, whichever vendor's SDK asks it.

The SDKs stand on one HTTP library and read an error's body alike. A server's message may quote the prompt, so
only its short codes go into an error by themselves; `own_words` says what else may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2

from cert.core.error_mapping import ErrorMapping
from cert.core.errors import (
    CertError,
    PromptTooLongError,
    UpstreamConnectionError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from cert.core.retry_after import parse_retry_after

__all__ = [
    "connection_error",
    "error_codes",
    "own_words",
    "raising_ours",
    "register_http_errors",
    "said_in",
    "status_error",
    "transport_error",
    "unreadable",
]

_MOST_SAID = 300


def status_error(
    status: int,
    headers: Mapping[str, str],
    facts: Mapping[str, Any],
    *,
    spent: bool = False,
    too_long: bool = False,
    hint: str | None = None,
) -> CertError:
    """Return what an answer with an error's status means.

    Args:
        status: of the answer.
        headers: of the answer, for when to come back.
        facts: for the error's context.
        spent: a 429 that no waiting ends: the money or the quota is used up.
        too_long: it is about a prompt that does not fit.
        hint: where a 401, 403 or 404 is for the vendor's users to mend in a way of its own.
    """
    retry_after = parse_retry_after(headers)
    if status == 429 and not spent:
        return UpstreamRateLimitError(
            "the server asks to slow down (429)", retry_after=retry_after, context=facts
        )
    if status == 408:
        return UpstreamTimeoutError("the server waited too long (408)", context=facts)
    if status == 409 or status >= 500:
        return UpstreamUnavailableError(
            f"the server is overloaded or broken ({status})", retry_after=retry_after, context=facts
        )
    if status < 400:
        return UpstreamRejectedError(
            f"the server sends its callers elsewhere ({status}), which is not followed with a key",
            hint="give the address that the server redirects to as the base URL",
            context=facts,
        )
    if too_long:
        return PromptTooLongError(
            "the prompt does not fit the model's context window", hint="shorten it", context=facts
        )
    return UpstreamRejectedError(
        f"the server rejects the request ({status})", hint=hint or _hint(status), context=facts
    )


def _hint(status: int) -> str | None:
    if status in (401, 403):
        return "check the API key and what it is allowed to use"
    return "its quota is used up" if status in (402, 429) else None


def connection_error(error: Exception) -> CertError:
    """Return what an SDK's error of the connection means, by the HTTP library's beneath it."""
    cause = error.__cause__
    if isinstance(cause, CertError):
        return cause
    return (
        transport_error(cause)
        if isinstance(cause, httpx2.HTTPError)
        else UpstreamConnectionError("no connection to the server", context={"cause": type(cause).__name__})
    )


def transport_error(error: httpx2.HTTPError) -> CertError:
    """Return what an error of the HTTP library means."""
    never_sent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    context: dict[str, Any] = {"cause": type(error).__name__} | ({"sent": False} if never_sent else {})
    if isinstance(error, httpx2.TimeoutException):
        return UpstreamTimeoutError("the server gave no answer in time", context=context)
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.DecodingError):
        return UpstreamProtocolError("the server's answer cannot be read", context=context)
    return UpstreamConnectionError(
        "the server cannot be reached" if never_sent else "the connection to the server broke",
        hint="check the base URL and that the server runs" if never_sent else None,
        context=context,
    )


def unreadable(error: Exception) -> CertError:
    """Return the error that says that an answer makes no sense."""
    return UpstreamProtocolError(
        "the server's answer cannot be read", context={"cause": type(error).__name__}
    )


def register_http_errors(mapping: ErrorMapping) -> None:
    """Register the HTTP library's own exceptions, which come through while an answer is read."""
    mapping.register(httpx2.HTTPError, transport_error)
    mapping.register(httpx2.InvalidURL, unreadable)
    mapping.register(httpx2.StreamError, unreadable)


def error_codes(body: object) -> dict[str, str | None]:
    """Return the short codes of an error's body, in which servers differ by a level of nesting."""
    inner = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return {}
    found = {name: inner.get(name) for name in ("code", "type", "param")}
    return {name: str(value)[:64] for name, value in found.items() if isinstance(value, str | int)}


def said_in(body: object) -> str:
    """Return a server's own words about an error; empty where there are none."""
    inner = body.get("error", body) if isinstance(body, dict) else body
    said = inner.get("message") if isinstance(inner, dict) else inner
    return said if isinstance(said, str) else ""


def own_words(body: object, secrets: Sequence[str]) -> str | None:
    """Return a server's own words if they are short and quote nothing that must stay out of errors.

    Args:
        body: of the error's answer, decoded.
        secrets: the API key and the texts of the prompt.
    """
    said = " ".join(said_in(body).split())
    if not said or len(said) > _MOST_SAID or any(secret and secret in said for secret in secrets):
        return None
    # A quotation may be cut or escaped: any longer part of a prompt counts.
    words = [word for secret in secrets for word in secret.split() if len(word) > 15]
    return None if any(word in said for word in words) else said


@contextmanager
def raising_ours(
    mapping: ErrorMapping, bodied: type[Exception], secrets: Callable[[], Sequence[str]]
) -> Iterator[None]:
    """Raise our errors in place of an SDK's, with the server's words where these may be shown.

    Args:
        mapping: of the SDK.
        bodied: its base of errors that keep the answer's ``body``.
        secrets: what no error may quote; asked for only when there is an error.
    """
    try:
        with mapping.applied():
            yield
    except CertError as error:
        cause = error.__cause__
        said = own_words(getattr(cause, "body", None), secrets()) if isinstance(cause, bodied) else None
        if said:
            error.message = f"{error.message}: {said}"
            error.args = (error.message,)
        raise
