"""Many prompts at once: each in its place, each failing by itself, none made twice, all within the time."""

import asyncio
import threading
import time
from typing import Any

import pytest

pytest.importorskip("torch")

from cert.backends.local import LocalBackend
from cert.backends.microbatch import BatchLimits
from cert.core.errors import (
    BatchError,
    CertError,
    ConfigurationError,
    EvidenceError,
    GenerationCancelledError,
    GenerationTimeoutError,
    InputError,
    OverloadedError,
    PromptTooLongError,
)
from cert.core.events import EventHub, GenerationFinished
from cert.testing.events import captured_events
from cert.trajectory import HamiltonianMonitor
from cert.trajectory.types import TrajectoryAnalysis

PROMPTS = ["The birth city of", "A", "Who is the employer of", "What", "The"]


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


def of_threads(monitor, prompts, **options):
    return monitor.analyze_batch(prompts, **options)


def of_tasks(monitor, prompts, **options):
    return asyncio.run(monitor.analyze_batch_async(prompts, **options))


BOTH = pytest.mark.parametrize("run", [of_threads, of_tasks])


class Passes:
    """Counts forward passes and does something at one of them."""

    def __init__(self, model, monkeypatch, at=None, action=lambda: None):
        self.count = 0
        self.rows: list[int] = []
        forward = model.forward

        def counted(*args, **kwargs):
            self.count += 1
            self.rows.append(kwargs["input_ids"].shape[0])
            if self.count == at:
                action()
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", counted)


@BOTH
def test_results_stand_in_the_order_of_the_prompts(monitor, run):
    """And each is the one that its prompt gives alone."""
    results = run(monitor, PROMPTS, max_new_tokens=6, use_cache=False)
    assert [result.generation.prompt for result in results] == PROMPTS
    for prompt, result in zip(PROMPTS, results, strict=True):
        alone = monitor.analyze(prompt, max_new_tokens=6, use_cache=False)
        assert alone.generated_text == result.generated_text
        assert alone.verdict == result.verdict


@BOTH
def test_any_iterable_of_prompts_will_do_and_none_of_them_is_one(monitor, run):
    """A generator, messages among texts, nothing at all."""
    mixed = (p for p in ["A", [{"role": "user", "content": "Where?"}]])
    results = run(monitor, mixed, max_new_tokens=2)
    assert [type(result.generation.prompt) for result in results] == [str, tuple]
    assert run(monitor, []) == []
    assert run(monitor, iter(())) == []
    assert run(monitor, [], return_exceptions=True) == []


@BOTH
@pytest.mark.parametrize("prompts", ["one prompt", b"bytes", 5, None, {"role": "user", "content": "x"}])
def test_one_prompt_is_no_batch(monitor, run, prompts):
    """A string is a sequence of characters: nobody wants a batch of them."""
    with pytest.raises(ConfigurationError, match="list of prompts"):
        run(monitor, prompts)


@BOTH
def test_a_bad_item_is_one_error_in_its_place(monitor, run):
    """And costs nobody else anything."""
    prompts: list[Any] = ["A", "", "word " * 3000, None, "The"]
    results = run(monitor, prompts, max_new_tokens=3, return_exceptions=True)
    assert [type(r) for r in results] == [
        TrajectoryAnalysis, InputError, PromptTooLongError, InputError, TrajectoryAnalysis,
    ]  # fmt: skip


@BOTH
def test_failures_are_raised_after_the_others_are_done_with_all_results(monitor, run):
    """Nothing that was computed is thrown away."""
    with pytest.raises(BatchError) as error:
        run(monitor, ["A", "", "The", ""], max_new_tokens=3)
    results = error.value.results
    assert [isinstance(result, CertError) for result in results] == [False, True, False, True]
    assert error.value.context == {"failed": 2, "items": 4, "codes": ["input"]}
    assert error.value.__cause__ is results[1]
    assert "2 of 4" in str(error.value)


@BOTH
def test_duplicates_share_one_generation(monitor, backend, run, monkeypatch):
    """The device works once for the same question, and each asker has its answer."""
    passes = Passes(backend.model, monkeypatch)
    results = run(monitor, ["A", "The", "A", "A"], max_new_tokens=4)
    assert passes.count <= 8
    assert max(passes.rows) <= 2
    assert sum(passes.rows) == 8
    assert results[0].generation is results[2].generation is results[3].generation
    assert sorted(result.from_cache for result in results) == [False, False, True, True]


@BOTH
def test_more_prompts_than_the_window_and_the_queue_take(loaded, run):
    """The queue is bounded for others' sake; a batch of any size fits through it."""
    backend = LocalBackend(loaded.model, loaded.tokenizer, limits=BatchLimits(rows=2, waiting=3))
    backend.window = 8
    monitor = HamiltonianMonitor(backend=backend)
    prompts = [f"The person number {number}" for number in range(30)]
    results = run(monitor, prompts, max_new_tokens=1)
    assert [result.generation.prompt for result in results] == prompts
    backend.close()


@BOTH
def test_a_queue_that_others_fill_is_told_for_what_it_is(loaded, run):
    """Retryable, with the time after which to try."""
    backend = LocalBackend(loaded.model, loaded.tokenizer, limits=BatchLimits(rows=1, waiting=1))
    monitor = HamiltonianMonitor(backend=backend)
    gate, begun = threading.Event(), threading.Event()

    def hold(_count):
        begun.set()
        gate.wait(60)

    busy = threading.Thread(
        target=monitor.analyze, args=("x",), kwargs={"max_new_tokens": 1, "on_step": hold}
    )
    busy.start()
    assert begun.wait(60)
    waits = threading.Thread(target=monitor.analyze, args=("y",), kwargs={"max_new_tokens": 1})
    waits.start()
    while not len(backend._queue):
        time.sleep(0.001)
    results = run(monitor, ["A"], max_new_tokens=1, return_exceptions=True)
    gate.set()
    busy.join()
    waits.join()
    assert isinstance(results[0], OverloadedError)
    assert results[0].retry_after
    backend.close()


# --- told as they come ---


@BOTH
def test_each_outcome_is_told_once_with_its_place(monitor, run):
    """A progress bar or a file of results must have each item, and no item twice."""
    told = []
    prompts = ["A", "", "The", "A", "What"]
    results = run(
        monitor,
        prompts,
        max_new_tokens=2,
        return_exceptions=True,
        on_done=lambda place, outcome: told.append((place, outcome)),
    )
    assert sorted(place for place, _ in told) == [0, 1, 2, 3, 4]
    assert all(results[place] is outcome for place, outcome in told)


@BOTH
@pytest.mark.parametrize("error", [ZeroDivisionError, InputError])
def test_what_the_callers_function_raises_is_what_the_caller_gets(monitor, backend, run, error):
    """As it is: not in a group, not as a failed item; and what still ran is given up."""

    def fail(place, outcome):
        raise error("mine")

    with pytest.raises(error, match="mine"):
        run(monitor, [f"Person {n}" for n in range(80)], max_new_tokens=30, on_done=fail)
    assert monitor.resource.users == 0
    for _ in range(10_000):
        if not len(backend._queue) and not backend._queue._running:
            break
        time.sleep(0.001)
    assert len(backend._queue) == 0
    assert monitor.analyze("A", max_new_tokens=1).generation_steps == 1


@BOTH
@pytest.mark.parametrize("options", [{"bogus": 1}, {"max_tokens": 5}])
def test_an_option_that_does_not_exist_is_a_type_error(monitor, run, options):
    """A typing mistake is a programmer's, plainly, in both kinds."""
    with pytest.raises(TypeError, match="unexpected keyword"):
        run(monitor, ["A", "B"], **options)


@BOTH
def test_every_item_may_have_a_listener(monitor, run):
    """The options are those of `analyze`, for every item."""
    steps: list[int] = []
    run(monitor, ["A", "The"], max_new_tokens=3, on_step=steps.append)
    assert sorted(steps) == [1, 1, 2, 2, 3, 3]


# --- time ---


@BOTH
@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_no_time_is_refused_before_anything_runs(monitor, backend, run, timeout, monkeypatch):
    """For the whole call, not once an item."""
    passes = Passes(backend.model, monkeypatch)
    with pytest.raises(ConfigurationError, match="timeout"):
        run(monitor, ["A"], timeout=timeout)
    assert passes.count == 0


@BOTH
def test_the_time_is_for_the_whole_call(loaded, run, monkeypatch):
    """What is done is kept, what runs gives what it has, what waits is withdrawn."""
    backend = LocalBackend(loaded.model, loaded.tokenizer, limits=BatchLimits(rows=2))
    monitor = HamiltonianMonitor(backend=backend)
    prompts = [f"Person {n}" for n in range(6)]
    real = time.monotonic
    over = threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: real() + (10_000 if over.is_set() else 0))
    Passes(loaded.model, monkeypatch, at=7, action=over.set)
    results = run(monitor, prompts, max_new_tokens=5, timeout=5_000, return_exceptions=True)
    assert [type(r) for r in results[:2]] == [TrajectoryAnalysis] * 2
    assert [type(r) for r in results[2:]] == [GenerationTimeoutError] * 4
    assert [r.partial.generation_steps for r in results[2:4]] == [2, 2]
    assert [r.partial for r in results[4:]] == [None, None]
    backend.close()


@BOTH
def test_loading_the_model_takes_no_part_of_the_time(loaded, run, monkeypatch):
    """The first call of a service would always fail."""
    monitor = HamiltonianMonitor("reference")
    real = time.monotonic
    loads: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: real() + 10_000 * len(loads))
    load = type(monitor.resource)._load

    def slow(self):
        loads.append(1)
        return load(self)

    monkeypatch.setattr(type(monitor.resource), "_load", slow)
    results = run(monitor, ["A", "The"], max_new_tokens=2, timeout=5_000)
    assert [result.generation_steps for result in results] == [2, 2]
    assert loads == [1]
    monitor.unload()


# --- ends ---


def test_a_cancelled_batch_ends_all_of_its_items(monitor, backend, monkeypatch):
    """The client of the whole batch has gone."""
    reached = threading.Event()
    gone = threading.Event()

    def hold():
        reached.set()
        gone.wait(60)

    passes = Passes(backend.model, monkeypatch, at=2, action=hold)

    async def go():
        task = asyncio.create_task(
            monitor.analyze_batch_async([f"Person {n}" for n in range(40)], max_new_tokens=200)
        )
        await asyncio.to_thread(reached.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gone.set()

    asyncio.run(go())
    backend.close()
    assert passes.count <= 3


@BOTH
def test_a_model_that_is_closed_under_a_batch_ends_each_item(monitor, backend, run, monkeypatch):
    """With an error each, and no hang."""
    closing = []

    def close():
        thread = threading.Thread(target=backend.close)
        thread.start()
        closing.append(thread)
        time.sleep(0.02)

    Passes(backend.model, monkeypatch, at=2, action=close)
    results = run(monitor, [f"P {n}" for n in range(70)], max_new_tokens=50, return_exceptions=True)
    closing[0].join()
    assert {type(result) for result in results} <= {GenerationCancelledError, ConfigurationError}
    assert len(results) == 70


# --- events and sinks ---


@BOTH
def test_every_analysis_of_a_batch_is_told_and_its_time_is_named(monitor, hub, run):
    """A dashboard must count batches as it counts single calls."""
    with captured_events(hub) as events:
        run(monitor, ["A", "The", "A"], max_new_tokens=2)
        hub.flush()
    told = events.of(GenerationFinished)
    assert sorted(event.cached for event in told) == [False, False, True]
    for event in told:
        assert bool(event.stages) is not event.cached


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_item_that_a_required_sink_refuses_is_withheld_alone(monitor, hub, asynchronous):
    """No evidence, no result; for that item."""
    seen: list[GenerationFinished] = []

    def refuse_second(event):
        seen.append(event)
        if len(seen) == 2:
            raise OSError("disk full")

    async def refuse_second_async(event):
        await asyncio.sleep(0)
        refuse_second(event)

    hub.require(refuse_second_async if asynchronous else refuse_second)
    run = of_tasks if asynchronous else of_threads
    results = run(monitor, ["A", "The", "What"], max_new_tokens=2, return_exceptions=True)
    refused = [result for result in results if isinstance(result, EvidenceError)]
    assert len(refused) == 1
    assert len([result for result in results if isinstance(result, TrajectoryAnalysis)]) == 2


def test_an_error_in_a_list_of_results_holds_no_model(monitor):
    """Ten thousand errors kept for a report must not keep ten thousand call stacks."""
    results = monitor.analyze_batch(["", "word " * 3000], return_exceptions=True)
    results += of_tasks(monitor, ["", "word " * 3000], return_exceptions=True)
    assert [result.__traceback__ for result in results] == [None] * 4
