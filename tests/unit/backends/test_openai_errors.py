"""The SDK's exceptions in our own terms, all of them; names and addresses of servers."""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

pytest.importorskip("openai")

import httpx2
import openai

from cert.backends.http_errors import own_words
from cert.backends.local import LocalBackend
from cert.backends.openai_server import OpenAIBackend
from cert.backends.openai_server.address import parse_name
from cert.backends.openai_server.errors import OPENAI_ERRORS
from cert.backends.opening import ServerOptions, is_server, open_backend
from cert.backends.server_url import checked_url
from cert.core.errors import (
    ConfigurationError,
    DependencyMissingError,
    PromptTooLongError,
    UpstreamConnectionError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")

# Their bases say enough: what only web sockets and other ways to log in raise.
BY_THEIR_BASE = {"SubjectTokenProviderError"}


def status(code: int, body: object = None, **headers: str) -> Any:
    kinds = {400: openai.BadRequestError, 401: openai.AuthenticationError, 403: openai.PermissionDeniedError,
             404: openai.NotFoundError, 409: openai.ConflictError, 422: openai.UnprocessableEntityError,
             429: openai.RateLimitError}  # fmt: skip
    kind = kinds.get(code, openai.InternalServerError if code >= 500 else openai.APIStatusError)
    return kind("said", response=httpx2.Response(code, headers=headers, request=REQUEST), body=body)


def test_every_exception_of_the_sdk_is_mapped():
    """A new class of error would reach users untranslated, or be retried though it must not be."""
    classes = {
        name: kind
        for name, kind in inspect.getmembers(sys.modules["openai._exceptions"], inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__.startswith("openai")
    }
    assert "RateLimitError" in classes
    table = OPENAI_ERRORS._table
    assert {name for name, kind in classes.items() if kind not in table} == BY_THEIR_BASE
    assert all(OPENAI_ERRORS.covers(kind) for kind in classes.values())


def test_every_exception_of_the_http_library_is_mapped():
    """The same for what breaks while an answer is read."""
    raised = [
        kind
        for _, kind in inspect.getmembers(httpx2, inspect.isclass)
        if issubclass(kind, Exception) and kind.__name__ not in ("CookieConflict", "SSEError")
    ]
    assert [kind for kind in raised if not OPENAI_ERRORS.covers(kind)] == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (status(307), UpstreamRejectedError),
        (status(400), UpstreamRejectedError),
        (status(401), UpstreamRejectedError),
        (status(404), UpstreamRejectedError),
        (status(408), UpstreamTimeoutError),
        (status(409), UpstreamUnavailableError),
        (status(422), UpstreamRejectedError),
        (status(429), UpstreamRateLimitError),
        (status(429, {"code": "insufficient_quota"}), UpstreamRejectedError),
        (status(500), UpstreamUnavailableError),
        (status(529), UpstreamUnavailableError),
        (status(400, {"code": "context_length_exceeded"}), PromptTooLongError),
        (
            status(400, {"error": {"type": "exceed_context_size_error", "message": "exceed_context_size"}}),
            PromptTooLongError,
        ),
        (openai.APITimeoutError(REQUEST), UpstreamConnectionError),
        (openai.APIConnectionError(request=REQUEST), UpstreamConnectionError),
        (
            openai.APIResponseValidationError(httpx2.Response(200, request=REQUEST), None),
            UpstreamProtocolError,
        ),
        (openai.APIError("inside", REQUEST, body=None), UpstreamProtocolError),
        (openai.OpenAIError("no key"), ConfigurationError),
        (httpx2.ReadTimeout("slow"), UpstreamTimeoutError),
        (httpx2.ConnectError("no"), UpstreamConnectionError),
        (httpx2.RemoteProtocolError("cut"), UpstreamConnectionError),
    ],
)
def test_what_each_means(error, kind):
    """Retries, breaker and budget decide by the class."""
    mapped = OPENAI_ERRORS.translate(error)
    assert type(mapped) is kind
    assert "said" not in str(mapped)


def test_a_time_out_of_the_sdk_is_one():
    """A time-out taken for a broken connection would be retried without counting against the server."""
    error = openai.APITimeoutError(REQUEST)
    error.__cause__ = httpx2.ReadTimeout("slow")
    assert type(OPENAI_ERRORS.translate(error)) is UpstreamTimeoutError


def test_how_long_to_wait_is_kept():
    """A server that says when to come back must not be asked before."""
    mapped = OPENAI_ERRORS.translate(status(429, None, **{"retry-after": "7"}))
    assert mapped is not None
    assert mapped.retry_after == 7


def test_a_servers_words_are_shown_unless_they_quote():
    """Its reason helps; the prompt in it must not travel."""
    assert own_words({"error": {"message": "max_tokens is too large"}}, ("the prompt",)) == (
        "max_tokens is too large"
    )
    assert own_words({"message": "wrong: the prompt!"}, ("the prompt",)) is None
    assert own_words({"message": "x" * 400}, ()) is None
    assert own_words("plain words", ()) == "plain words"
    assert own_words({"message": 5}, ()) is None


# --- names ---


@pytest.mark.parametrize(
    ("name", "model", "url"),
    [
        ("openai:gpt-5@https://api.example.com/v1", "gpt-5", "https://api.example.com/v1"),
        ("openai:Qwen/Qwen2.5-7B@http://127.0.0.1:8000/v1/", "Qwen/Qwen2.5-7B", "http://127.0.0.1:8000/v1"),
        ("openai:ft@2:x@http://h/v1", "ft@2:x", "http://h/v1"),
        ("openai:a@http://[::1]:80/v1", "a", "http://[::1]:80/v1"),
    ],
)
def test_names_of_models_on_servers(name, model, url):
    """The one string that a user writes has to mean what it says."""
    assert parse_name(name) == (model, url)


@pytest.mark.parametrize(
    "name",
    [
        "openai:gpt-5", "openai:@http://h/v1", "openai:m@", "openai:m@ftp://h/v1", "openai:m@http://",
        "openai:m@http://user:s3cret@h/v1", "openai:m@https://s3cret@h/v1", "openai:m@http://h/v1?key=s3cret",
        "openai:m@http://h/v1#s3cret", "openai:m@http://h:99999/v1", "openai:m@http://h /v1",
        "openai:m@http://h\r\nx: s3cret", "openai:m@h:8000", "vllm:m@http://h",
    ],
)  # fmt: skip
def test_names_that_are_wrong_are_refused_without_their_secrets(name):
    """A password in a URL would end in logs and results."""
    with pytest.raises(ConfigurationError) as raised:
        parse_name(name)
    assert "s3cret" not in str(raised.value) + str(raised.value.hint) + str(raised.value.context)


@given(st.text(max_size=40))
def test_no_text_breaks_the_check_of_urls(text):
    """Whatever is typed, the answer is a URL or the error that says so."""
    with contextlib.suppress(ConfigurationError):
        assert checked_url(text).startswith(("http://", "https://"))


def test_one_function_opens_both_kinds(model_folder):
    """Whoever has a name need not know where the model runs."""
    server = open_backend(
        "openai:m@http://127.0.0.1:1/v1",
        server=ServerOptions(api_key=SecretStr("sk-secret"), dialect="vllm", probe=False),
    )
    assert isinstance(server, OpenAIBackend)
    assert server.identity.name == "openai:m@http://127.0.0.1:1/v1"
    assert "sk-secret" not in repr(ServerOptions(api_key=SecretStr("sk-secret")))
    server.close()
    local = open_backend(str(model_folder))
    assert isinstance(local, LocalBackend)
    local.close()
    assert is_server("openai:x")
    with pytest.raises(ConfigurationError, match="not on one"):
        open_backend("reference", server=ServerOptions())


def test_a_missing_sdk_names_its_extra(monkeypatch):
    """The user has to know what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyMissingError) as raised:
        open_backend("openai:m@http://127.0.0.1:1/v1")
    assert "cert-framework[openai]" in str(raised.value.hint)
