"""Errors as problem+json (RFC 9457): one table from the tree of errors to status codes."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from cert.core import errors
from cert.core.correlation import correlation_id
from cert.core.errors import CertError

__all__ = [
    "PROBLEM",
    "ConflictError",
    "ForbiddenError",
    "NotFoundError",
    "ServiceError",
    "TooManyRequestsError",
    "UnauthorizedError",
    "error_response",
    "install_handlers",
    "problem",
    "problem_bytes",
    "problem_of",
    "status_of",
]

PROBLEM: Final = "application/problem+json"
GENERIC: Final = "the service failed; its log says why under the correlation id"


class ServiceError(CertError):
    """What only a service says of a request."""

    code = "service"
    status = 500


class UnauthorizedError(ServiceError):
    """No valid key was shown."""

    code = "unauthorized"
    status = 401


class ForbiddenError(ServiceError):
    """The key, or the origin of the request, may not do this."""

    code = "forbidden"
    status = 403


class NotFoundError(ServiceError):
    """There is no such thing, or it is another tenant's."""

    code = "not_found"
    status = 404


class ConflictError(ServiceError):
    """The thing is not in a state in which this can be done."""

    code = "conflict"
    status = 409


class TooManyRequestsError(ServiceError):
    """This tenant has as much as it may have."""

    code = "too_many_requests"
    status = 429
    retryable = True


# The first that fits an error decides.
_STATUS: Final[tuple[tuple[type[CertError], int], ...]] = (
    (errors.PromptTooLongError, 413),
    (errors.InputError, 422),
    (errors.InfeasibleError, 422),
    (errors.ConfigurationError, 422),
    (errors.BudgetExceededError, 402),
    (errors.RateLimitedError, 429),
    (errors.OverloadedError, 503),
    (errors.CircuitOpenError, 503),
    (errors.ResourceError, 503),
    (errors.StoreError, 503),
    (errors.GenerationTimeoutError, 504),
    (errors.DeadlineExceededError, 504),
    (errors.UpstreamTimeoutError, 504),
    (errors.UpstreamError, 502),
    (errors.RetriesExhaustedError, 502),
    (errors.GenerationCancelledError, 503),
)
_TITLES: Final = {
    400: "Bad request",
    401: "Unauthorized",
    402: "Budget exceeded",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    413: "Content too large",
    414: "URI too long",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Unprocessable content",
    429: "Too many requests",
    431: "Request header fields too large",
    500: "Internal error",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timeout",
}
# Facts of ours may name paths, models and hosts of the operator: the caller learns the kind of failure.
_OURS: Final = (errors.ResourceError, errors.StoreError, errors.DependencyMissingError, errors.OutputError)


def status_of(error: CertError) -> int:
    """Return the status code of an error; 500 for one that is no caller's business."""
    if isinstance(error, ServiceError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    retry_after: float | None = None,
    errors: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a problem's members; ``code`` is the stable name to decide by."""
    found: dict[str, Any] = {
        "type": f"urn:cert:error:{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        "correlation_id": correlation_id(),
    }
    optional = {"hint": hint, "retry_after": retry_after, "errors": errors}
    return found | {name: value for name, value in optional.items() if value is not None}


def problem_of(error: CertError) -> dict[str, Any]:
    """Return what a caller is told of an error."""
    status = status_of(error)
    if status == 500:
        return problem(500, "internal", GENERIC)
    if isinstance(error, _OURS):
        return problem(status, error.code, _kind(error), retry_after=error.retry_after)
    return problem(status, error.code, error.message, hint=error.hint, retry_after=error.retry_after)


def problem_bytes(
    status: int, code: str, detail: str, *, retry_after: float | None = None
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of a problem, for code below the framework."""
    body = msgspec.json.encode(problem(status, code, detail, retry_after=retry_after))
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in _headers(status, retry_after).items()]
    return headers, body


def install_handlers(app: FastAPI) -> None:
    """Answer every error of an app as a problem."""
    app.add_exception_handler(CertError, _cert_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)


def _kind(error: CertError) -> str:
    first = (type(error).__doc__ or "").strip().splitlines()[0]
    return first or "something that the work needs is not usable"


async def _cert_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CertError)
    return error_response(request, error)


def error_response(request: Request, error: CertError) -> Response:
    """Return the answer to a request that ended with an error; what is ours is marked for the log."""
    members = problem_of(error)
    if members["status"] >= 500:
        request.scope["cert.error"] = error  # for the log; see `cert.services.common.correlation`
    return _response(members, error.retry_after)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, f"http_{error.status_code}")
    response = _response(problem(error.status_code, code, str(error.detail)), None)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_methods_at(request))
    return response


def _methods_at(request: Request) -> list[str]:
    """Every method that a route has for this path; the framework names those of the first alone."""
    methods: set[str] = set()
    for route in request.app.router.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods)


async def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001  # the same
    assert isinstance(error, RequestValidationError)
    # Where and why, never what: the input may be a prompt.
    told = [
        {
            "loc": [str(part) for part in one.get("loc", ())],
            "msg": str(one.get("msg", "")),
            "type": one.get("type"),
        }
        for one in error.errors()[:20]
    ]
    broken = any(one["type"] == "json_invalid" for one in told)
    status = 400 if broken else 422
    detail = "the body is no JSON" if broken else "the request does not have the form that is asked for"
    return _response(problem(status, "invalid_request", detail, errors=told), None)


def _response(members: dict[str, Any], retry_after: float | None) -> Response:
    status = members["status"]
    return JSONResponse(members, status, _headers(status, retry_after), media_type=PROBLEM)


def _headers(status: int, retry_after: float | None) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(1.0 if retry_after is None else retry_after)))
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="cert"'
    return headers
