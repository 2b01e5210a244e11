"""The backend for servers, against the scripted one: everything that a server can do wrong."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import math
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openai")

from cert.backends import Control, GenerationRequest, Message, Sampling, ScoreRequest, TokenBlock
from cert.backends.openai_server import OpenAIBackend, ServerLimits
from cert.core.circuit_breaker import CircuitBreaker
from cert.core.errors import (
    BudgetExceededError,
    CertError,
    CircuitOpenError,
    ConfigurationError,
    DeadlineExceededError,
    GenerationCancelledError,
    GenerationTimeoutError,
    InputError,
    OverloadedError,
    PromptTooLongError,
    RetriesExhaustedError,
    UpstreamConnectionError,
    UpstreamProtocolError,
    UpstreamRejectedError,
    UpstreamUnavailableError,
)
from cert.core.events import CallFinished
from cert.core.resilience import Demand, ResiliencePolicy
from cert.core.retry import RetryPolicy
from cert.testing import FaultServer, Reply, Token, captured_events, error, ok

CHAT = (Message("user", "Where is the tower of my very-secret-prompt-text?"),)
KEY = "sk-very-secret-key"
ONE_TRY = ResiliencePolicy(deadline_seconds=30, attempt_seconds=20, retry=RetryPolicy(attempts=1))
QUICK = ResiliencePolicy(
    deadline_seconds=30,
    attempt_seconds=20,
    retry=RetryPolicy(attempts=3, initial_seconds=0.01, maximum_seconds=0.02),
)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[FaultServer, OpenAIBackend]]]:
    """Start a server and a backend on it that knows it already; the script begins after the probe."""
    opened: list[Any] = []

    def start(*script: Reply, flavour: str = "vllm", key: str | None = None, **options: Any):
        server = FaultServer(flavour=flavour, api_key=key).start()
        backend = OpenAIBackend("scripted", server.url + "/v1", api_key=key, **{"policy": ONE_TRY} | options)
        opened.extend([backend.close, server.stop])
        backend.probe()
        server.then(list(script))
        return server, backend

    yield start
    for close in opened:
        close()


def ask(backend: OpenAIBackend, tokens: int = 20, **options: Any):
    control = Control(**{name: options.pop(name) for name in ("timeout", "on_block") if name in options})
    request = GenerationRequest(
        options.pop("prompt", CHAT), tokens, top_logprobs=options.pop("k", 5), **options
    )
    return control.wait(backend.begin(request, control))


def fails(kind: type[CertError], backend: OpenAIBackend, **options: Any) -> Any:
    with pytest.raises(kind) as raised:
        ask(backend, **options)
    return raised.value


def hush(_: TokenBlock) -> None:
    """Listen, so that the answer is streamed."""


def entries(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    """A rewriting of every entry of an answer or event."""

    def rewrite(data: Any) -> Any:
        for choice in data.get("choices", ()):
            for entry in (choice.get("logprobs") or {}).get("content") or ():
                change(entry)
        return data

    return rewrite


def without_logprobs(data: Any) -> Any:
    for choice in data.get("choices", ()):
        choice["logprobs"] = None
    return data


streamed = pytest.mark.parametrize("how", [{}, {"on_block": hush}], ids=["whole", "streamed"])


# --- wrong answers ---


@streamed
def test_an_answer_without_log_probabilities_is_an_error(serve, how):
    """A text without numbers must never be taken for a sure one."""
    _, backend = serve(replace(ok("Paris it is."), rewrite=without_logprobs))
    assert "no log-probabilities" in str(fails(UpstreamProtocolError, backend, **how))


@streamed
def test_numbers_missing_in_the_middle_are_an_error(serve, how):
    """Half of the tokens measured is not the answer measured."""

    def forget(data: Any) -> Any:
        for choice in data.get("choices", ()):
            if choice.get("logprobs"):
                kept = [entry for entry in choice["logprobs"]["content"] if entry["token"] == "Paris"]
                choice["logprobs"]["content"] = kept
        return data

    _, backend = serve(replace(ok("Paris it is."), rewrite=forget))
    assert "only a part" in str(fails(UpstreamProtocolError, backend, **how))


@streamed
def test_fewer_candidates_than_asked_are_not_made_up(serve, how):
    """A list that is short is not measured beyond its end."""
    _, backend = serve(
        replace(
            ok("Paris it"),
            rewrite=entries(lambda entry: entry.update(top_logprobs=entry["top_logprobs"][:2])),
        )
    )
    steps = ask(backend, **how).steps
    assert np.isnan(steps.top_logprobs[:, 2:]).all()
    assert not np.isnan(steps.top_logprobs[:, :2]).any()


@streamed
def test_a_sampled_token_outside_the_list_stays_apart(serve, how):
    """The K likeliest must not contain a token that is not one of them."""
    unlikely = Token("odd", -9.0, tuple((f"c{rank}", math.log(0.4) - rank) for rank in range(30)))
    _, backend = serve(ok((unlikely,)))
    steps = ask(backend, **how).steps
    assert steps.token_ids[0] not in steps.top_ids[0]
    np.testing.assert_allclose(steps.top_logprobs[0], [math.log(0.4) - rank for rank in range(5)])
    assert steps.logprob.tolist() == [-9.0]


@streamed
@pytest.mark.parametrize("change", [lambda entry: entry.update(bytes=None), lambda entry: entry.pop("bytes")])
def test_bytes_may_be_missing(serve, how, change):
    """Servers without a byte-level tokenizer have none to give."""
    _, backend = serve(replace(ok("Paris it is."), rewrite=entries(change)))
    assert ask(backend, **how).text == "Paris it is."


@streamed
def test_an_empty_answer_is_one(serve, how):
    """A model may have nothing to say."""
    _, backend = serve(ok(()))
    generation = ask(backend, **how)
    assert (generation.text, len(generation.steps), generation.finish_reason) == ("", 0, "stop")


@streamed
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (replace(ok("I can't help."), refused=True), "refusal"),
        (replace(ok("Well,"), finish="content_filter"), "content_filter"),
        (replace(ok(()), finish="tool_calls"), "tool_calls"),
    ],
)
def test_answers_that_are_none_are_named(serve, how, reply, reason):
    """A refusal that counts as an answer spoils every statistic."""
    _, backend = serve(reply)
    assert ask(backend, **how).finish_reason == reason


@streamed
def test_reasoning_is_part_of_what_was_generated(serve, how):
    """The tokens of a thought cost and count, and come before the answer."""
    _, backend = serve(replace(ok("hm well Paris"), thought=2))
    generation = ask(backend, **how)
    assert generation.text == "hm well Paris"
    assert generation.tokens == ("hm", " well", " Paris")


def test_characters_of_several_tokens_come_whole(serve):
    """Live text with half characters in it cannot be shown."""
    snow = "☃".encode()
    tokens = (Token("a"), *(Token("\ufffd", data=snow[place : place + 1]) for place in range(3)), Token("!"))
    for flavour, listed in (("openai", 5), ("vllm", 5), ("sglang", 5), ("llama.cpp", 5)):
        blocks: list[TokenBlock] = []
        _, backend = serve(ok(tokens), ok(tokens), flavour=flavour)
        generation = ask(backend, on_block=blocks.append)
        assert generation.text == ask(backend).text == "a☃!"
        assert "".join("".join(block.texts) for block in blocks) == "a☃!"
        assert "\ufffd" not in "".join("".join(block.texts) for block in blocks)
        assert len(generation.steps) == listed
        # llama.cpp lists one step of three: the others count as not measured.
        assert np.isnan(generation.steps.logprob).sum() == (2 if flavour == "llama.cpp" else 0)


@streamed
def test_numbers_above_certainty_are_refused(serve, how):
    """A server that sends logits in place of log-probabilities would look very sure."""
    _, backend = serve(replace(ok("Paris"), rewrite=entries(lambda entry: entry.update(logprob=12.5))))
    assert "above 0" in str(fails(CertError, backend, **how))


# --- broken connections and bodies ---


@pytest.mark.parametrize("fault", ["reset", "reset_midway", "truncated", "no_done"])
def test_a_cut_stream_is_an_error(serve, fault):
    """Half an answer must not pass for a whole one."""
    _, backend = serve(ok("Paris is the capital", fault=fault, after_tokens=2))
    told: list[TokenBlock] = []
    failure = fails(UpstreamConnectionError, backend, on_block=told.append)
    if fault != "reset":
        assert len(told) >= 1
        assert failure.context["told"] == sum(len(block.steps) for block in told)


@pytest.mark.parametrize("fault", ["reset", "reset_midway", "truncated"])
def test_a_cut_body_is_an_error(serve, fault):
    """The same for an answer that comes as a whole."""
    _, backend = serve(ok("Paris", fault=fault))
    fails(UpstreamConnectionError, backend)


@streamed
@pytest.mark.parametrize("fault", ["malformed", "error_inside"])
def test_malformed_answers_and_errors_inside_a_success(serve, how, fault):
    """A proxy that says 200 to everything must not hide a failure."""
    _, backend = serve(ok("Paris is", fault=fault))
    fails(UpstreamProtocolError, backend, **how)


@streamed
def test_another_kind_of_content_is_an_error(serve, how):
    """The login page of a proxy is no answer."""
    page = Reply(raw=b"<html>please log in</html>", headers={"content-type": "text/html"})
    server, backend = serve(page, page, policy=QUICK)
    before = len(server.requests)
    failure = fails(UpstreamProtocolError, backend, **how)
    assert "text/html" in str(failure)
    assert len(server.requests) == before + 1


@streamed
def test_a_huge_answer_is_not_read(serve, how):
    """A server must not be able to fill the memory of its client."""
    kind = "text/event-stream" if how else "application/json"
    body = b'{"choices": [{"text": "' + b"a" * 3_000_000
    _, backend = serve(
        Reply(raw=body, headers={"content-type": kind}), limits=ServerLimits(answer_bytes=1_000_000)
    )
    assert "larger than" in str(fails(UpstreamProtocolError, backend, **how))


@streamed
def test_a_huge_error_is_not_read(serve, how):
    """The same for what comes with an error."""
    huge = Reply(status=400, message="x" * 3_000_000)
    _, backend = serve(huge, limits=ServerLimits(answer_bytes=1_000_000))
    assert "larger than" in str(fails(UpstreamProtocolError, backend, **how))


@streamed
def test_a_compressed_answer_is_not_read(serve, how):
    """A kilobyte that unpacks to gigabytes is an old trick."""
    bomb = gzip.compress(b"0" * 10_000_000)
    server, backend = serve(Reply(raw=bomb, headers={"content-encoding": "gzip"}))
    assert "compresses" in str(fails(UpstreamProtocolError, backend, **how))
    assert server.requests[-1].headers["accept-encoding"] == "identity"


def test_a_redirect_is_not_followed_with_the_key(serve):
    """Another host would get the key."""
    with FaultServer(flavour="vllm") as other:
        away = Reply(status=307, headers={"location": other.url + "/v1/chat/completions"})
        _, backend = serve(away, key=KEY)
        assert "elsewhere" in str(fails(UpstreamRejectedError, backend))
        assert other.requests == ()


@streamed
def test_a_hang_ends_at_the_deadline(serve, how):
    """A server that is stuck must not hold its callers."""
    _, backend = serve(ok(fault="hang"))
    failure = fails(GenerationTimeoutError, backend, timeout=0.3, **how)
    assert failure.partial is None


def test_a_deadline_of_the_policy_ends_it_too(serve):
    """Without a time-out of his own a caller is bounded all the same."""
    policy = ResiliencePolicy(deadline_seconds=0.4, attempt_seconds=0.2, retry=RetryPolicy(attempts=9))
    _, backend = serve(*[ok(fault="hang")] * 9, policy=policy, dialect="vllm", probe=False)
    fails(DeadlineExceededError, backend)


def test_a_slow_stream_gives_back_what_came(serve):
    """What was generated until the deadline has been paid for."""
    _, backend = serve(ok("one two three four five", token_delay=0.2))
    failure = fails(GenerationTimeoutError, backend, timeout=0.75)
    assert failure.partial.text.startswith("one two")
    assert failure.partial.finish_reason == "timeout"
    assert failure.partial.stop_step is None


# --- retries, limits ---


def test_a_server_that_asks_to_wait_is_waited_for(serve):
    """A 429 is no failure of the request, and a broken moment is none either."""
    server, backend = serve(error(429, retry_after_ms=20), error(503), ok("Paris"), policy=QUICK)
    before = len(server.requests)
    assert ask(backend).text == "Paris"
    assert len(server.requests) == before + 3


def test_an_answer_that_was_lost_is_asked_for_again(serve):
    """A connection that breaks before anybody heard a token costs time only."""
    _, backend = serve(ok("Lyon", fault="truncated"), ok("Paris"), policy=QUICK)
    assert ask(backend).text == "Paris"


def test_no_second_attempt_once_tokens_were_told(serve):
    """A listener would hear the beginning of the answer twice."""
    server, backend = serve(
        ok("Lyon and more", fault="reset_midway", after_tokens=2), ok("Paris"), policy=QUICK
    )
    before, told = len(server.requests), list[TokenBlock]()
    fails(UpstreamConnectionError, backend, on_block=told.append)
    assert len(server.requests) == before + 1
    assert "".join(told[0].texts) == "Lyon"


def test_a_request_that_is_wrong_is_not_repeated(serve):
    """The same request would be refused again."""
    server, backend = serve(error(400, "temperature is out of range"), policy=QUICK)
    before = len(server.requests)
    assert "temperature is out of range" in str(fails(UpstreamRejectedError, backend))
    assert len(server.requests) == before + 1


@pytest.mark.parametrize(
    "message",
    ["This model's maximum context length is 4096 tokens, you asked for 9000",
     "the request exceeds the available context size"],
)  # fmt: skip
def test_a_prompt_that_is_too_long_is_named(serve, message):
    """The one error that a user can mend by himself."""
    _, backend = serve(error(400, message))
    fails(PromptTooLongError, backend)


def test_attempts_come_to_an_end(serve):
    """A server that stays broken is given up."""
    _, backend = serve(*[error(500)] * 5, policy=QUICK)
    assert isinstance(fails(RetriesExhaustedError, backend).__cause__, CertError)


class Empty:
    """A budget of which nothing is left."""

    def reserve(self, *_: Any) -> Any:
        raise BudgetExceededError("nothing is left")

    async def reserve_async(self, *_: Any) -> Any:
        self.reserve()


def test_the_breaker_and_the_budget_are_asked(serve):
    """Servers cost money, and a broken one needs a rest."""
    server, backend = serve(*[error(500)] * 5, breaker=CircuitBreaker("server"))
    for _ in range(5):
        fails(UpstreamUnavailableError, backend)
    asked = len(server.requests)
    fails(CircuitOpenError, backend)
    assert len(server.requests) == asked
    broke = OpenAIBackend(
        "scripted", server.url + "/v1", dialect="vllm", probe=False, budget=Empty(),
        demand=lambda _: Demand(micro_dollars=5), policy=ONE_TRY,
    )  # fmt: skip
    fails(BudgetExceededError, broke)
    assert len(server.requests) == asked
    broke.close()


def test_calls_are_told_of(serve):
    """Without events nobody sees what the servers do."""
    with captured_events() as events:
        _, backend = serve(ok("Paris"), error(400))
        ask(backend)
        fails(UpstreamRejectedError, backend)
    assert [event.outcome for event in events.of(CallFinished)][-2:] == ["ok", "upstream_rejected"]


# --- what is asked ---


@pytest.mark.parametrize("flavour", ["openai", "vllm", "sglang", "llama.cpp", "tgi"])
def test_requests_say_what_was_wanted(serve, flavour):
    """A setting that does not arrive changes the answer in silence."""
    server, backend = serve(flavour=flavour)
    ask(backend, 7, sampling=Sampling(temperature=0.5, top_p=0.9, seed=3))
    body = server.requests[-1].body
    assert body["messages"] == [{"role": "user", "content": CHAT[0].content}]
    assert (body["temperature"], body["top_p"], body["seed"], body["logprobs"]) == (0.5, 0.9, 3, True)
    assert body["max_completion_tokens" if flavour == "openai" else "max_tokens"] == 7
    assert body["top_logprobs"] == (6 if flavour == "vllm" else 5)
    ask(backend, 7)
    body = server.requests[-1].body
    assert body["temperature"] == 0
    assert "seed" not in body
    assert "stream" not in body


def test_what_a_server_does_not_take_is_refused_before_it_is_asked(serve):
    """An option that is dropped in silence, or an error of a stranger, helps nobody."""
    server, backend = serve(flavour="tgi")
    before = len(server.requests)
    assert fails(ConfigurationError, backend, k=6).context["max_top_logprobs"] == 5
    fails(ConfigurationError, backend, sampling=Sampling(temperature=1.0, top_k=3))
    fails(InputError, backend, prompt="plain text")
    fails(InputError, backend, prompt=())
    assert len(server.requests) == before
    _, llama = serve(flavour="llama.cpp")
    fails(ConfigurationError, llama, sampling=Sampling(temperature=1.0, seed=2**40))


def test_zero_candidates_are_possible(serve):
    """Whoever wants the chosen token alone need not pay for more."""
    for flavour in ("vllm", "llama.cpp", "openai"):
        _, backend = serve(flavour=flavour)
        steps = ask(backend, k=0).steps
        assert steps.top_logprobs.shape == (len(steps), 0)
        assert not np.isnan(steps.logprob).any()


def test_a_window_that_is_full_is_told_from_a_limit(serve):
    """An answer cut by the context window needs a shorter prompt, not more tokens."""
    _, backend = serve(replace(ok("one two"), finish="length"))
    assert ask(backend, 20).finish_reason == "context_window"


# --- scoring ---


def test_only_what_follows_the_prompt_is_scored(serve):
    """The prompt's own surprise says nothing about the text."""
    for flavour in ("vllm", "sglang"):
        server, backend = serve(flavour=flavour)
        scored = backend.score(ScoreRequest("The tower is", completion=" in Paris", top_logprobs=3))
        assert scored.tokens == (" in", " Paris")
        assert (scored.text, scored.finish_reason, scored.stop_step) == (" in Paris", "given", None)
        assert scored.logprobs_mode == ("raw" if flavour == "vllm" else "unknown")
        assert server.requests[-1].body["echo"] is True


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (ScoreRequest("The tow", completion="er is"), InputError),
        (ScoreRequest("", completion="a"), InputError),
        (ScoreRequest((), completion="a"), InputError),
        (ScoreRequest("a", token_ids=(1, 2)), InputError),
        (ScoreRequest(CHAT, token_ids=(1, 2)), InputError),
        (ScoreRequest(CHAT, completion="a", top_logprobs=50), ConfigurationError),
        (ScoreRequest("a", completion="b", top_logprobs=50), ConfigurationError),
    ],
)
def test_texts_that_cannot_be_scored_are_refused(serve, request_, kind):
    """A token that is half prompt and half text belongs to neither."""
    _, backend = serve()
    with pytest.raises(kind):
        backend.score(request_)


def position(*tokens: tuple[str, float]) -> dict[str, Any]:
    """One position of vLLM's ``prompt_logprobs``: the token that stands there, then the likeliest."""
    return {str(abs(hash(text))): {"logprob": p, "decoded_token": text} for text, p in tokens}


def prompted(*positions: Any) -> Callable[[Any], Any]:
    def rewrite(data: Any) -> Any:
        if "prompt_logprobs" in data:
            data["prompt_logprobs"] = [None, *positions]
        data["usage"]["prompt_tokens"] = 2
        return data

    return rewrite


HEAD = position(("<|user|>", -0.1))


def test_an_answer_to_messages_is_scored_without_the_messages(serve):
    """The question's own surprise says nothing about the answer, and the answer's ids are the model's own."""
    answer = (
        position((" in", -2.0), (" at", -0.5), (" on", -1.5)),
        position((" Paris", -0.2), (" it", -3.0)),
    )
    reply = replace(ok("x"), rewrite=prompted(HEAD, *answer))
    server, backend = serve(reply, reply)
    scored = backend.score(ScoreRequest(CHAT, completion=" in Paris", top_logprobs=2))
    assert scored.tokens == (" in", " Paris")
    assert scored.token_ids_known
    assert scored.steps.logprob.tolist() == [-2.0, -0.2]
    # The sampled token is listed besides the K likeliest, and takes nobody's place.
    assert scored.steps.top_logprobs.tolist() == [[-0.5, -1.5], [-0.2, -3.0]]
    opening, whole = (request.body for request in server.requests[-2:])
    assert opening["messages"] == whole["messages"][:-1]
    assert whole["messages"][-1] == {"role": "assistant", "content": " in Paris"}
    assert (whole["continue_final_message"], whole["add_generation_prompt"]) == (True, False)
    assert (whole["prompt_logprobs"], whole["max_tokens"]) == (2, 1)


def test_parts_of_characters_in_a_scored_answer_share_its_span(serve):
    """Snow that is three tokens has three numbers and one place in the text."""
    parts = [position(("\ufffd", -0.3)), position(("\ufffd", -0.2)), position(("", -0.1))]
    reply = replace(ok("x"), rewrite=prompted(HEAD, position(("a", -1.0)), *parts, position(("!", -0.4))))
    _, backend = serve(reply, reply)
    scored = backend.score(ScoreRequest(CHAT, completion="a☃!", top_logprobs=1))
    assert scored.text == "a☃!"
    assert scored.steps.logprob.tolist() == [-1.0, -0.3, -0.2, -0.1, -0.4]
    assert scored.tokens[0] == "a"
    assert scored.tokens[-1] == "!"


@pytest.mark.parametrize(
    ("rewrite", "kind", "says"),
    [
        (prompted(HEAD, position(("inParis", -1.0))), InputError, "chat template"),
        (prompted(HEAD, position(("> in", -1.0)), position((" Paris", -1.0))), InputError, "chat template"),
        (prompted(HEAD, None, position((" Paris", -1.0))), UpstreamProtocolError, "a part of the text"),
        (prompted(HEAD, {"x": {"logprob": -1.0, "decoded_token": "in"}}), UpstreamProtocolError, "no number"),
        (prompted(HEAD, position((" in Paris", 0.5))), UpstreamProtocolError, "above 0"),
        (lambda data: data | {"prompt_logprobs": None}, UpstreamProtocolError, "no log-probabilities"),
        (lambda data: data | {"prompt_logprobs": 5}, UpstreamProtocolError, "cannot be read"),
        (lambda data: data | {"usage": None}, UpstreamProtocolError, "how many tokens"),
        (lambda data: {"error": {"message": "x", "code": 500}}, UpstreamProtocolError, "something failed"),
    ],
)
def test_an_answer_that_the_server_reads_otherwise_is_not_scored(serve, rewrite, kind, says):
    """Numbers of the template's own tokens, or of another text, would be given as those of the answer."""
    reply = replace(ok("x"), rewrite=rewrite)
    _, backend = serve(reply, reply)
    with pytest.raises(kind, match=says):
        backend.score(ScoreRequest(CHAT, completion=" in Paris", top_logprobs=2))


# --- many at once, the end, and the key ---


def test_only_so_many_are_with_the_server(serve):
    """A server that is flooded answers nobody."""
    server, backend = serve(*[ok("Paris", delay=0.05)] * 12, limits=ServerLimits(concurrency=3))
    outcomes = backend.generate_batch([GenerationRequest(CHAT, top_logprobs=5)] * 12)
    assert [outcome.text for outcome in outcomes] == ["Paris"] * 12
    assert server.peak <= 3


def test_more_than_can_wait_are_refused(serve):
    """A queue without end ends the memory."""
    _, backend = serve(*[ok("Paris", delay=0.3)] * 9, limits=ServerLimits(concurrency=1, waiting=2))
    request = GenerationRequest(CHAT, top_logprobs=5)
    futures = [backend.begin(request) for _ in range(3)]
    with pytest.raises(OverloadedError) as raised:
        backend.begin(request)
    assert raised.value.retry_after
    assert [future.result(10).text for future in futures] == ["Paris"] * 3


def test_a_request_that_waits_can_be_withdrawn(serve):
    """Its place goes to the next, and the server never hears of it."""
    server, backend = serve(*[ok("Paris", delay=0.3)] * 9, limits=ServerLimits(concurrency=1))
    before, request = len(server.requests), GenerationRequest(CHAT, top_logprobs=5)
    first, second, third = (backend.begin(request) for _ in range(3))
    assert second.cancel()
    assert (first.result(10).text, third.result(10).text) == ("Paris", "Paris")
    assert len(server.requests) == before + 2


def test_a_deadline_counts_while_waiting(serve):
    """A caller waits for his answer, not for his turn."""
    _, backend = serve(ok("Paris", delay=1.0), limits=ServerLimits(concurrency=1))
    request, late = GenerationRequest(CHAT, top_logprobs=5), Control(timeout=0.2)
    first, second = backend.begin(request), backend.begin(request, late)
    with pytest.raises(GenerationTimeoutError):
        second.result(10)
    assert not first.done()
    assert first.result(10).text == "Paris"


def test_cancelling_hangs_up(serve):
    """A server that goes on generating costs money that nobody uses."""
    server, backend = serve(ok(fault="hang"), ok("Paris"), limits=ServerLimits(concurrency=1))
    before, control = len(server.requests), Control()
    future = backend.begin(GenerationRequest(CHAT, top_logprobs=5), control)
    assert server.wait_for_requests(before + 1)
    control.cancel()
    with pytest.raises(GenerationCancelledError):
        control.wait(future)
    assert ask(backend).text == "Paris"


def test_a_task_waits_without_blocking_its_loop(serve):
    """A service has one event loop for all of its callers."""
    _, backend = serve(*[ok("Paris", delay=0.1)] * 8)

    async def one() -> str:
        control = Control(timeout=10)
        return (
            await control.wait_async(backend.begin(GenerationRequest(CHAT, top_logprobs=5), control))
        ).text

    async def many() -> list[str]:
        return await asyncio.gather(*(one() for _ in range(8)))

    assert asyncio.run(many()) == ["Paris"] * 8


def test_closing_ends_what_is_on_its_way(serve):
    """A program that ends must not wait for a server that hangs."""
    server, backend = serve(ok(fault="hang"))
    before = len(server.requests)
    future = backend.begin(GenerationRequest(CHAT, top_logprobs=5))
    assert server.wait_for_requests(before + 1)
    threads = {thread.name for thread in threading.enumerate()}
    assert "cert-openai" in threads
    backend.close()
    with pytest.raises(CertError):
        future.result(10)
    with pytest.raises(ConfigurationError, match="closed"):
        ask(backend)


def test_a_listener_cannot_ask_the_same_backend(serve):
    """Waiting for one's own thread is waiting for ever."""
    _, backend = serve(ok("Paris"))
    with pytest.raises(ConfigurationError, match="listener"):
        ask(backend, on_block=lambda _: ask(backend))


def _ask_in_child(backend: OpenAIBackend, results: Any) -> None:
    try:
        ask(backend)
    except ConfigurationError as error:
        results.put(str(error))
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_thread_that_is_not_there(serve):
    """Its thread stays in the parent: the child would hang without a word."""
    _, backend = serve()
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_ask_in_child, args=(backend, results))
    child.start()
    assert "fork" in results.get()
    child.join(10)
    assert ask(backend).text


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500])
def test_neither_key_nor_prompt_shows_anywhere(serve, caplog, status):
    """Logs and error reports travel further than anybody thinks."""
    caplog.set_level(logging.DEBUG)
    quoted = f"wrong key {KEY} in request: {CHAT[0].content}"
    _, backend = serve(error(status, quoted), key=KEY)
    failure = fails(CertError, backend)
    shown = [
        repr(backend),
        repr(failure),
        str(failure),
        json.dumps(failure.to_dict()),
        repr(failure.__cause__ and ""),
    ]
    shown += [record.getMessage() for record in caplog.records]
    assert not any(KEY in text or "very-secret" in text for text in shown)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(backend)


def test_the_key_goes_to_the_server_and_nothing_goes_without_one(serve, monkeypatch):
    """A key of another service in the environment must not reach this one."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-from-the-environment")
    server, backend = serve(key=KEY)
    ask(backend)
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    server, backend = serve()
    ask(backend)
    assert "authorization" not in server.requests[-1].headers
    assert "environment" not in repr(server.requests)


def test_a_backend_that_nobody_holds_leaves_no_thread():
    """Every forgotten backend would leave a thread and its connections."""
    with FaultServer(flavour="vllm") as server:
        backend = OpenAIBackend("scripted", server.url + "/v1")
        backend.probe()
        thread = backend._loop._thread
        assert thread is not None
        del backend
        deadline = time.monotonic() + 10
        while thread.is_alive() and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert not thread.is_alive()
