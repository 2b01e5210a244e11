"""The pass-through under the unmodified client of OpenAI, over sockets."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from pydantic import SecretStr

from cert.backends.local import LocalBackend
from cert.services.hamiltonian.app import create_app
from cert.services.hamiltonian.options import HamiltonianOptions, UpstreamOptions
from cert.services.hamiltonian.passthrough.asking import read_asked
from cert.testing import FaultServer, Reply, error, ok
from cert.testing.replies import Token
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.labelled import Conditions, LabelledData
from cert.trajectory.types import TrajectoryConfig

CHAT = [{"role": "user", "content": "What is the capital of Velmora?"}]
KEY = "sk-operator-0123456789"
# With the size of the vocabulary known and no rule on entropy, sure answers pass and unsure ones fail.
STRICT = TrajectoryConfig(perplexity_threshold=2.0, entropy_threshold=None, surprise_threshold=None)
UNSURE = (Token("Orim", -3.0), Token(" or Cedar", -4.0))


@pytest.fixture(scope="module")
def backend():
    made = LocalBackend.load("reference")
    yield made
    made.close()


@pytest.fixture
def upstream():
    with FaultServer(api_key=KEY) as server:
        yield server


@pytest.fixture
def through(serving, client_of, backend, upstream):
    """The function that makes a client of a service in front of the scripted server."""

    def make(*, models=(), upstream_options=None, **options):
        engine = UpstreamOptions(
            upstream.url + "/v1",
            api_key=SecretStr(KEY),
            config=STRICT,
            models=models,
            **(upstream_options or {}),
        )
        made = HamiltonianOptions(upstream=engine, **options)
        app = create_app(monitors={"reference": HamiltonianMonitor(backend=backend)}, options=made)
        return client_of(serving(app))

    return make


@pytest.fixture
def client_of():
    """The function that makes OpenAI's client of a service; it is closed when the test ends."""
    with contextlib.ExitStack() as exits:

        def make(running):
            client = openai.OpenAI(base_url=running.url + "/v1", api_key="caller", max_retries=0)
            return exits.enter_context(client)

        yield make


def verdict_of(answer) -> dict[str, Any]:
    return (answer.model_extra or {})["cert"]


def test_an_answer_comes_with_its_verdict_and_as_the_engine_sent_it(through, upstream):
    """An application would see log-probabilities that it never asked for, or no verdict."""
    upstream.then([ok("Paris is it."), ok(UNSURE)])
    client = through()
    raw = client.chat.completions.with_raw_response.create(model="scripted", messages=CHAT)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Paris is it."
    assert answer.choices[0].logprobs is None
    assert raw.headers["x-cert-verdict"] == verdict_of(answer)["verdict"] == "pass"
    sent = upstream.requests[-1]
    assert (sent.body["logprobs"], sent.body["top_logprobs"]) == (True, 20)
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert "x-stainless-lang" not in sent.headers
    unsure = client.chat.completions.create(model="scripted", messages=CHAT)
    assert verdict_of(unsure)["verdict"] == "fail"
    # The analysis is there to be read.
    identifier = raw.headers["x-cert-analysis-id"]
    base = str(client.base_url).removesuffix("/v1/")
    kept = httpx2.get(f"{base}/v1/analyses/{identifier}").json()
    assert kept["analysis"]["generated_text"] == "Paris is it."
    assert kept["source"] == "chat"
    assert "127.0.0.1" not in json.dumps(kept["analysis"]["model"])


def test_who_asked_for_log_probabilities_gets_as_many(through, upstream):
    """An application that uses them would lose its own, or get more than it can read."""
    client = through()
    for count in (None, 0, 3):
        more = {} if count is None else {"top_logprobs": count}
        answer = client.chat.completions.create(model="scripted", messages=CHAT, logprobs=True, **more)
        entries = answer.choices[0].logprobs.content
        assert [len(entry.top_logprobs) for entry in entries] == [count or 0] * len(entries)
        assert upstream.requests[-1].body["top_logprobs"] == 20


def test_a_stream_ends_with_its_verdict(through, upstream):
    """A streaming application would have to ask a second time what its answer is worth."""
    client = through()
    for more in ({}, {"stream_options": {"include_usage": True}}):
        chunks = list(client.chat.completions.create(model="scripted", messages=CHAT, stream=True, **more))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Paris is the capital of France."
        assert all(c.choices[0].logprobs is None for c in chunks if c.choices)
        assert ["cert" in (c.model_extra or {}) for c in chunks] == [False] * (len(chunks) - 1) + [True]
        assert verdict_of(chunks[-1])["verdict"] == "pass"
        assert bool(chunks[-1].usage) == bool(more)
        # Without a wish for usage no chunk is without a choice: applications index the first.
        assert more or all(c.choices for c in chunks)


def test_tools_and_unknown_members_pass_untouched(through, upstream):
    """An agent behind the pass-through would lose its tools."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    upstream.then([Reply(arguments={"city": "Orim"}, finish="tool_calls")])
    answer = through().chat.completions.create(
        model="scripted",
        messages=CHAT,
        tools=tools,
        tool_choice="auto",
        extra_body={"of_tomorrow": {"a": [1.50, None]}},
    )
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Orim"})
    sent = upstream.requests[-1].body
    assert (sent["tools"], sent["of_tomorrow"]) == (tools, {"a": [1.50, None]})
    assert answer.choices[0].finish_reason == "tool_calls"
    assert verdict_of(answer)["verdict"] == "not_measured"


def two_choices(body):
    """An answer of two choices, the second unsure."""
    if "choices" not in body:
        return body
    [one] = body["choices"]
    other = json.loads(json.dumps(one)) | {"index": 1}
    for entry in ((other.get("logprobs") or {}).get("content")) or []:
        entry["logprob"] = -5.0
        entry["top_logprobs"] = [{"token": entry["token"], "logprob": -5.0, "bytes": None}]
    return body | {"choices": [one, other]}


@pytest.mark.parametrize("stream", [False, True])
def test_each_of_several_choices_has_a_verdict(through, upstream, stream):
    """The worst of several answers would hide behind the first."""
    upstream.then([Reply(tokens=ok("Paris is it.").tokens, rewrite=two_choices)])
    answer = through().chat.completions.create(model="scripted", messages=CHAT, n=2, stream=stream)
    cert = verdict_of(list(answer)[-1] if stream else answer)
    assert [choice["verdict"] for choice in cert["choices"]] == ["pass", "fail"]
    assert cert["verdict"] == "fail"
    assert upstream.requests[-1].body["n"] == 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_fails_is_held_back(through, upstream, stream):
    """A wrong answer would reach the application though the operator said that it must not."""
    upstream.then([ok(UNSURE), ok("Paris is it.")])
    client = through(mode="hold")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(model="scripted", messages=CHAT, stream=stream)
    assert caught.value.code == "answer_withheld"
    assert "Orim" not in caught.value.response.text
    assert caught.value.response.headers["x-cert-verdict"] == "fail"
    answer = client.chat.completions.create(model="scripted", messages=CHAT, stream=stream)
    parts = list(answer) if stream else [answer]
    text = "".join((c.choices[0].delta if stream else c.choices[0].message).content or "" for c in parts)
    assert text == "Paris is it."
    assert verdict_of(parts[-1])["action"] == "forwarded"


@pytest.mark.parametrize("stream", [False, True])
def test_a_held_answer_is_replaced_by_the_operators_text(through, upstream, stream):
    """An application that shows answers would show an error in place of the operator's words."""
    upstream.then([Reply(tokens=ok("Paris is it.").tokens, rewrite=two_choices)])
    client = through(mode="hold", replacement="I do not know.")
    answer = client.chat.completions.create(model="scripted", messages=CHAT, n=2, stream=stream)
    texts, finishes = {0: "", 1: ""}, {}
    parts = list(answer) if stream else [answer]
    for part in parts:
        for choice in part.choices:
            texts[choice.index] += (choice.delta if stream else choice.message).content or ""
            finishes[choice.index] = choice.finish_reason
    assert texts == {0: "Paris is it.", 1: "I do not know."}
    assert finishes == {0: "stop", 1: "content_filter"}
    assert verdict_of(parts[-1])["action"] == "replaced"


def without_logprobs(body):
    for choice in body.get("choices", ()):
        choice["logprobs"] = None
    return body


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_measured_goes_on_unless_it_must_not(through, upstream, stream):
    """An outage of the watching would be an outage of the application, or fail open against orders."""
    bare = Reply(tokens=ok("Paris is it.").tokens, rewrite=without_logprobs)
    upstream.then([bare])
    answer = through(mode="hold").chat.completions.create(model="scripted", messages=CHAT, stream=stream)
    assert verdict_of(list(answer)[-1] if stream else answer)["verdict"] == "not_measured"
    upstream.then([bare])
    with pytest.raises(openai.UnprocessableEntityError):
        through(mode="hold", fail_closed=True).chat.completions.create(
            model="scripted", messages=CHAT, stream=stream
        )


def test_an_engine_without_log_probabilities_is_asked_again_without(through, upstream):
    """A model that refuses log-probabilities could not be used behind the pass-through."""

    def choose(request):
        return error(400, "logprobs are not supported") if "logprobs" in request.body else ok("Fine.")

    upstream.then(choose)
    client = through()
    for expected in (3, 4):  # what was learned is kept
        answer = client.chat.completions.create(model="scripted", messages=CHAT)
        assert answer.choices[0].message.content == "Fine."
        assert verdict_of(answer)["verdict"] == "not_measured"
        assert len(upstream.requests) == expected
    # A caller's own wish that the engine refuses is his own error.
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="scripted", messages=CHAT, logprobs=True)


@pytest.mark.parametrize(
    ("status", "raised", "seen"),
    [
        (400, openai.BadRequestError, 400),
        (404, openai.NotFoundError, 404),
        (429, openai.RateLimitError, 429),
        (500, openai.InternalServerError, 500),
        (401, openai.InternalServerError, 502),
    ],
)
def test_errors_of_the_engine_keep_their_status_and_shape(through, upstream, status, raised, seen):
    """An application could not tell when to ask again; and the operator's key would be the caller's fault."""
    upstream.then([error(status, f"no: {KEY}", retry_after=3)])
    with pytest.raises(raised) as caught:
        through().chat.completions.create(model="scripted", messages=CHAT)
    assert caught.value.status_code == seen
    assert KEY not in caught.value.response.text
    assert set(caught.value.response.json()["error"]) == {"message", "type", "param", "code"}
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "3"


def test_a_stream_that_breaks_is_told_as_an_error(through, upstream):
    """Half an answer would be taken for a whole one."""
    upstream.then([ok("Paris is the capital.", fault="reset_midway", after_tokens=2)])
    with pytest.raises(openai.APIError):
        list(through().chat.completions.create(model="scripted", messages=CHAT, stream=True))


def test_an_answer_over_the_limit_ends(through, upstream):
    """An engine gone wild would fill this process's memory."""
    client = through(upstream_options={"most_bytes": 2_000})
    upstream.then([ok("word " * 2_000)])
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="scripted", messages=CHAT)
    assert caught.value.status_code == 502


def test_the_list_of_models_and_the_operators_allow_list(through, upstream):
    """Callers could run up bills on models that the operator did not allow."""
    assert [model.id for model in through().models.list()] == ["reference", "scripted"]
    client = through(models=("gpt-5",))
    assert [model.id for model in client.models.list()] == ["reference", "gpt-5"]
    asked = len(upstream.requests)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="scripted", messages=CHAT)
    assert len(upstream.requests) == asked


def test_an_engine_that_is_down_is_told_so(serving, client_of, backend):
    """Callers would wait for nothing, and the status would blame them."""
    engine = UpstreamOptions("http://127.0.0.1:9/v1")
    app = create_app(
        monitors={"reference": HamiltonianMonitor(backend=backend)},
        options=HamiltonianOptions(upstream=engine),
    )
    client = client_of(serving(app))
    seen = set()
    for _ in range(7):
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="scripted", messages=CHAT)
        seen.add(caught.value.status_code)
    assert seen == {502, 503}  # at first it is tried, then the breaker refuses


def test_a_certificate_decides_on_an_engines_answers(serving, client_of, upstream):
    """An operator's promise would hold for models in process alone."""
    data = LabelledData(
        ids=tuple(map(str, range(60))),
        correct=np.ones(60, dtype=np.bool_),
        columns={"max_surprisal": np.full(60, 2.0)},
        units=np.arange(60),
        groups=None,
        conditions=Conditions(
            model=f"openai:scripted@{upstream.url}/v1", backend="openai", logprobs_mode="raw"
        ),
    )
    gate = CalibratedGate(calibrate(data, goal="streaming", alpha=0.05, score="max_surprisal"))
    engine = UpstreamOptions(
        upstream.url + "/v1", api_key=SecretStr(KEY), models=("scripted",), gates={"scripted": gate}
    )
    running = serving(create_app(monitors={}, options=HamiltonianOptions(upstream=engine)))
    client = client_of(running)
    verdicts = []
    for tokens in (ok("Paris is it.").tokens, UNSURE):
        upstream.then(lambda request, tokens=tokens: Reply(tokens=tokens))
        answer = client.chat.completions.create(model="scripted", messages=CHAT)
        [choice] = verdict_of(answer)["choices"]
        verdicts.append((choice["verdict"], choice["calibrated"], choice["problem"]))
    assert verdicts == [("pass", True, None), ("fail", True, None)]
    with running.client() as plain:
        told = plain.post(f"/v1/analyses/{choice['analysis_id']}/label", json={"correct": True})
    assert told.status_code == 200
    assert running.app.state.cert.engine.watch_of("scripted", "anonymous").status.labels == 1


# --- models in process ---


@pytest.mark.parametrize("n", [1, 2])
def test_the_reference_model_answers_alike_whole_and_streamed(through, n):
    """The page and the API would show different answers to one question."""
    client = through()
    asked = {"model": "reference", "messages": CHAT, "n": n, "temperature": 1.0, "seed": 3, "max_tokens": 20}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    texts = dict.fromkeys(range(n), "")
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert chunks[-1].usage == whole.usage
    assert len(verdict_of(chunks[-1])["choices"]) == n
    for choice in whole.choices:
        assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
        assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)
    detailed = list(client.chat.completions.create(**asked, stream=True, logprobs=True, top_logprobs=2))
    entries = [e for c in detailed for one in c.choices if one.logprobs for e in one.logprobs.content]
    assert len(entries) == sum(len(choice.logprobs.content) for choice in whole.choices)


def test_what_the_reference_model_cannot_do_is_refused(through):
    """Tools would be left out in silence, and an agent would wonder why none is called."""
    client = through()
    tools = [{"type": "function", "function": {"name": "weather"}}]
    for more in ({"tools": tools}, {"stop": ["."]}, {"response_format": {"type": "json_object"}}):
        with pytest.raises(openai.UnprocessableEntityError):
            client.chat.completions.create(model="reference", messages=CHAT, **more)
    answer = client.chat.completions.create(
        model="reference", messages=CHAT, tools=tools, tool_choice="none", stop=None
    )
    assert answer.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_the_reference_model_is_held_back_too(serving, client_of, backend, stream):
    """Hold mode would hold for engines alone."""
    config = TrajectoryConfig(perplexity_threshold=1.000001, entropy_threshold=None, surprise_threshold=None)
    options = HamiltonianOptions(mode="hold", replacement="I do not know.")
    app = create_app(
        monitors={"reference": HamiltonianMonitor(backend=backend, config=config)}, options=options
    )
    client = client_of(serving(app))
    answer = client.chat.completions.create(model="reference", messages=CHAT, stream=stream)
    parts = list(answer) if stream else [answer]
    text = "".join((c.choices[0].delta if stream else c.choices[0].message).content or "" for c in parts)
    assert text == "I do not know."
    assert verdict_of(parts[-1])["verdict"] == "fail"


# --- bytes ---


def test_what_is_not_looked_at_stays_the_very_bytes():
    """A number would be rounded, or a name changed, on its way through."""
    body = (
        b'{"model":"m", "messages":[{"role":"user","content":"\\u00e4 \\/ x"}],'
        b'  "big":123456789012345678901.50}'
    )
    sent = read_asked(body).body_with(20)
    assert b'"messages":[{"role":"user","content":"\\u00e4 \\/ x"}]' in sent
    assert b'"big":123456789012345678901.50' in sent
    asked = read_asked(b'{"model":"m","messages":[{}],"logprobs":true,"top_logprobs":20}')
    assert asked.body_with(20) is asked.body
    assert read_asked(body).body_with(0) is body
