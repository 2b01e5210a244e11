"""Tasks: they share batches, go on while the model works, and let go of it when they are cancelled."""

import asyncio
import contextlib
import threading

import pytest

pytest.importorskip("torch")

from cert.backends.local import LocalBackend
from cert.core.errors import (
    EvidenceError,
    GenerationError,
    GenerationTimeoutError,
    InputError,
    PromptTooLongError,
)
from cert.core.events import EventHub
from cert.trajectory import HamiltonianMonitor

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
def monitor(backend):
    return HamiltonianMonitor(backend=backend, hub=EventHub())


@pytest.fixture
def rows(backend, monkeypatch):
    """How many rows each forward pass had."""
    seen: list[int] = []
    forward = backend.model.forward

    def counted(*args, **kwargs):
        seen.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend.model, "forward", counted)
    return seen


def test_a_task_gets_what_a_thread_gets(monitor):
    """The two kinds differ in how they wait, and in nothing else."""
    alone = monitor.analyze(PROMPT, max_new_tokens=5, use_cache=False)
    task = asyncio.run(monitor.analyze_async(PROMPT, max_new_tokens=5, use_cache=False))
    assert task.generated_text == alone.generated_text
    assert task.signals == alone.signals


def test_tasks_at_the_same_time_share_batches(monitor, rows):
    """32 questions of 32 clients must not take 32 times as long as one."""

    async def ask():
        return await asyncio.gather(
            *(monitor.analyze_async(f"Person {n}", max_new_tokens=3) for n in range(32))
        )

    results = asyncio.run(ask())
    assert [result.generation.prompt for result in results] == [f"Person {n}" for n in range(32)]
    assert len(rows) <= 9
    assert max(rows) >= 16


def test_tasks_and_threads_share_batches(monitor, rows):
    """One queue, whoever asks."""
    gate, begun = threading.Event(), threading.Event()

    def hold(_count):
        begun.set()
        gate.wait(60)

    threads = [
        threading.Thread(
            target=monitor.analyze, args=("plug",), kwargs={"max_new_tokens": 1, "on_step": hold, "seed": 1}
        )
    ]
    threads[0].start()
    assert begun.wait(60)
    threads += [
        threading.Thread(target=monitor.analyze, args=(f"Thread {n}",), kwargs={"max_new_tokens": 1})
        for n in range(4)
    ]
    for thread in threads[1:]:
        thread.start()

    async def ask():
        tasks = [asyncio.create_task(monitor.analyze_async(f"Task {n}", max_new_tokens=1)) for n in range(4)]
        while len(monitor.engine.resource._backend._queue) < 8:
            await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(ask())
    for thread in threads:
        thread.join()
    assert rows == [1, 8]


@pytest.mark.parametrize("prompt", [PROMPT, "word " * 100])
def test_the_loop_goes_on_while_a_model_works(monitor, prompt, monkeypatch, backend):
    """A service that answers health checks only between generations is taken for dead."""
    monkeypatch.setattr("cert.trajectory.engine._LONG", 100)
    ticks, working = [], threading.Event()
    done = threading.Event()
    forward = backend.model.forward

    def slow(*args, **kwargs):
        working.set()
        assert done.wait(60)  # only the loop can end this
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend.model, "forward", slow)

    async def tick():
        while not working.is_set():
            await asyncio.sleep(0)
        ticks.append(1)
        done.set()

    async def ask():
        await asyncio.gather(monitor.analyze_async(prompt, max_new_tokens=1), tick())

    asyncio.run(ask())
    assert ticks == [1]


def test_a_long_prompt_is_encoded_beside_the_loop(monitor, backend, monkeypatch):
    """Ten thousand characters take longer than a loop may stand still; short ones go the short way."""
    threads = []
    encode = type(backend.encoder).encode

    def watched(self, prompt):
        threads.append(threading.current_thread() is threading.main_thread())
        return encode(self, prompt)

    monkeypatch.setattr(type(backend.encoder), "encode", watched)

    async def ask():
        await monitor.analyze_async("short", max_new_tokens=1)
        with contextlib.suppress(PromptTooLongError):
            await monitor.analyze_async("x" * 9_999, max_new_tokens=1)
        with contextlib.suppress(PromptTooLongError):
            await anext(monitor.stream_async("x" * 9_999, max_new_tokens=1))
        with contextlib.suppress(PromptTooLongError):
            await monitor.score_async("p", "x" * 9_999)

    asyncio.run(ask())
    assert threads[:3] == [True, False, False]
    assert not any(threads[3:])


def test_a_task_that_is_cancelled_while_its_prompt_is_encoded_leaves_nothing(monitor, backend, monkeypatch):
    """Neither a place in the queue nor a leader that others wait for."""
    encoding, go_on = threading.Event(), threading.Event()
    encode = type(backend.encoder).encode

    def held(self, prompt):
        if not encoding.is_set():
            encoding.set()
            assert go_on.wait(60)
        return encode(self, prompt)

    monkeypatch.setattr(type(backend.encoder), "encode", held)
    monkeypatch.setattr("cert.trajectory.engine._LONG", 100)
    prompt = "word " * 100

    async def ask():
        task = asyncio.create_task(monitor.analyze_async(prompt, max_new_tokens=2))
        await asyncio.to_thread(encoding.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert monitor.resource.users == 0
        go_on.set()
        return await monitor.analyze_async(prompt, max_new_tokens=2)

    assert asyncio.run(ask()).generation_steps == 2
    assert len(backend._queue) == 0


@pytest.mark.parametrize("ask", ["", None, "word " * 3000])
def test_a_bad_prompt_is_the_same_error(monitor, ask):
    """Typed, and no group of them."""
    with pytest.raises(InputError):
        asyncio.run(monitor.analyze_async(ask))
    assert monitor.resource.users == 0


@pytest.mark.parametrize("how", ["wait_for", "timeout", "cancel"])
def test_whichever_way_a_task_gives_up_the_model_is_free(monitor, backend, how, monkeypatch):
    """The frameworks' own time-outs cancel; all of them must end the generation."""
    passes: list[int] = []
    forward = backend.model.forward
    first, gone = threading.Event(), threading.Event()

    def counted(*args, **kwargs):
        passes.append(1)
        first.set()
        gone.wait(60)
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend.model, "forward", counted)

    async def ask():
        call = monitor.analyze_async(PROMPT, max_new_tokens=300)
        if how == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call, 0.2)
        elif how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await call
        else:
            task = asyncio.create_task(call)
            await asyncio.to_thread(first.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert monitor.resource.users == 0
        gone.set()

    asyncio.run(ask())
    backend.close()
    assert len(passes) <= 1


def test_our_own_time_out_gives_the_partial_analysis(monitor, monkeypatch, backend):
    """A loop's time-out cannot; ours says what was measured."""
    import time

    real, over = time.monotonic, threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: real() + (10_000 if over.is_set() else 0))

    async def ask():
        await monitor.analyze_async(
            PROMPT, max_new_tokens=300, timeout=5_000, on_step=lambda n: over.set() if n == 4 else None
        )

    with pytest.raises(GenerationTimeoutError) as error:
        asyncio.run(ask())
    assert error.value.partial.generation_steps == 4
    assert error.value.partial.generation.finish_reason == "timeout"


def test_a_failing_model_is_a_typed_error_in_each_task(monitor, backend, monkeypatch):
    """And the loop, the queue and the next question live on."""
    with monkeypatch.context() as patch:
        patch.setattr(backend.model, "forward", lambda *a, **kw: 1 / 0)

        async def ask():
            return await asyncio.gather(
                *(monitor.analyze_async(f"P {n}", max_new_tokens=2) for n in range(3)), return_exceptions=True
            )

        assert [type(error) for error in asyncio.run(ask())] == [GenerationError] * 3
    assert asyncio.run(monitor.analyze_async("P", max_new_tokens=2)).generation_steps == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_required_sink_is_awaited_and_may_refuse(backend, asynchronous):
    """Where evidence is asked for, no evidence is no result; an analysis from the cache is asked again."""
    hub, seen = EventHub(), []
    monitor = HamiltonianMonitor(backend=backend, hub=hub)

    def keep(event):
        seen.append(event.cached)
        if len(seen) != 1:
            raise OSError("disk full")

    async def keep_async(event):
        await asyncio.sleep(0)
        keep(event)

    hub.require(keep_async if asynchronous else keep)

    async def ask():
        assert (await monitor.analyze_async(PROMPT, max_new_tokens=2)).generation_steps == 2
        with pytest.raises(EvidenceError):
            await monitor.analyze_async(PROMPT, max_new_tokens=2)
        with pytest.raises(EvidenceError):
            await monitor.analyze_async("other", max_new_tokens=2)
        with pytest.raises(EvidenceError):
            async for _ in monitor.stream_async(PROMPT, max_new_tokens=2):
                pass
        with pytest.raises(EvidenceError):
            await monitor.score_async(PROMPT, " x")

    asyncio.run(ask())
    assert seen == [False, True, False, False, False]
    assert monitor.resource.users == 0


def test_a_loop_that_ends_in_the_middle_leaves_the_model_usable(monitor):
    """Scripts call asyncio.run more than once; what the first left behind must not stop the second."""

    async def leave():
        asyncio.create_task(monitor.analyze_async(PROMPT, max_new_tokens=200))  # noqa: RUF006  # left alone
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert monitor.resource.users == 0
    assert asyncio.run(monitor.analyze_async(PROMPT, max_new_tokens=2)).generation_steps == 2


def test_scores_of_tasks_are_those_of_threads(monitor):
    """Read by a task or by a thread, a text has the same numbers."""
    thread = monitor.score(PROMPT, " someone", use_cache=False)
    task = asyncio.run(monitor.score_async(PROMPT, " someone", use_cache=False))
    assert thread.signals == task.signals
    assert thread.generated_text == " someone"
