"""Streams of tokens over sockets: events in order, callers who leave, the end of the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from typing import Any

import httpx2
import numpy as np
import pytest

from cert.backends.local import LocalBackend
from cert.services.hamiltonian.app import create_app
from cert.services.hamiltonian.options import HamiltonianOptions
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.labelled import LabelledData

QUESTION = "What is the capital of Velmora?"
LONG = {"prompt": QUESTION, "max_new_tokens": 400, "temperature": 3.0, "seed": 1, "detail": "summary"}


class Paced:
    """The reference model, which takes its time for each step and counts them."""

    def __init__(self) -> None:
        self.backend = LocalBackend.load("reference")
        self.steps, self.pause = 0, 0.0
        forward = self.backend.model.forward

        def paced(*arguments, **options):
            self.steps += 1
            time.sleep(self.pause)
            return forward(*arguments, **options)

        self.backend.model.forward = paced

    def rests(self) -> bool:
        """Whether no step is made any more."""
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            before = self.steps
            time.sleep(5 * self.pause + 0.05)
            if self.steps == before:
                return True
        return False


@pytest.fixture(scope="module")
def paced():
    made = Paced()
    yield made
    made.backend.close()


@pytest.fixture
def slow(paced):
    paced.pause = 0.03
    yield paced
    paced.pause = 0.0


def a_service(paced, serving, gate=None, **options):
    monitor = HamiltonianMonitor(backend=paced.backend, gate=gate)
    app = create_app(monitors={"reference": monitor}, options=HamiltonianOptions(**options))
    return serving(app)


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.replace("\r", "").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def a_gate(threshold: float) -> CalibratedGate:
    data = LabelledData(
        ids=tuple(map(str, range(60))),
        correct=np.ones(60, dtype=np.bool_),
        columns={"max_surprisal": np.full(60, threshold)},
        units=np.arange(60),
        groups=None,
    )
    return CalibratedGate(calibrate(data, goal="streaming", alpha=0.05, score="max_surprisal"))


def test_tokens_come_with_their_signals_and_the_whole_at_the_end(paced, serving):
    """A page that colours tokens as they come would colour others than the report."""
    running = a_service(paced, serving)
    with running.client() as client:
        answer = client.post("/v1/analyze/stream", json={"prompt": QUESTION, "max_new_tokens": 12})
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = events_of(answer.text)
        names = [name for name, _ in events]
        assert names == ["token"] * (len(names) - 1) + ["analysis"]
        record = events[-1][1]
        tokens = [data for name, data in events if name == "token"]
        assert "".join(token["text"] for token in tokens) == record["analysis"]["generated_text"]
        told = [token["signals"]["surprisal"] for token in tokens if token["signals"]]
        assert told == pytest.approx(record["analysis"]["tokens"]["surprisal"])
        assert client.get(f"/v1/analyses/{record['id']}").json()["source"] == "stream"


def test_the_alarm_is_told_once_where_it_is_raised(paced, serving):
    """An application could not stop reading where the gate says so."""
    running = a_service(paced, serving, gate=a_gate(0.01))
    with running.client() as client:
        events = events_of(
            client.post("/v1/analyze/stream", json={"prompt": QUESTION, "max_new_tokens": 8}).text
        )
        stopped = events_of(
            client.post("/v1/analyze/stream", json={"prompt": QUESTION, "early_stop": True}).text
        )
    [alarm] = [data for name, data in events if name == "alarm"]
    alarmed = [data["signals"]["step"] for name, data in events if name == "token" and data["alarm"]]
    assert alarm["token"] == alarmed[0]
    assert stopped[-1][0] == "analysis"
    assert stopped[-1][1]["analysis"]["early_stop"]["alarm_at"] == alarm["token"]


def test_the_first_token_does_not_wait_for_the_last(slow, serving):
    """A stream would be no stream."""
    running = a_service(slow, serving)
    started = time.monotonic()
    with running.client() as client, client.stream("POST", "/v1/analyze/stream", json=LONG) as answer:
        assert b"event: token" in next(answer.iter_bytes())
        assert time.monotonic() - started < 2.0
    assert slow.rests()


@pytest.mark.parametrize(
    "path", ["/v1/analyze/stream", "/v1/analyze", "/v1/analyze/batch", "/v1/chat/completions"]
)
def test_a_caller_who_leaves_ends_the_generation(slow, serving, path):
    """Work for nobody would keep others waiting."""
    running = a_service(slow, serving)
    body = {
        "/v1/analyze/batch": {key: value for key, value in LONG.items() if key != "prompt"}
        | {"prompts": [QUESTION]},
        "/v1/chat/completions": {
            "model": "reference",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 400,
            "temperature": 3.0,
            "seed": 1,
            "stream": True,
        },
    }.get(path, LONG)
    before = slow.steps
    with running.client() as client, contextlib.suppress(httpx2.ReadTimeout):
        timeout = httpx2.Timeout(5.0, read=0.2)
        with client.stream("POST", path, json=body, timeout=timeout) as answer:
            parts = answer.iter_bytes()
            for _ in range(3):
                next(parts)
    assert slow.steps > before
    assert slow.rests()
    assert slow.steps - before < 200


def test_time_that_is_over_ends_with_what_was_measured(slow, serving):
    """The caller would get nothing for the time that he waited."""
    running = a_service(slow, serving)
    with running.client() as client:
        events = events_of(client.post("/v1/analyze/stream", json=LONG | {"timeout_s": 0.4}).text)
        whole = client.post("/v1/analyze", json=LONG | {"timeout_s": 0.4, "seed": 2})
    assert events[-1][0] == "error"
    assert events[-1][1]["code"] == "generation_timeout"
    assert events[-1][1]["partial"]["analysis"]["finish_reason"] == "timeout"
    assert (whole.status_code, whole.json()["code"]) == (504, "generation_timeout")


def test_the_end_of_the_service_is_told_to_open_streams(slow, serving):
    """A caller could not tell an answer that was cut by a deployment from a whole one."""
    running = a_service(slow, serving)
    seen: list[tuple[str, dict[str, Any]]] = []

    def read() -> None:
        with running.client() as client:
            seen.extend(events_of(client.post("/v1/analyze/stream", json=LONG).text))

    reader = threading.Thread(target=read)
    before = slow.steps
    reader.start()
    while slow.steps < before + 5:
        time.sleep(0.01)
    running.server.should_exit = True
    reader.join(10.0)
    assert seen[-1][0] == "error"
    assert seen[-1][1]["code"] == "overloaded"
    assert seen[-1][1]["partial"]["analysis"]["generated_text"]


def test_callers_at_the_same_time_share_batches(slow, serving):
    """Each caller would wait for all before him."""
    running = a_service(slow, serving)

    async def many() -> list[int]:
        async with httpx2.AsyncClient(base_url=running.url, timeout=30.0) as client:
            bodies = [LONG | {"max_new_tokens": 20, "seed": seed} for seed in range(16)]
            answers = await asyncio.gather(*(client.post("/v1/analyze", json=body) for body in bodies))
            return [answer.status_code for answer in answers]

    before = slow.steps
    assert asyncio.run(many()) == [200] * 16
    assert slow.steps - before < 16 * 20 / 3
