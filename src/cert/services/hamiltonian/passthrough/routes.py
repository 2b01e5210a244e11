"""``/v1/chat/completions`` and ``/v1/models``, as OpenAI's clients ask for them."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cert.core.errors import CertError
from cert.services.common.errors import PROBLEM
from cert.services.hamiltonian.passthrough.asking import read_asked
from cert.services.hamiltonian.passthrough.errors import error_response
from cert.services.hamiltonian.passthrough.forward import forwarded
from cert.services.hamiltonian.passthrough.listing import models_of
from cert.services.hamiltonian.passthrough.local import answered
from cert.services.hamiltonian.shown import ModelList
from cert.services.hamiltonian.state import Reader, State, Writer

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["openai"])

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["model", "messages"],
                "additionalProperties": True,
                "properties": {
                    "model": {"type": "string", "minLength": 1},
                    "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                    "stream": {"type": ["boolean", "null"]},
                    "logprobs": {"type": ["boolean", "null"]},
                    "top_logprobs": {"type": ["integer", "null"], "minimum": 0},
                },
            },
            "examples": {
                "chat": {
                    "value": {
                        "model": "reference",
                        "messages": [{"role": "user", "content": "What is the capital of Velmora?"}],
                    }
                }
            },
        }
    },
}
_ANSWER: dict[str, Any] = {
    "description": "A chat completion, or with `stream` its chunks as events; with the member `cert`",
    "headers": {
        name: {"schema": {"type": "string"}, "description": text}
        for name, text in {
            "X-CERT-Verdict": "pass, fail, undecided or not_measured; of a stream it comes in the last chunk",
            "X-CERT-Calibrated": "whether the verdict comes with a promise",
            "X-CERT-Analysis-Id": "of each choice that was measured, with commas between",
            "X-CERT-Action": "forwarded, replaced or withheld",
        }.items()
    },
    "content": {
        "application/json": {"schema": {"type": "object", "additionalProperties": True}},
        "text/event-stream": {},
    },
}
_ERROR: dict[str, Any] = {
    "description": "an error in OpenAI's shape, or a problem (RFC 9457) where the request came no further",
    "content": {"application/json": {"schema": {"type": "object"}}, PROBLEM: {"schema": {"type": "object"}}},
}


@router.post(
    "/chat/completions",
    operation_id="create_chat_completion",
    summary="OpenAI's chat, watched",
    response_class=Response,
    openapi_extra={"requestBody": _BODY},
    responses={200: _ANSWER, 422: _ERROR, "default": _ERROR},
)
async def create_chat_completion(request: Request, state: State, principal: Writer) -> Response:
    """Members that nobody here knows go to the engine as they are. Errors have OpenAI's shape."""
    try:
        asked = read_asked(await request.body())
        answer = answered if state.is_local(asked.model) else forwarded
        return await answer(state, principal.tenant, asked, request)
    except CertError as error:
        return error_response(error)


@router.get(
    "/models",
    operation_id="list_models",
    summary="The models that may be asked for",
    response_model=ModelList,
)
async def list_models(state: State, principal: Reader) -> Response:  # noqa: ARG001  # a key is needed
    """Those of this process and those of the engine behind it."""
    try:
        return Response(msgspec.json.encode(await models_of(state)), media_type="application/json")
    except CertError as error:
        return error_response(error)
