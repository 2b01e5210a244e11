"""From a request to an analysis: told, timed, refused where evidence is missing, and nothing left behind."""

import asyncio
import contextlib
import gc
import signal
import threading
import time
import weakref
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cert.backends.local import LocalBackend  # noqa: E402
from cert.backends.microbatch import BatchLimits  # noqa: E402
from cert.core.errors import (  # noqa: E402
    CertError,
    EvidenceError,
    GenerationCancelledError,
    GenerationError,
    GenerationTimeoutError,
    InputError,
    OverloadedError,
    ResourceError,
)
from cert.core.events import CacheAsked, EventHub, GenerationFinished  # noqa: E402
from cert.testing.events import captured_events  # noqa: E402
from cert.trajectory import HamiltonianMonitor  # noqa: E402
from cert.trajectory.types import TrajectoryAnalysis  # noqa: E402

PROMPT = "The birth city of"


@pytest.fixture(scope="module")
def loaded():
    return LocalBackend.load("reference")


@pytest.fixture
def backend(loaded):
    backend = LocalBackend(loaded.model, loaded.tokenizer, name="reference")
    yield backend
    backend.close()


@pytest.fixture
def hub():
    return EventHub()


@pytest.fixture
def monitor(backend, hub):
    return HamiltonianMonitor(backend=backend, hub=hub)


def hold_first_pass(backend, monkeypatch):
    """Hold the model up in its first pass: when it is there, and how it goes on."""
    there, go_on = threading.Event(), threading.Event()
    forward = backend.model.forward

    def held(*args, **kwargs):
        there.set()
        assert go_on.wait(60)
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend.model, "forward", held)
    return there, go_on


def in_thread(call):
    future: Future[Any] = Future()

    def run():
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


# --- what is told ---


def by_task(method, *args, **options):
    return asyncio.run(method(*args, **options))


async def streamed(monitor):
    async for _ in monitor.stream_async(PROMPT, max_new_tokens=2):
        pass


WAYS = {
    "analyze": lambda m: m.analyze(PROMPT, max_new_tokens=2),
    "analyze_async": lambda m: by_task(m.analyze_async, PROMPT, max_new_tokens=2),
    "stream": lambda m: list(m.stream(PROMPT, max_new_tokens=2)),
    "stream_async": lambda m: asyncio.run(streamed(m)),
    "score": lambda m: m.score(PROMPT, " someone else"),
    "score_async": lambda m: by_task(m.score_async, PROMPT, " someone else"),
    "batch": lambda m: m.analyze_batch([PROMPT], max_new_tokens=2),
    "batch_async": lambda m: by_task(m.analyze_batch_async, [PROMPT], max_new_tokens=2),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_analysis_is_told_once_with_where_its_time_went(monitor, hub, way):
    """A way that is not told is missing on every dashboard, and in the evidence."""
    delivered: list[Any] = []
    hub.require(delivered.append)
    with captured_events(hub) as events:
        WAYS[way](monitor)
        hub.flush()
    (event,) = events.of(GenerationFinished)
    assert delivered == [event]
    assert (event.model, event.cached) == ("reference", False)
    assert event.tokens >= 2
    names = [name for name, _ in event.stages]
    assert names[:2] == ["encode", "queue"]
    assert names[-2:] == ["signals", "gate"]
    assert set(names) >= ({"score"} if way.startswith("score") else {"prefill", "decode"})
    assert all(seconds >= 0.0 for _, seconds in event.stages)
    assert sum(seconds for _, seconds in event.stages) <= event.seconds + 0.005


@pytest.mark.parametrize("way", WAYS)
def test_a_required_sink_that_refuses_withholds_the_result(monitor, hub, way):
    """Whatever the way: no evidence, no result, one typed error, and the model is free."""

    def refuse(event):
        raise OSError("disk full")

    remove = hub.require(refuse)
    with pytest.raises(CertError) as error:
        WAYS[way](monitor)
    refusal = error.value.results[0] if way.startswith("batch") else error.value  # type: ignore[attr-defined]
    assert isinstance(refusal, EvidenceError)
    assert "disk" not in str(refusal)
    assert monitor.resource.users == 0
    remove()
    WAYS[way](monitor)


def test_a_sink_that_has_to_be_awaited_is_no_sink_for_a_thread(monitor, hub):
    """Its evidence would never be written: refused and not forgotten."""

    async def keep(event):
        await asyncio.sleep(0)

    hub.require(keep)
    with pytest.raises(EvidenceError, match="asynchronous"):
        monitor.analyze(PROMPT, max_new_tokens=1)
    assert asyncio.run(monitor.analyze_async(PROMPT, max_new_tokens=1)).generation_steps == 1


def test_the_cache_says_how_it_answered(monitor, hub):
    """A hit rate that counts bypasses as misses misleads whoever sizes the cache."""
    with captured_events(hub) as events:
        monitor.analyze(PROMPT, max_new_tokens=1)
        monitor.analyze(PROMPT, max_new_tokens=1)
        monitor.analyze(PROMPT, max_new_tokens=1, use_cache=False)
        monitor.analyze(PROMPT, max_new_tokens=1, temperature=1.0)
        monitor.score(PROMPT, " x")
        monitor.score(PROMPT, " x")
        hub.flush()
    outcomes = [(event.cache, event.outcome) for event in events.of(CacheAsked)]
    expected = ["miss", "hit", "bypassed", "bypassed", "miss", "hit"]
    assert outcomes == [("analyses", outcome) for outcome in expected]
    assert [event.cached for event in events.of(GenerationFinished)] == [
        outcome == "hit" for outcome in expected
    ]


def test_an_answer_from_the_cache_has_no_steps_to_tell(monitor):
    """A progress bar must not pretend to work."""
    steps: list[int] = []
    monitor.analyze(PROMPT, max_new_tokens=2)
    assert monitor.analyze(PROMPT, max_new_tokens=2, on_step=steps.append).from_cache
    assert steps == []


# --- time and interrupts ---


def test_a_time_out_gives_the_analysis_of_what_there_was(monitor, monkeypatch):
    """Signals of forty tokens are worth more than a message that it took too long."""
    whole = monitor.analyze(PROMPT, max_new_tokens=300)
    real, over = time.monotonic, threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: real() + (10_000 if over.is_set() else 0))

    def watch(count):
        if count == 4:
            over.set()

    with pytest.raises(GenerationTimeoutError) as error:
        monitor.analyze(PROMPT, max_new_tokens=300, timeout=5_000, on_step=watch, use_cache=False)
    partial = error.value.partial
    assert isinstance(partial, TrajectoryAnalysis)
    assert partial.generation_steps == 4
    assert partial.metrics == whole.metrics[:4]
    assert whole.generated_text.startswith(partial.generated_text)


def test_a_partial_analysis_is_never_kept(monitor):
    """The next one who asks gets the whole answer."""

    def give_up(count):
        raise GenerationCancelledError("enough")

    with pytest.raises(GenerationCancelledError):
        monitor.analyze(PROMPT, max_new_tokens=6, on_step=give_up)
    assert not monitor.analyze(PROMPT, max_new_tokens=6).from_cache


def test_loading_takes_no_part_of_the_time(monkeypatch):
    """Whatever the first call of the day needs for that, its time-out is about the answer."""
    real = time.monotonic
    loads: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: real() + 10_000 * len(loads))
    monitor = HamiltonianMonitor("reference", hub=EventHub())
    load = type(monitor.resource)._load

    def slow(self):
        loads.append(1)
        return load(self)

    monkeypatch.setattr(type(monitor.resource), "_load", slow)
    for use in (
        lambda: monitor.analyze(PROMPT, max_new_tokens=2, timeout=5_000),
        lambda: by_task(monitor.analyze_async, PROMPT, max_new_tokens=2, timeout=5_000),
        lambda: list(monitor.stream(PROMPT, max_new_tokens=2, timeout=5_000)),
        lambda: monitor.analyze_samples(PROMPT, 2, max_new_tokens=2, timeout=5_000),
        lambda: by_task(monitor.analyze_samples_async, PROMPT, 2, max_new_tokens=2, timeout=5_000),
    ):
        use()
        monitor.unload()
    assert len(loads) == 5


def test_ctrl_c_gives_up_the_leader_and_leaves_its_followers_their_answer(monitor, backend, monkeypatch):
    """In a notebook the cell is stopped; the service in the same process goes on."""
    there, go_on = hold_first_pass(backend, monkeypatch)
    follow: list[Future[Any]] = []

    def interrupt():
        assert there.wait(60)
        follow.append(in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=3)))
        while not next(iter(monitor.engine.cache._flights.values())).followers:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    helper = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        monitor.analyze(PROMPT, max_new_tokens=3)
    go_on.set()
    helper.result(timeout=60)
    assert follow[0].result(timeout=60).generation_steps == 3
    assert monitor.resource.users == 0


# --- the model's life ---


def test_unloading_waits_for_what_works_and_refuses_what_comes(monkeypatch):
    """Nobody's model disappears under him, and an unload comes to an end under load."""
    monitor = HamiltonianMonitor("reference", preload=True, hub=EventHub())
    backend = monitor.resource._held()
    there, go_on = hold_first_pass(backend, monkeypatch)
    working = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=2))
    assert there.wait(60)
    with pytest.raises(ResourceError, match="in use"):
        monitor.resource.unload(wait=0)
    unload = in_thread(monitor.unload)
    while monitor.resource.state != "unloading":
        time.sleep(0.001)
    with pytest.raises(ResourceError, match="being unloaded"):
        monitor.analyze("another", max_new_tokens=1)
    go_on.set()
    assert working.result(timeout=60).generation_steps == 2
    unload.result(timeout=60)
    assert monitor.resource.health().code == "not_loaded"
    assert len(monitor.engine.cache) == 0


def test_an_unloaded_model_is_gone_whatever_happened_with_it_before(monkeypatch):
    """Results, errors and streams that callers keep or drop must not keep 14 GB on a device."""
    monitor = HamiltonianMonitor("reference", hub=EventHub())
    kept: list[Any] = [monitor.analyze(PROMPT, max_new_tokens=3)]
    kept.append(monitor.score(PROMPT, " x"))
    kept.extend(monitor.analyze_batch(["A", "", "word " * 3000], max_new_tokens=2, return_exceptions=True))
    kept.append(asyncio.run(monitor.analyze_async("The", max_new_tokens=2)))
    with monitor.stream("Who", max_new_tokens=5) as stream:
        next(stream)
    kept.append(stream)
    for error in (ZeroDivisionError("x"), GenerationCancelledError("x")):
        with pytest.raises(type(error)):
            monitor.analyze("fails", max_new_tokens=2, on_step=partial(_raise, error))
    with pytest.raises(InputError):
        monitor.analyze("word " * 1000)
    backend: Any = monitor.resource._held()
    with monkeypatch.context() as patch:
        patch.setattr(backend.model, "forward", lambda *a, **kw: 1 / 0)
        kept.extend(monitor.analyze_batch(["fails", "too"], return_exceptions=True))
    assert [type(error) for error in kept[-2:]] == [GenerationError] * 2
    model = weakref.ref(backend.model)
    del backend, error
    monitor.unload()
    assert model() is None
    assert len(kept) == 9
    assert monitor.analyze(PROMPT, max_new_tokens=3).generated_text == kept[0].generated_text
    monitor.unload()


async def _fail_async(monitor):
    with contextlib.suppress(GenerationError):
        await monitor.analyze_async("x", max_new_tokens=2, on_step=_give_up)


def _give_up(_count):
    # A new error each time: one that the callback held would close a circle of the test's own.
    raise GenerationError("mine")


def _raise(error, _count):
    raise error


def test_a_backend_that_is_dropped_takes_its_model_along(random_weights, tokenizer):
    """Without the garbage collector's help: it seldom looks at the old and large."""
    gc.collect()
    gc.disable()
    try:
        backend = LocalBackend(random_weights(), tokenizer)
        monitor = HamiltonianMonitor(backend=backend, hub=EventHub())
        monitor.analyze(PROMPT, max_new_tokens=2)
        with contextlib.suppress(GenerationError):
            monitor.analyze("x", max_new_tokens=2, on_step=_give_up)
        asyncio.run(_fail_async(monitor))
        reference = weakref.ref(backend)
        backend.close()
        del backend, monitor
        assert reference() is None
    finally:
        gc.enable()


@pytest.fixture
def tokenizer(loaded):
    return loaded.tokenizer


@pytest.fixture
def random_weights(loaded):
    from transformers import AutoModelForCausalLM

    def make():
        return AutoModelForCausalLM.from_config(loaded.model.config).eval()

    return make


def test_what_was_analysed_while_the_model_went_is_not_kept(monkeypatch):
    """After an unload a model of the same name may be another one."""
    monitor = HamiltonianMonitor("reference", preload=True, hub=EventHub())
    backend = monitor.resource._held()
    there, go_on = hold_first_pass(backend, monkeypatch)
    working = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=1))
    assert there.wait(60)
    unload = in_thread(monitor.unload)
    while monitor.resource.state != "unloading":
        time.sleep(0.001)
    go_on.set()
    working.result(timeout=60)
    unload.result(timeout=60)
    assert not monitor.analyze(PROMPT, max_new_tokens=1).from_cache
    monitor.unload()


# --- health ---


def codes(report):
    return {check.name: (check.status, check.code) for check in report.checks}


def test_a_model_that_answers_is_healthy_and_nobody_is_told_of_the_question(monitor, hub):
    """A probe every ten seconds must not fill the evidence, the cache or the statistics."""

    def refuse(event):
        raise OSError("disk full")

    hub.require(refuse)
    with captured_events(hub) as events:
        monitor.load()
        report = monitor.health_check()
        hub.flush()
    assert {status for status, _ in codes(report).values()} == {"healthy"}
    assert events.of(GenerationFinished) == ()
    assert events.of(CacheAsked) == ()
    assert len(monitor.engine.cache) == 0


def test_a_model_that_is_not_loaded_is_degraded_and_stays_so(monitor):
    """A health check that loads 14 GB would be an outage of its own."""
    report = monitor.health_check()
    assert codes(report) == {"model": ("degraded", "not_loaded")}
    assert monitor.resource.state == "unloaded"


def test_a_model_that_fails_is_unhealthy_with_its_code(monitor, backend, monkeypatch):
    """Memory holds it and it gives nothing: that is what the check is for."""
    monitor.load()
    forward = backend.model.forward

    def nan(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits[:] = float("nan")
        return outputs

    monkeypatch.setattr(backend.model, "forward", nan)
    assert codes(monitor.health_check())["inference"] == ("unhealthy", "numerical")
    monkeypatch.setattr(backend.model, "forward", lambda *a, **kw: 1 / 0)
    assert codes(monitor.health_check())["inference"] == ("unhealthy", "generation")


def test_a_model_that_hangs_is_unhealthy_within_the_time(monitor, backend, monkeypatch):
    """And the check itself does not hang."""
    monitor.load()
    there, go_on = hold_first_pass(backend, monkeypatch)
    busy = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=1))
    assert there.wait(60)
    assert codes(monitor.health_check(timeout=0.05))["inference"] == ("unhealthy", "generation_timeout")
    go_on.set()
    assert busy.result(timeout=60).generation_steps == 1
    assert {status for status, _ in codes(monitor.health_check()).values()} == {"healthy"}


def test_a_full_queue_is_degraded_and_not_broken(loaded, monkeypatch):
    """An orchestrator that restarts what is busy makes an outage of a rush."""
    backend = LocalBackend(loaded.model, loaded.tokenizer, limits=BatchLimits(rows=1, waiting=1))
    monitor = HamiltonianMonitor(backend=backend, hub=EventHub())
    monitor.load()
    there, go_on = hold_first_pass(backend, monkeypatch)
    busy = in_thread(lambda: monitor.analyze("x", max_new_tokens=1))
    assert there.wait(60)
    waits = in_thread(lambda: monitor.analyze("y", max_new_tokens=1))
    while not len(backend._queue):
        time.sleep(0.001)
    assert codes(monitor.health_check())["inference"] == ("degraded", "overloaded")
    with pytest.raises(OverloadedError) as error:
        monitor.analyze("z", max_new_tokens=1)
    assert error.value.retry_after
    go_on.set()
    busy.result(timeout=60)
    waits.result(timeout=60)
    backend.close()
