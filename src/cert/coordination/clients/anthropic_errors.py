"""Exceptions of the anthropic SDK in our own terms."""

from __future__ import annotations

from typing import Any

import anthropic

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

__all__ = ["ANTHROPIC_ERRORS"]

# Words by which the API says that a prompt does not fit.
_TOO_LONG = ("prompt is too long", "exceed context limit", "exceeds the context window")


def _status_error(error: anthropic.APIStatusError, *, spent: bool = False) -> CertError:
    status = error.status_code
    said = said_in(error.body).lower()
    return status_error(
        status,
        error.response.headers,
        _facts(error),
        spent=spent,
        too_long=status == 413 or (status == 400 and any(words in said for words in _TOO_LONG)),
        hint="check the name of the model, and the base URL, which has no /v1 at its end"
        if status == 404
        else None,
    )


def _spent(error: anthropic.RateLimitError) -> CertError:
    # A limit on money, which the SDK counts among those on rates: no waiting ends it.
    return _status_error(error, spent=True)


def _facts(error: anthropic.APIStatusError) -> dict[str, Any]:
    codes = {name: value for name, value in error_codes(error.body).items() if value}
    return (
        {"status": error.status_code} | codes | ({"code": error.error_code[:64]} if error.error_code else {})
    )


def _inside(error: anthropic.APIError) -> CertError:
    return UpstreamProtocolError("the response says that something failed", context=error_codes(error.body))


def _not_set_up(error: Exception) -> CertError:
    return ConfigurationError(
        "the anthropic SDK is not set up for a call", context={"cause": type(error).__name__}
    )


ANTHROPIC_ERRORS = ErrorMapping()
for _kind in (
    anthropic.APIStatusError,
    anthropic.BadRequestError,
    anthropic.AuthenticationError,
    anthropic.PaymentRequiredError,
    anthropic.PermissionDeniedError,
    anthropic.NotFoundError,
    anthropic.RequestTimeoutError,
    anthropic.ConflictError,
    anthropic.PreconditionFailedError,
    anthropic.ContentTooLargeError,
    anthropic.UnprocessableEntityError,
    anthropic.RateLimitError,
    anthropic.RampLimitExceededError,
    anthropic.RequestHeaderFieldsTooLargeError,
    anthropic.ClientClosedRequestError,
    anthropic.InternalServerError,
    anthropic.HTTPNotImplementedError,
    anthropic.ServiceUnavailableError,
    anthropic.GatewayTimeoutError,
    anthropic.OverloadedError,
):
    ANTHROPIC_ERRORS.register(_kind, _status_error)
for _limit in (anthropic.ContractSpendLimitReachedError, anthropic.EnforcedSpendLimitReachedError):
    ANTHROPIC_ERRORS.register(_limit, _spent)
for _connection in (anthropic.APIConnectionError, anthropic.APITimeoutError):
    ANTHROPIC_ERRORS.register(_connection, connection_error)
for _broken in (
    anthropic.APIResponseValidationError,
    anthropic.APIWebhookValidationError,
    anthropic.RetryableError,
):
    ANTHROPIC_ERRORS.register(_broken, unreadable)
ANTHROPIC_ERRORS.register(anthropic.APIError, _inside)
for _setting in (anthropic.AnthropicError, anthropic.CredentialsError, anthropic.IdentityTokenFileError):
    ANTHROPIC_ERRORS.register(_setting, _not_set_up)
register_http_errors(ANTHROPIC_ERRORS)
