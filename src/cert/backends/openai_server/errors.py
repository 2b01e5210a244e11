"""Exceptions of the openai SDK, and of the HTTP library beneath it, in our own terms.

Messages of a server may quote the prompt, so only its short codes go into an error by themselves.
"""

from __future__ import annotations

from typing import Any

import httpx2
import openai

from cert.core.error_mapping import ErrorMapping
from cert.core.errors import (
    CertError,
    ConfigurationError,
    PromptTooLongError,
    UpstreamConnectionError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from cert.core.retry_after import parse_retry_after

__all__ = ["OPENAI_ERRORS", "error_codes", "said_by_server"]

# Words by which servers say that a prompt does not fit, in their codes or messages.
_TOO_LONG = (
    "context_length_exceeded",
    "exceed_context_size",
    "maximum context length",
    "context window",
    "longer than the model's context",
    "exceeds the available context",
    "must have less than",
)
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_MOST_SAID = 300


def _status_error(error: openai.APIStatusError) -> CertError:
    status, facts = error.status_code, _facts(error)
    retry_after = parse_retry_after(error.response.headers)
    said = f"{facts.get('code', '')} {_message(error)}".lower()
    if status == 429 and facts.get("code") not in _NO_MONEY:
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
    if status in (400, 413, 422) and any(words in said for words in _TOO_LONG):
        return PromptTooLongError(
            "the prompt does not fit the model's context window", hint="shorten it", context=facts
        )
    return UpstreamRejectedError(
        f"the server rejects the request ({status})", hint=_hint(status), context=facts
    )


def _hint(status: int) -> str | None:
    if status in (401, 403):
        return "check the API key and what it is allowed to use"
    if status == 404:
        return "check the name of the model and the base URL, which mostly ends with /v1"
    return "its quota is used up" if status in (402, 429) else None


def _connection_error(error: openai.APIConnectionError) -> CertError:
    cause = error.__cause__
    if isinstance(cause, CertError):
        return cause
    return (
        _transport_error(cause)
        if isinstance(cause, httpx2.HTTPError)
        else UpstreamConnectionError("no connection to the server", context={"cause": type(cause).__name__})
    )


def _transport_error(error: httpx2.HTTPError) -> CertError:
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


def _unreadable(error: Exception) -> CertError:
    return UpstreamProtocolError(
        "the server's answer cannot be read", context={"cause": type(error).__name__}
    )


def _credentials(error: Exception) -> CertError:
    return ConfigurationError(
        "the openai SDK could not get its credentials", context={"cause": type(error).__name__}
    )


def _inside(error: openai.APIError) -> CertError:
    # Raised by the SDK for an error inside a stream.
    return UpstreamProtocolError("the response says that something failed", context=_facts(error))


def _facts(error: openai.APIError) -> dict[str, Any]:
    status = getattr(error, "status_code", None)
    return {"status": status} | {name: value for name, value in error_codes(error.body).items() if value}


def error_codes(body: object) -> dict[str, str | None]:
    """Return the short codes of an error's body, in which servers differ by a level of nesting."""
    inner = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return {}
    found = {name: inner.get(name) for name in ("code", "type", "param")}
    return {name: str(value)[:64] for name, value in found.items() if isinstance(value, str | int)}


def _message(error: openai.APIError) -> str:
    inner = error.body.get("error", error.body) if isinstance(error.body, dict) else error.body
    said = inner.get("message") if isinstance(inner, dict) else inner
    return said if isinstance(said, str) else ""


def said_by_server(error: openai.APIError, secrets: tuple[str, ...]) -> str | None:
    """Return a server's own words if they are short and quote nothing that must stay out of errors.

    Args:
        error: that the SDK raised.
        secrets: the API key and the texts of the prompt.
    """
    said = " ".join(_message(error).split())
    if not said or len(said) > _MOST_SAID or any(secret and secret in said for secret in secrets):
        return None
    # A quotation may be cut or escaped: any longer part of a prompt counts.
    words = [word for secret in secrets for word in secret.split() if len(word) > 15]
    return None if any(word in said for word in words) else said


OPENAI_ERRORS = ErrorMapping()
for _kind in (
    openai.APIStatusError,
    openai.BadRequestError,
    openai.AuthenticationError,
    openai.OAuthError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
    openai.ConflictError,
    openai.UnprocessableEntityError,
    openai.RateLimitError,
    openai.InternalServerError,
):
    OPENAI_ERRORS.register(_kind, _status_error)
for _connection in (openai.APIConnectionError, openai.APITimeoutError):
    OPENAI_ERRORS.register(_connection, _connection_error)
for _broken in (
    openai.APIResponseValidationError,
    openai.LengthFinishReasonError,
    openai.ContentFilterFinishReasonError,
    openai.InvalidWebhookSignatureError,
    openai.WebSocketConnectionClosedError,
    openai.WebSocketQueueFullError,
):
    OPENAI_ERRORS.register(_broken, _unreadable)
OPENAI_ERRORS.register(openai.APIError, _inside)
OPENAI_ERRORS.register(openai.OpenAIError, _credentials)
OPENAI_ERRORS.register(httpx2.HTTPError, _transport_error)
OPENAI_ERRORS.register(httpx2.InvalidURL, _unreadable)
OPENAI_ERRORS.register(httpx2.StreamError, _unreadable)
