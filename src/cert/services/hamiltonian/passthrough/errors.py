"""Errors in OpenAI's shape, which its clients turn into exceptions of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from cert.core.errors import CertError
from cert.services.common.errors import GENERIC, problem_of
from cert.services.hamiltonian.passthrough.engine import Refusal

__all__ = ["error_bytes", "error_of", "error_response", "refusal_response", "withheld_response"]

_JSON = "application/json"


def error_of(message: str, kind: str, code: str | None) -> dict[str, Any]:
    """Return an error as OpenAI's API writes it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_bytes(error: Exception) -> bytes:
    """Return an error of ours as the data of an event."""
    if not isinstance(error, CertError):
        return msgspec.json.encode(error_of(GENERIC, "server_error", "internal"))
    problem = problem_of(error)
    kind = "invalid_request_error" if problem["status"] < 500 else "server_error"
    return msgspec.json.encode(error_of(problem["detail"], kind, problem["code"]))


def error_response(error: CertError) -> Response:
    """Return an error of ours with its status."""
    problem = problem_of(error)
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    return Response(error_bytes(error), problem["status"], headers, media_type=_JSON)


def refusal_response(refusal: Refusal) -> Response:
    """Pass an error of the engine on with its status.

    One about the operator's key is not the caller's: it becomes 502.
    """
    if refusal.status == 401:
        told = error_of("the engine refuses the operator's key", "server_error", "upstream_unauthorized")
        return Response(msgspec.json.encode(told), 502, media_type=_JSON)
    body = refusal.body
    if not _is_error(body):
        told = error_of(f"the engine answered with status {refusal.status}", "server_error", "upstream")
        body = msgspec.json.encode(told)
    return Response(body, refusal.status, dict(refusal.headers), media_type=_JSON)


def withheld_response(cert: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Say that an answer is kept back. OpenAI's clients do not ask again at this status."""
    told = error_of("the answer did not pass the gate and is withheld", "cert_gate", "answer_withheld")
    return Response(msgspec.json.encode({**told, "cert": cert}), 422, dict(headers), media_type=_JSON)


def _is_error(body: bytes) -> bool:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(found, dict) and ("error" in found or found.get("object") == "error")
