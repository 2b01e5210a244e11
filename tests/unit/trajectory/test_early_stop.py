"""Early stop: the generation ends at the gate's alarm, says so, and is never taken for the whole answer."""

import asyncio
import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cert.backends.local import LocalBackend  # noqa: E402
from cert.core.errors import ConfigurationError  # noqa: E402
from cert.core.events import CacheAsked, EventHub  # noqa: E402
from cert.testing import FaultServer, captured_events, ok  # noqa: E402
from cert.trajectory import HamiltonianMonitor  # noqa: E402
from cert.trajectory.calibration.scores import SCORES, path_of  # noqa: E402

PROMPT = "The birth city of"
LIMIT = 40
RISING = sorted(name for name, score in SCORES.items() if score.path is not None)


@pytest.fixture(scope="module")
def backend():
    """The reference model with weights that mean nothing any more: it goes on until the limit."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cert.reference import weights

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(weights.path()).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    backend = LocalBackend(model, AutoTokenizer.from_pretrained(weights.path()), name="random")
    yield backend
    backend.close()


def monitor_of(backend, gate=None, **options):
    return HamiltonianMonitor(backend=backend, gate=gate, **options)


@pytest.fixture(scope="module")
def whole(backend):
    """The same answer without a gate."""
    return monitor_of(backend).analyze(PROMPT, max_new_tokens=LIMIT)


def middle(whole, name, share=0.5):
    """A threshold that the score passes somewhere in the middle, and the token at which it does."""
    path = path_of(SCORES[name]).running(whole.step, whole.running)
    threshold = float(path[int(len(path) * share)])
    above = [token for token, value in enumerate(path) if value > threshold]
    return threshold, above[0] if above else None


@pytest.mark.parametrize("name", RISING)
def test_the_generation_ends_at_the_token_of_the_alarm(gate_at, backend, whole, name):
    """What a person pays for after the alarm is waste, and what is cut before it is an answer lost."""
    threshold, token = middle(whole, name, 0.3)
    assert token is not None
    stopped = monitor_of(backend, gate_at(threshold, score=name)).analyze(
        PROMPT, max_new_tokens=LIMIT, early_stop=True
    )
    assert stopped.generation.finish_reason == "early_stop"
    assert stopped.generation.steps.token_ids.tolist() == (
        whole.generation.steps.token_ids[: token + 1].tolist()
    )
    assert (stopped.verdict, stopped.decision.checks[0].token) == ("fail", token)
    stop = stopped.early_stop
    assert (stop.alarm_at, stop.generated, stop.delay) == (token, token + 1, 0)
    assert stop.saved_at_most == LIMIT - token - 1
    assert stopped.to_dict()["early_stop"] == {
        "alarm_at": token, "generated": token + 1, "max_new_tokens": LIMIT,
        "delay": 0, "saved_at_most": LIMIT - token - 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", RISING)
def test_without_an_alarm_the_answer_is_the_same_as_ever(gate_at, backend, whole, name):
    """Watching for an alarm must not change a single token, nor a bit of a signal."""
    gate = gate_at(math.inf if name == "max_token_perplexity" else 1e6, score=name)
    analysis = monitor_of(backend, gate).analyze(PROMPT, max_new_tokens=LIMIT, early_stop=True)
    assert analysis.generation.steps.token_ids.tolist() == whole.generation.steps.token_ids.tolist()
    assert (analysis.signals, analysis.early_stop) == (whole.signals, None)
    assert (analysis.verdict, analysis.generation.finish_reason) == ("pass", "length")


def test_streams_batches_and_tasks_stop_at_the_same_token(gate_at, backend, whole):
    """However the answer is asked for, the gate is one."""
    threshold, token = middle(whole, "msp")
    monitor = monitor_of(backend, gate_at(threshold))
    options = {"max_new_tokens": LIMIT, "early_stop": True}
    with monitor.stream(PROMPT, **options) as stream:
        told = list(stream)

    async def asynchronous():
        tokens = monitor.stream_async(PROMPT, **options)
        async for _ in tokens:
            pass
        batch = await monitor.analyze_batch_async([PROMPT], use_cache=False, **options)
        return [tokens.analysis, await monitor.analyze_async(PROMPT, use_cache=False, **options), *batch]

    batch = monitor.analyze_batch([PROMPT, PROMPT + " all"], use_cache=False, **options)
    for analysis in [stream.analysis, batch[0], *asyncio.run(asynchronous())]:
        assert analysis.early_stop.alarm_at == token
        assert analysis.generation_steps == token + 1
    assert [one.alarm for one in told if one.metrics] == [False] * token + [True]
    assert "".join(one.text for one in told) == stream.analysis.generated_text


def test_a_stream_shows_the_alarm_without_stopping_at_it(gate_at, backend, whole):
    """Who wants to see the alarm and the rest of the answer too, can."""
    threshold, token = middle(whole, "max_cusum", 0.3)
    with monitor_of(backend, gate_at(threshold, score="max_cusum")).stream(
        PROMPT, max_new_tokens=LIMIT
    ) as stream:
        told = [one.alarm for one in stream if one.metrics]
    assert told == [False] * token + [True] * (LIMIT - token)
    assert (stream.analysis.early_stop, stream.analysis.verdict) == (None, "fail")
    with monitor_of(backend).stream(PROMPT, max_new_tokens=2) as stream:
        assert {one.alarm for one in stream} == {None}


def test_what_was_stopped_is_never_kept_as_the_answer(gate_at, backend, whole):
    """A part of an answer in the cache would be handed to those who ask for the whole."""
    threshold, token = middle(whole, "msp")
    hub = EventHub()
    monitor = monitor_of(backend, gate_at(threshold), hub=hub)
    with captured_events(hub) as events:
        for _ in range(2):
            assert (
                monitor.analyze(PROMPT, max_new_tokens=LIMIT, early_stop=True).generation_steps == token + 1
            )
        assert monitor.analyze(PROMPT, max_new_tokens=LIMIT).generation_steps == LIMIT
        kept = monitor.analyze(PROMPT, max_new_tokens=LIMIT, early_stop=True)
    assert [event.outcome for event in events.of(CacheAsked)] == ["miss", "miss", "miss", "hit"]
    assert (kept.generation_steps, kept.early_stop, kept.verdict) == (LIMIT, None, "fail")


def test_somebody_who_waits_for_the_same_answer_gets_the_whole(gate_at, backend, whole):
    """One caller's early stop is not the other's."""
    threshold, token = middle(whole, "msp")
    monitor = monitor_of(backend, gate_at(threshold))

    async def both():
        return await asyncio.gather(
            monitor.analyze_async(PROMPT, max_new_tokens=LIMIT, early_stop=True),
            monitor.analyze_async(PROMPT, max_new_tokens=LIMIT),
        )

    stopped, other = asyncio.run(both())
    # Whoever comes first makes the answer; a whole one that is there needs no stop.
    assert stopped.generation_steps == (LIMIT if stopped.from_cache else token + 1)
    assert other.generation_steps == LIMIT


def test_an_alarm_at_the_last_token_stops_nothing(gate_at, backend, whole):
    """The answer is whole: to call it a part would be wrong, and to keep it is right."""
    path = path_of(SCORES["msp"]).running(whole.step, whole.running)
    analysis = monitor_of(backend, gate_at(float(path[-2]))).analyze(
        PROMPT, max_new_tokens=LIMIT, early_stop=True
    )
    assert (analysis.generation.finish_reason, analysis.early_stop) == ("length", None)
    assert (analysis.verdict, analysis.decision.checks[0].token) == ("fail", LIMIT - 1)


def test_a_stop_by_the_reader_is_no_early_stop_of_the_gate(gate_at, backend):
    """Whoever presses Ctrl-C must not read that the gate has failed the answer."""
    monitor = monitor_of(backend, gate_at(1e6))
    with monitor.stream(PROMPT, max_new_tokens=LIMIT, early_stop=True) as stream:
        for token in stream:
            if token.metrics and token.metrics.step == 3:
                stream.stop()
    assert (stream.analysis.early_stop, stream.analysis.verdict) == (None, "not_measured")
    assert monitor.gate_watch.status.seen == 0


@pytest.mark.parametrize("goal", [None, "false-flags"])
def test_an_early_stop_without_a_promise_for_it_is_refused(gate_at, backend, goal):
    """A threshold for whole answers by any other goal says nothing of alarms on the way."""
    monitor = monitor_of(backend, None if goal is None else gate_at(1.0, goal=goal))
    for ask in (
        lambda: monitor.stream(PROMPT, early_stop=True),
        lambda: monitor.stream_async(PROMPT, early_stop=True),
        lambda: asyncio.run(monitor.analyze_async(PROMPT, early_stop=True)),
    ):
        with pytest.raises(ConfigurationError):
            ask()
    (outcome,) = monitor.analyze_batch([PROMPT], early_stop=True, return_exceptions=True)
    assert isinstance(outcome, ConfigurationError)
    with pytest.raises(ConfigurationError, match=r"early stop needs a gate|promises nothing") as error:
        monitor.analyze(PROMPT, early_stop=True)
    assert "streaming" in str(error.value.hint)


def test_a_server_is_told_to_stop(gate_at):
    """Tokens that nobody wants are paid for until the server hears of it."""
    reply = ok(" ".join(f"w{i}" for i in range(400)), token_delay=0.005)
    asked: Any = ([{"role": "user", "content": "x"}],)
    with FaultServer(flavour="vllm", otherwise=reply) as server:
        name = f"openai:scripted@{server.url}/v1"
        with HamiltonianMonitor(name, preload=True) as monitor:
            plain = monitor.analyze(*asked, max_new_tokens=400)
        path = path_of(SCORES["msp"]).running(plain.step, plain.running)
        token = 6
        gate = gate_at(float(path[token - 1]))
        with HamiltonianMonitor(name, preload=True, gate=gate) as monitor:
            stopped: Any = monitor.analyze(*asked, max_new_tokens=400, early_stop=True)
    assert plain.generation_steps == 400
    assert stopped.generation.finish_reason == "early_stop"
    assert (stopped.verdict, stopped.early_stop.alarm_at) == ("fail", token)
    assert stopped.early_stop.delay == stopped.generation_steps - 1 - token < 100
    assert plain.generated_text.startswith(stopped.generated_text)
