"""The Python client against a live service on the reference model."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.services.conftest import Running, running

from cert.client import (
    AsyncHamiltonianClient,
    ConnectionFailedError,
    Finished,
    HamiltonianClient,
    ProblemError,
    ProtocolError,
    RetryPolicy,
    Token,
    UnauthorizedError,
)
from cert.core.config import ServiceSettings, Settings
from cert.services.common.keys import KeyFile, new_key
from cert.services.hamiltonian.app import create_app

PROMPT = "The birth city of"
CHAT = [{"role": "user", "content": "Where was Nobody Known born?"}]


@pytest.fixture(scope="module")
def live() -> Iterator[Running]:
    with running(create_app(Settings())) as service:
        yield service


@pytest.fixture
def client(live) -> Iterator[HamiltonianClient]:
    with HamiltonianClient(live.url) as client:
        yield client


def test_an_answer_is_analysed_listed_reported_and_labelled(client):
    """The whole way of an answer through the service, as an application goes it."""
    answer = client.analyze(PROMPT, max_new_tokens=5, detail="full")
    assert answer.verdict in ("pass", "fail")
    assert answer.passed is (answer.verdict == "pass")
    assert len(answer.analysis["tokens"]["id"]) == answer.analysis["signals"]["n_tokens"]
    assert answer.id in [one.id for one in client.analyses()]
    assert client.analysis(answer.id).text == answer.text
    assert b"<html" in client.report(answer.id)
    assert client.label(answer.id, True).label is True
    assert client.calibrations() == []


def test_a_chat_a_batch_and_a_given_text(client):
    """Each has a route of its own."""
    assert client.analyze(CHAT, max_new_tokens=4).text
    batch = client.analyze_batch([PROMPT, "x" * 20_000], max_new_tokens=3)
    assert batch.failed == 1
    assert batch.items[0].record is not None
    assert batch.items[1].error is not None
    assert client.score(PROMPT, " Ada is London").analysis["signals"]["n_tokens"] > 1


def test_a_stream_has_tokens_and_ends_with_the_whole(client):
    """What is shown while it comes is what is kept."""
    *tokens, last = client.stream(PROMPT, max_new_tokens=6, temperature=0.8, seed=1)
    assert isinstance(last, Finished)
    assert all(isinstance(token, Token) for token in tokens)
    assert (
        "".join(token.text for token in tokens if isinstance(token, Token)).strip()
        == last.analysis.text.strip()
    )


def test_pages_are_asked_for_as_they_are_needed(client):
    """Nobody sees the hundred-and-first."""
    for seed in range(5):
        client.analyze(PROMPT, max_new_tokens=1, temperature=1.0, seed=seed)
    ids = [one.id for one in itertools.islice(client.analyses(limit=2), 5)]
    assert len(set(ids)) == 5


def test_tasks_ask_at_the_same_time(live):
    """Fifty questions of an application do not wait for one another."""

    async def ask() -> list[str]:
        async with AsyncHamiltonianClient(live.url) as client:
            found = await asyncio.gather(
                *(client.analyze(PROMPT, max_new_tokens=3, temperature=1.0, seed=seed) for seed in range(8))
            )
            events = [event async for event in client.stream(PROMPT, max_new_tokens=2)]
            listed = [one.id async for one in client.analyses(limit=3)]
            assert isinstance(events[-1], Finished)
            assert (await client.analysis(found[0].id)).id in listed
        return [one.id for one in found]

    assert len(set(asyncio.run(ask()))) == 8


def test_a_service_that_says_no_is_an_error_with_its_reason(client):
    """The caller could not tell a wrong option from an outage."""
    with pytest.raises(ProblemError) as caught:
        client.analyze(PROMPT, temperature=-1.0)
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
    with pytest.raises(ProblemError) as caught:
        client.analysis("../../etc/passwd")
    assert caught.value.status == 404
    assert caught.value.correlation_id


def test_a_stream_that_is_left_ends_the_generation(client, live):
    """It would go on for nobody."""
    events = client.stream(PROMPT, max_new_tokens=400, temperature=1.5, seed=3)
    next(events)
    events.close()
    deadline = time.monotonic() + 10
    busy = True
    while busy and time.monotonic() < deadline:
        samples = [s for f in live.app.state.base.registry.collect() for s in f.samples]
        busy = any(s.name == "cert_http_requests_in_flight" and s.value for s in samples)
        time.sleep(0.05)
    assert not busy


def test_a_wrong_key_is_told_and_no_key_is_shown(tmp_path, serving):
    """Keys in logs are keys of everybody who reads logs."""
    file = KeyFile(tmp_path / "keys.json")
    secret, key = new_key("acme")
    file.write((key,))
    live = serving(create_app(Settings(service=ServiceSettings(api_keys_file=file.path))))
    with HamiltonianClient(live.url, secret) as client:
        assert list(client.analyses()) == []
        assert secret not in repr(client)
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    with HamiltonianClient(live.url, wrong) as client, pytest.raises(UnauthorizedError) as caught:
        client.analyze(PROMPT)
    assert wrong not in str(caught.value) + repr(caught.value)


def scripted(*answers: httpx2.Response | Exception) -> tuple[HamiltonianClient, list[httpx2.Request]]:
    """A client of a service that answers in this order."""
    asked: list[httpx2.Request] = []
    left = list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    retry = RetryPolicy(attempts=3, first_seconds=0.0)
    return HamiltonianClient("http://service", transport=httpx2.MockTransport(answer), retry=retry), asked


EMPTY: dict[str, object] = {"items": [], "next": None}


def test_what_was_refused_or_broke_is_tried_again():
    """A rolling restart of the service would fail the callers of that second."""
    busy = httpx2.Response(503, headers={"Retry-After": "0"})
    client, asked = scripted(busy, httpx2.ConnectError("no"), httpx2.Response(200, json=EMPTY))
    assert list(client.analyses()) == []
    assert len(asked) == 3


def test_what_may_not_happen_twice_is_not_repeated():
    """A label would count twice."""
    client, asked = scripted(httpx2.ReadError("broke"), httpx2.Response(200, json=EMPTY))
    with pytest.raises(ConnectionFailedError):
        client.label("an_1", True)
    assert len(asked) == 1


@pytest.mark.parametrize(("status", "after"), [(422, None), (401, None), (500, None), (503, "3600")])
def test_what_would_not_get_better_is_not_tried_again(status, after):
    """The caller would wait for nothing, or for an hour."""
    headers = {} if after is None else {"Retry-After": after}
    client, asked = scripted(httpx2.Response(status, headers=headers, text="<html>"))
    with pytest.raises(ProblemError) as caught:
        list(client.analyses())
    assert caught.value.status == status
    assert len(asked) == 1


@pytest.mark.parametrize("content", [b"", b"<html>", b"{", b"[]", b'{"items": 5}', b"[" * 100_000])
def test_an_answer_of_something_else_is_told_as_such(content):
    """A proxy's page would become an attribute error far from its cause."""
    client, _ = scripted(httpx2.Response(200, content=content))
    with pytest.raises(ProtocolError):
        list(client.analyses())


@pytest.mark.parametrize("body", [
    b'event: token\ndata: {"text": "a", "token_id": 1, "alarm": false}\n\n',
    b'event: surprise\ndata: {}\n\n', b'event: token\ndata: {\n\n',
])  # fmt: skip
def test_half_a_stream_is_no_whole_one(body):
    """Half an answer would be taken for the answer."""
    headers = {"Content-Type": "text/event-stream"}
    client, _ = scripted(httpx2.Response(200, headers=headers, content=body))
    with pytest.raises((ConnectionFailedError, ProtocolError)):
        list(client.stream(PROMPT))


def test_fields_of_a_newer_service_are_left_aside():
    """Every new field of the service would break every client."""
    client, _ = scripted(httpx2.Response(200, json=EMPTY | {"more": {"a": 1}}))
    assert list(client.analyses()) == []


def test_the_client_imports_nothing_else_of_cert():
    """Whoever only asks a service would install and load a framework."""
    program = (
        "import sys, cert.client; "
        "print([m for m in sys.modules if m.startswith('cert.') and not m.startswith('cert.client')"
        " and m != 'cert._version'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_event_stream_that_breaks_off_is_an_error(live):
    """The same over a real connection that the service's end cuts."""
    with contextlib.suppress(ConnectionFailedError), HamiltonianClient("http://127.0.0.1:9") as nowhere:
        nowhere.analyze(PROMPT)
        pytest.fail("there is nobody")


def test_the_program_of_the_documentation_runs(live, capsys):
    """What people copy first has to work."""
    page = (Path(__file__).parents[2] / "docs/how-to/use-the-clients.md").read_text(encoding="utf-8")
    program = page.partition("```py\n")[2].partition("```")[0]
    exec(program.replace("http://localhost:8000", live.url).replace(', api_key="cert_…"', ""), {})
    told = capsys.readouterr().out
    assert "pass" in told or "fail" in told
