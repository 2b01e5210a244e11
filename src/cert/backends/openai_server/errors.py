"""Exceptions of the openai SDK in our own terms; those of the HTTP library beneath are `http_errors`'."""

from __future__ import annotations

from typing import Any

import openai

from cert.backends.http_errors import (
    connection_error,
    error_codes,
    register_http_errors,
    said_in,
    status_error,
    unreadable,
)
from cert.core.error_mapping import ErrorMapping
from cert.core.errors import CertError, ConfigurationError, UpstreamProtocolError

__all__ = ["OPENAI_ERRORS"]

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


def _status_error(error: openai.APIStatusError) -> CertError:
    status, facts = error.status_code, _facts(error)
    said = f"{facts.get('code', '')} {said_in(error.body)}".lower()
    return status_error(
        status,
        error.response.headers,
        facts,
        spent=facts.get("code") in _NO_MONEY,
        too_long=status in (400, 413, 422) and any(words in said for words in _TOO_LONG),
        hint="check the name of the model and the base URL, which mostly ends with /v1"
        if status == 404
        else None,
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
    OPENAI_ERRORS.register(_connection, connection_error)
for _broken in (
    openai.APIResponseValidationError,
    openai.LengthFinishReasonError,
    openai.ContentFilterFinishReasonError,
    openai.InvalidWebhookSignatureError,
    openai.WebSocketConnectionClosedError,
    openai.WebSocketQueueFullError,
):
    OPENAI_ERRORS.register(_broken, unreadable)
OPENAI_ERRORS.register(openai.APIError, _inside)
OPENAI_ERRORS.register(openai.OpenAIError, _credentials)
register_http_errors(OPENAI_ERRORS)
