"""The scripted server, driven over real sockets by a client that knows nothing of it."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import pytest

from cert.testing import Account, FaultServer, Reply, Token, error, ok
from cert.testing.wire import Wire

TOKENS = (
    Token("Par", math.log(0.7), (("Lyon", math.log(0.2)), ("Rome", math.log(0.05)))),
    Token("is", math.log(0.4), (("!", math.log(0.6)),)),
)
ANTHROPIC = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Capital of France?"}]}
OPENAI = {"model": "m", "messages": [{"role": "user", "content": "Capital of France?"}]}
REQUESTS: dict[str, dict[str, Any]] = {"/v1/messages": ANTHROPIC, "/v1/chat/completions": OPENAI}
both = pytest.mark.parametrize("path", list(REQUESTS))


def post(server: FaultServer, path: str, timeout: float = 10.0, **more) -> httpx2.Response:
    return httpx2.post(server.url + path, json=REQUESTS[path] | more, timeout=timeout, trust_env=False)


def text_of(path: str, body) -> str:
    if path == "/v1/messages":
        return body["content"][0]["text"]
    return body["choices"][0]["message"]["content"]


def events_of(response: httpx2.Response) -> list[dict[str, Any]]:
    data = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in data if line != "[DONE]"]


@both
def test_an_answer_has_the_vendors_form(path):
    """A client written to the vendor's reference has to find every field that it reads."""
    with FaultServer(otherwise=ok("Paris it is.")) as server:
        response = post(server, path)
    body = response.json()
    assert response.status_code == 200
    assert text_of(path, body) == "Paris it is."
    if path == "/v1/messages":
        assert (body["type"], body["role"], body["stop_reason"]) == ("message", "assistant", "end_turn")
        assert body["usage"] | {"input_tokens": 5, "output_tokens": 3} == body["usage"]
        assert response.headers["request-id"] == "req_0"
    else:
        assert (body["object"], body["choices"][0]["finish_reason"]) == ("chat.completion", "stop")
        assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        assert body["choices"][0]["logprobs"] is None
        assert response.headers["x-request-id"] == "req_0"


def test_log_probabilities_are_those_of_the_script():
    """Signals computed over this server have to equal the ones computed from the script by hand."""
    with FaultServer(otherwise=ok(TOKENS)) as server:
        choice = post(server, "/v1/chat/completions", logprobs=True, top_logprobs=2).json()["choices"][0]
    content = choice["logprobs"]["content"]
    assert [token["token"] for token in content] == ["Par", "is"]
    assert [token["logprob"] for token in content] == [math.log(0.7), math.log(0.4)]
    assert bytes(content[0]["bytes"]).decode() == "Par"
    assert [top["token"] for top in content[0]["top_logprobs"]] == ["Par", "Lyon"]
    assert [top["token"] for top in content[1]["top_logprobs"]] == ["!", "is"]


def test_unscripted_tokens_have_a_distribution_that_sums_to_at_most_one():
    """A double whose probabilities sum to more than one would fail honest validation."""
    with FaultServer() as server:
        choice = post(server, "/v1/chat/completions", logprobs=True, top_logprobs=20).json()["choices"][0]
    for token in choice["logprobs"]["content"]:
        assert len(token["top_logprobs"]) == 20
        assert sum(math.exp(top["logprob"]) for top in token["top_logprobs"]) <= 1 + 1e-12


@both
def test_a_token_limit_cuts_the_answer_and_says_so(path):
    """Clients treat an answer that was cut differently: the reason has to be the vendor's."""
    with FaultServer(otherwise=ok("one two three")) as server:
        body = post(server, path, max_tokens=2).json()
    assert text_of(path, body) == "one two"
    if path == "/v1/messages":
        assert (body["stop_reason"], body["usage"]["output_tokens"]) == ("max_tokens", 2)
    else:
        assert (body["choices"][0]["finish_reason"], body["usage"]["completion_tokens"]) == ("length", 2)


def test_an_anthropic_stream_has_its_events_in_order():
    """The SDK's accumulator fails on any other order."""
    with FaultServer(otherwise=ok("one two")) as server:
        response = post(server, "/v1/messages", stream=True)
    assert response.headers["content-type"] == "text/event-stream"
    events = events_of(response)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"] == [
        "one",
        " two",
    ]
    assert events[-2]["usage"] == {"output_tokens": 2}
    assert response.text.count("event: ") == len(events)


def test_an_openai_stream_carries_log_probabilities_and_usage():
    """A live monitor reads each token's candidates from its chunk, and the cost from the last one."""
    with FaultServer(otherwise=ok(TOKENS)) as server:
        response = post(
            server,
            "/v1/chat/completions",
            stream=True,
            logprobs=True,
            top_logprobs=1,
            stream_options={"include_usage": True},
        )
    assert response.text.rstrip().endswith("data: [DONE]")
    first, *tokens, last, usage = events_of(response)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["delta"]["content"] for chunk in tokens] == ["Par", "is"]
    tops = [chunk["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["token"] for chunk in tokens]
    assert tops == ["Par", "!"]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["total_tokens"] == 7


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 429, 500, 503, 529])
def test_errors_have_the_vendors_body(path, status):
    """The mapping of errors is tested against this: a body of another form would test nothing."""
    with FaultServer([error(status, "as scripted")]) as server:
        response = post(server, path)
        again = post(server, path)
    assert response.status_code == status
    body = response.json()
    assert body["error"]["message"] == "as scripted"
    assert body["error"]["type"]
    if path == "/v1/messages":
        assert body["type"] == "error"
        known = {
            429: "rate_limit_error",
            529: "overloaded_error",
            500: "api_error",
            401: "authentication_error",
        }
        assert body["error"]["type"] == known.get(status, body["error"]["type"])
    assert again.status_code == 200, "after the script all is well"


def test_each_form_of_retry_after_is_sent():
    """Clients have to understand seconds, milliseconds and dates; each must really go over the wire."""
    script = [
        error(429, retry_after=2),
        error(429, retry_after=0.25),
        error(429, retry_after_ms=1500),
        error(503, retry_after_date=30),
        error(429, retry_after="soon", headers={"x-extra": "1"}),
    ]
    with FaultServer(script) as server:
        seconds, fraction, milliseconds, date, nonsense = (
            post(server, "/v1/messages").headers for _ in script
        )
    assert seconds["retry-after"] == "2"
    assert fraction["retry-after"] == "0.25"
    assert milliseconds["retry-after-ms"] == "1500"
    assert "retry-after" not in milliseconds
    assert 29 < parsedate_to_datetime(date["retry-after"]).timestamp() - time.time() <= 31
    assert (nonsense["retry-after"], nonsense["x-extra"]) == ("soon", "1")


@both
def test_a_reset_before_the_answer_is_a_reset(path):
    """A connection that breaks must look to the client as it does in the wild, and cost nothing."""
    with FaultServer([ok(fault="reset")]) as server:
        with pytest.raises(httpx2.ReadError):
            post(server, path)
        assert server.account == Account()
        assert post(server, path).status_code == 200


@both
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["truncated", "reset_midway"])
def test_a_body_that_ends_early_is_noticed_and_charged(path, fault, stream):
    """Half an answer must not pass for a whole one, and the vendor bills it all the same."""
    with FaultServer([ok("one two three", fault=fault)], input_price=3, output_price=15) as server:
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
            post(server, path, stream=stream)
        assert server.account == Account(1, 5, 3, 5 * 3 + 3 * 15)


def test_tokens_before_a_fault_arrive():
    """A monitor has to show what came before the break."""
    seen: list[str] = []

    def consume(url: str) -> None:
        with httpx2.stream("POST", url + "/v1/messages", json=ANTHROPIC | {"stream": True}) as response:
            for line in response.iter_lines():
                if "text_delta" in line:
                    seen.extend([json.loads(line[6:])["delta"]["text"]])

    with FaultServer([ok("one two three", fault="reset_midway", after_tokens=2)]) as server:
        with pytest.raises(httpx2.ReadError):
            consume(server.url)
        assert seen == ["one", " two"]
        assert server.account.output_tokens == 3


@both
def test_an_error_inside_a_success_is_sent_as_such(path):
    """Status 200 with an error in it must reach the client, in a body and in a stream, and costs nothing."""
    with FaultServer(otherwise=Reply(tokens=TOKENS, fault="error_inside", message="inside")) as server:
        plain = post(server, path)
        streamed = post(server, path, stream=True)
        assert server.account == Account()
    assert plain.status_code == streamed.status_code == 200
    assert plain.json()["error"]["message"] == "inside"
    assert events_of(streamed)[-1]["error"]["message"] == "inside"


@both
@pytest.mark.parametrize("stream", [False, True])
def test_malformed_json_is_malformed(path, stream):
    """A proxy's half page must be told apart from an answer; the transport itself is in order."""
    with FaultServer([ok(fault="malformed")]) as server:
        response = post(server, path, stream=stream)
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        events_of(response) if stream else response.json()


def test_delays_and_hangs_make_clients_time_out():
    """A time-out has to be tested against a server that really is late; it works on, and charges."""
    with FaultServer([ok("a b", delay=0.3), ok("a b", fault="hang")]) as server:
        with pytest.raises(httpx2.ReadTimeout):
            post(server, "/v1/messages", timeout=0.05)
        with pytest.raises(httpx2.ReadTimeout):
            post(server, "/v1/messages", timeout=0.05)
        started = time.monotonic()
        while server.account.charged_requests < 2 and time.monotonic() - started < 5:
            time.sleep(0.01)
        assert server.account.output_tokens == 4


def test_slow_tokens_come_one_by_one():
    """Time to the first token can be measured only if the first one is not held back."""
    with FaultServer([ok("a b c", token_delay=0.05)]) as server:
        body = ANTHROPIC | {"stream": True}
        with httpx2.stream("POST", server.url + "/v1/messages", json=body, trust_env=False) as response:
            times = [time.monotonic() for line in response.iter_lines() if "text_delta" in line]
    assert len(times) == 3
    assert times[-1] - times[0] > 0.08


def test_requests_are_kept_with_their_order_and_time():
    """Backoff is proved by the times at which the attempts arrived."""
    times = iter([10.0, 12.5])
    with FaultServer(clock=lambda: next(times)) as server:
        for path, body in REQUESTS.items():
            httpx2.post(server.url + path, json=body, headers={"X-Api-Key": "k"}, trust_env=False)
        assert server.wait_for_requests(2)
        assert not server.wait_for_requests(3, timeout=0.01)
        first, second = server.requests
    assert (first.number, first.at, first.dialect, first.path) == (0, 10.0, "anthropic", "/v1/messages")
    assert (second.number, second.at, second.dialect) == (1, 12.5, "openai")
    assert first.body == ANTHROPIC
    assert first.headers["x-api-key"] == "k"


def test_a_function_chooses_the_reply():
    """A fault that depends on the request (every call of one agent fails) has to be scriptable."""

    def script(request):
        return error(529) if request.body["model"] == "bad" else ok()

    with FaultServer(script) as server:
        statuses = [post(server, "/v1/messages", model=model).status_code for model in ("bad", "good", "bad")]
    assert statuses == [529, 200, 529]


def test_a_script_that_raises_is_told_of():
    """A mistake in a test's own script must not pass for the fault under test."""

    def script(request):
        raise KeyError("typo")

    with pytest.raises(RuntimeError, match="script"):  # noqa: SIM117
        with FaultServer(script) as server:
            assert post(server, "/v1/messages").status_code == 500


@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        ("/v1/messages", {"max_tokens": None}, "max_tokens"),
        ("/v1/messages", {"max_tokens": True}, "max_tokens"),
        ("/v1/messages", {"messages": []}, "messages"),
        ("/v1/messages", {"model": ""}, "model"),
        ("/v1/chat/completions", {"top_logprobs": 5}, "logprobs"),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 21}, "20"),
        ("/v1/chat/completions", {"messages": None}, "messages"),
    ],
)
def test_a_wrong_request_is_refused_as_the_vendor_would(path, change, told):
    """A client that forgets a required field must fail here, not in production."""
    with FaultServer() as server:
        response = post(server, path, **change)
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]
    assert server.account == Account()


def test_other_paths_and_bodies_are_refused():
    """A wrong base address has to fail as it does at the vendor's."""
    with FaultServer() as server:
        assert httpx2.get(server.url + "/v1/messages", trust_env=False).status_code == 404
        assert httpx2.post(server.url + "/v2", json={}, trust_env=False).status_code == 404
        assert httpx2.post(server.url + "/v1/messages", content=b"{", trust_env=False).status_code == 400
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(10) == b""
        assert server.requests[-1].body is None


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/v1/messages", {"X-Api-Key": "k"}),
        ("/v1/messages", {"Authorization": "Bearer k"}),
        ("/v1/chat/completions", {"Authorization": "Bearer k"}),
    ],
)
def test_a_key_can_be_required(path, header):
    """An adapter that forgets to send the key must not pass its tests."""
    with FaultServer(api_key="k") as server:
        assert post(server, path).status_code == 401
        response = httpx2.post(server.url + path, json=REQUESTS[path], headers=header, trust_env=False)
    assert response.status_code == 200


def test_a_chunked_request_is_read():
    """Clients that stream their bodies have to work as well."""
    whole = json.dumps(ANTHROPIC).encode()
    with FaultServer() as server:
        response = httpx2.post(
            server.url + "/v1/messages", content=iter([whole[:7], whole[7:]]), trust_env=False
        )
        assert response.status_code == 200
        assert server.requests[0].body == ANTHROPIC


def test_many_clients_at_once_are_served_and_counted():
    """Three hundred concurrent calls must each get their reply, and the account must be exact."""

    async def scenario(url: str) -> list[int]:
        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(limits=limits, timeout=30, trust_env=False) as client:
            calls = (client.post(url + "/v1/messages", json=ANTHROPIC) for _ in range(300))
            return [response.status_code for response in await asyncio.gather(*calls)]

    script = [error(529) if index % 3 == 0 else ok("a b", delay=0.002) for index in range(300)]
    with FaultServer(script) as server:
        statuses = asyncio.run(scenario(server.url))
        assert statuses.count(529) == 100
        assert statuses.count(200) == 200
        assert server.account == Account(200, 1000, 400, 200 * (5 * 3 + 2 * 15))
        assert 1 < server.peak <= 50


def test_it_stops_with_clients_still_waiting(caplog):
    """A test that ends must end its server, whatever hangs, and leave no complaint of asyncio behind."""
    server = FaultServer([ok(fault="hang")]).start()
    failures: list[Exception] = []

    def call() -> None:
        try:
            post(server, "/v1/messages")
        except httpx2.HTTPError as failure:
            failures.append(failure)

    thread = threading.Thread(target=call)
    thread.start()
    assert server.wait_for_requests(1)
    started = time.monotonic()
    server.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert len(failures) == 1
    assert time.monotonic() - started < 5
    server.stop()
    assert not caplog.records


def test_it_stops_while_a_client_does_not_read_or_is_idle(caplog):
    """Neither a full socket buffer nor a kept-alive connection may hold the end of a test."""
    huge = ok((Token("x" * 20_000_000, 0.0, ()),))
    server = FaultServer([huge]).start()
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    body = json.dumps(ANTHROPIC).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(address) as deaf, httpx2.Client(trust_env=False) as idle:
        deaf.sendall(head + body)
        assert server.wait_for_requests(1)
        assert idle.post(server.url + "/v1/messages", json=ANTHROPIC).status_code == 200
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 5
    assert not caplog.records


def test_a_connection_that_is_closing_while_the_server_stops_is_no_error():
    """Noise of asyncio in every test's log hides the line that matters; 3.11 logs cancelled handlers."""

    class Closing:
        def close(self) -> None: ...

        async def wait_closed(self) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        wire = Wire(asyncio.StreamReader(), Closing())  # type: ignore[arg-type]  # enough of one
        task = asyncio.create_task(wire.close())
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(scenario())


# --- the habits of other servers ---


def chat_of(flavour: str, reply: Reply, **more) -> Any:
    with FaultServer(flavour=flavour, otherwise=reply) as server:
        body = OPENAI | {"logprobs": True, "top_logprobs": 2} | more
        return httpx2.post(server.url + "/v1/chat/completions", json=body, trust_env=False).json()


def entries_of(body: Any) -> list[Any]:
    return body["choices"][0]["logprobs"]["content"]


ODD = ok((Token("odd", -5.0, (("a", -0.5), ("b", -1.5), ("c", -3.0))),))


@pytest.mark.parametrize(
    ("flavour", "listed"),
    [("openai", ["a", "b"]), ("vllm", ["odd", "a"]), ("sglang", ["a", "b"]), ("llama.cpp", ["a", "b"])],
)
def test_an_unlikely_token_is_listed_as_each_server_does(flavour, listed):
    """What a reader makes of it is tested against these habits."""
    assert [one["token"] for one in entries_of(chat_of(flavour, ODD))[0]["top_logprobs"]] == listed


@pytest.mark.parametrize(
    ("flavour", "stop"),
    [("openai", None), ("vllm", "<|end|>"), ("sglang", "<|end|>"), ("llama.cpp", ""), ("tgi", "<|end|>")],
)
def test_the_stop_token_is_listed_as_each_server_does(flavour, stop):
    """The same, for the token that is no part of the text."""
    body = chat_of(flavour, ok("Paris"))
    listed = [one["token"] for one in entries_of(body)]
    assert listed == ["Paris", *([] if stop is None else [stop])]
    assert body["choices"][0]["message"]["content"] == "Paris"
    assert body["usage"]["completion_tokens"] == len(listed)


def test_given_text_is_scored_with_known_tokens():
    """Scores must be those that a generation of the same tokens had."""
    known = Token(" is", -0.7, (("x", -1.0),))
    asked = {"model": "m", "prompt": "Paris is it", "echo": True, "max_tokens": 0, "logprobs": 1}
    with FaultServer(flavour="vllm", known=[known]) as server:
        body = httpx2.post(server.url + "/v1/completions", json=asked, trust_env=False).json()
    columns = body["choices"][0]["logprobs"]
    assert body["choices"][0]["text"] == "Paris is it"
    assert columns["tokens"] == ["Paris", " is", " it"]
    assert columns["token_logprobs"][:2] == [None, -0.7]


def test_processed_numbers_follow_the_temperature():
    """A probe for raw numbers needs a server that shows others."""
    raw = entries_of(chat_of("vllm", ok("Paris"), temperature=2.0))[0]["logprob"]
    shown = entries_of(chat_of("sglang", ok("Paris"), temperature=2.0))[0]["logprob"]
    assert raw == pytest.approx(math.log(0.9))
    assert shown < raw


def test_models_are_listed_and_another_script_can_follow():
    """A client that looks first finds the model, and a test can go on from there."""
    with FaultServer([error(500)], flavour="vllm") as server:
        card = httpx2.get(server.url + "/v1/models", trust_env=False).json()["data"][0]
        assert (card["id"], card["owned_by"]) == ("scripted", "vllm")
        server.then([ok("Rome")])
        assert text_of("/v1/chat/completions", post(server, "/v1/chat/completions").json()) == "Rome"


def test_answers_can_be_rewritten_or_raw():
    """Whatever a real server once sent can be sent again."""
    changed = Reply(tokens=ok("x").tokens, rewrite=lambda body: body | {"object": "odd"})
    with FaultServer([changed, Reply(raw=b"not JSON")]) as server:
        assert post(server, "/v1/chat/completions").json()["object"] == "odd"
        assert post(server, "/v1/chat/completions").content == b"not JSON"
