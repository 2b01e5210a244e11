"""Tokens with their signals as they come: the same numbers as at the end, and nothing left running."""

import asyncio
import contextlib
import dataclasses
import gc
import math
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cert.backends.local import LocalBackend  # noqa: E402
from cert.backends.microbatch import BatchLimits  # noqa: E402
from cert.core.errors import (  # noqa: E402
    ConfigurationError,
    GenerationCancelledError,
    GenerationTimeoutError,
    InputError,
    NumericalError,
)
from cert.trajectory import HamiltonianMonitor, TrajectoryConfig  # noqa: E402

PROMPT = "The birth city of"


@pytest.fixture(scope="module")
def model():
    """The reference model with weights that no longer mean anything: bytes of all kinds come out."""
    from transformers import AutoModelForCausalLM

    from cert.reference import weights

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(weights.path()).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    return model


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    from cert.reference import weights

    return AutoTokenizer.from_pretrained(weights.path())


@pytest.fixture
def backend(model, tokenizer):
    backend = LocalBackend(model, tokenizer, name="random")
    yield backend
    backend.close()


@pytest.fixture
def monitor(backend):
    return HamiltonianMonitor(backend=backend)


def read(monitor, prompt=PROMPT, **options):
    """All tokens of a stream, and the stream."""
    stream = monitor.stream(prompt, **options)
    return list(stream), stream


def read_async(monitor, prompt=PROMPT, **options):
    async def run():
        stream = monitor.stream_async(prompt, **options)
        return [token async for token in stream], stream

    return asyncio.run(run())


def idle(monitor):
    """Wait until nothing runs and nobody holds the model."""
    for _ in range(20_000):
        queue = monitor.engine.resource._backend._queue
        if not monitor.resource.users and not queue._running and not len(queue):
            return True
        time.sleep(0.001)
    return False


def bits(row, but=("token",)):
    """A row of signals bit by bit, so that NaN equals NaN and 0.0 is not −0.0."""
    values = {name: value for name, value in dataclasses.asdict(row).items() if name not in but}
    return {
        name: struct.pack("d", value) if isinstance(value, float) else value for name, value in values.items()
    }


class Slow:
    """Counts the forward passes of a model, and does something at one of them."""

    def __init__(self, model, monkeypatch, at=None, action=lambda: None):
        self.passes = 0
        forward = model.forward

        def counted(*args, **kwargs):
            self.passes += 1
            if self.passes == at:
                action()
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", counted)


# --- the numbers and the text ---


@pytest.mark.parametrize("reader", [read, read_async])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "seed": 5}, {"temperature": 2.0, "seed": 8}])
def test_every_number_is_the_one_of_the_finished_analysis(monitor, reader, options):
    """What a live view showed must be what the record says afterwards, to the bit."""
    tokens, stream = reader(monitor, max_new_tokens=40, **options)
    analysis = stream.analysis
    rows = [token for token in tokens if token.metrics is not None]
    assert [bits(token.metrics) for token in rows] == [bits(row) for row in analysis.metrics]
    assert [token.token_id for token in rows] == analysis.generation.steps.token_ids.tolist()
    assert [token.entropy_lower for token in rows] == analysis.step.entropy_lower.tolist()
    assert [token.entropy_upper for token in rows] == analysis.step.entropy_upper.tolist()
    assert "".join(token.text for token in tokens) == analysis.generated_text
    alone = monitor.analyze(PROMPT, max_new_tokens=40, **options)
    assert alone.generated_text == analysis.generated_text
    assert alone.signals == analysis.signals


@pytest.mark.parametrize("seed", range(6))
def test_the_pieces_make_up_the_text_whatever_bytes_come(monitor, seed):
    """Characters of several tokens, broken ones and special tokens: nothing lost, doubled or torn."""
    tokens, stream = read(monitor, max_new_tokens=60, temperature=3.0, seed=seed)
    assert "".join(token.text for token in tokens) == stream.analysis.generated_text
    assert [token.metrics.step for token in tokens if token.metrics] == list(range(60))


def scripted(monkeypatch, model, ids):
    """Let the model choose these tokens and no others."""
    forward = model.forward
    steps = iter(ids)

    def chosen(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits[:, -1, next(steps)] = 1.0e4
        return outputs

    monkeypatch.setattr(model, "forward", chosen)


@pytest.mark.parametrize("text", ["Zürich → 東京 🌍!", "👩‍👩‍👧", " leading and trailing ", "\n\n", "नमस्ते"])
def test_characters_that_are_split_over_tokens_come_whole(monitor, model, tokenizer, monkeypatch, text):
    """A live view must never show half a character."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    scripted(monkeypatch, model, ids)
    tokens, stream = read(monitor, max_new_tokens=len(ids))
    assert stream.analysis.generation.steps.token_ids.tolist() == ids
    assert "".join(token.text for token in tokens) == stream.analysis.generated_text == text
    assert not any("\ufffd" in token.text for token in tokens)
    assert len(tokens) == len(ids)


def test_a_character_that_never_becomes_whole_comes_at_the_end(monitor, model, tokenizer, monkeypatch):
    """The text of the analysis has a mark there, and the stream must not be shorter than the text."""
    ids = tokenizer("a🌍", add_special_tokens=False)["input_ids"][:-1]
    scripted(monkeypatch, model, ids)
    tokens, stream = read(monitor, max_new_tokens=len(ids))
    assert len(tokens) == len(ids) + 1
    last = tokens[-1]
    assert (last.token_id, last.metrics) == (None, None)
    assert math.isnan(last.entropy_lower)
    assert "".join(token.text for token in tokens) == stream.analysis.generated_text
    assert last.text.endswith("\ufffd")


def test_special_tokens_are_steps_without_text(monitor, model, tokenizer, monkeypatch):
    """They are decisions of the model and no part of its answer."""
    special = tokenizer.pad_token_id
    ids = tokenizer("one two", add_special_tokens=False)["input_ids"]
    ids.insert(1, special)
    scripted(monkeypatch, model, ids)
    tokens, stream = read(monitor, max_new_tokens=len(ids))
    assert tokens[1].token_id == special
    assert tokens[1].text == ""
    assert tokens[1].metrics is not None
    assert "".join(token.text for token in tokens) == stream.analysis.generated_text == "one two"


def test_the_stop_token_is_not_told(backend, model, tokenizer, monkeypatch):
    """No signal counts it: a stream that did would not add up to its analysis."""
    ids = tokenizer("one two three", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(model.generation_config, "eos_token_id", ids[-1])
    scripted(monkeypatch, model, ids)
    monitor = HamiltonianMonitor(backend=LocalBackend(model, tokenizer))
    tokens, stream = read(monitor, max_new_tokens=50)
    assert [token.token_id for token in tokens] == ids[:-1]
    assert stream.analysis.generation.finish_reason == "stop"


def test_no_tokens_are_an_empty_stream_with_an_analysis(monitor):
    """Nothing asked, nothing told, nothing measured."""
    tokens, stream = read(monitor, max_new_tokens=0)
    assert (tokens, stream.analysis.verdict) == ([], "not_measured")


def test_a_stream_in_company_has_the_numbers_of_its_own_analysis(monitor):
    """Neighbours in the batch change neither its tokens nor what is said of them."""
    streams = [
        monitor.stream(prompt, max_new_tokens=12) for prompt in (PROMPT, "A", "Who is the employer of")
    ]
    with ThreadPoolExecutor(3) as pool:
        told: list[Any] = list(pool.map(list, streams))
    for tokens, stream in zip(told, streams, strict=True):
        rows = [bits(token.metrics) for token in tokens if token.metrics]
        assert rows == [bits(row) for row in stream.analysis.metrics]


# --- how it is read ---


def test_tokens_come_while_the_model_works(monitor, model, monkeypatch):
    """All at the end would be no stream."""
    gate = threading.Event()
    Slow(model, monkeypatch, at=3, action=lambda: gate.wait(60))
    with monitor.stream(PROMPT, max_new_tokens=5) as stream:
        first = [next(stream), next(stream)]
        gate.set()
        assert len(first + list(stream)) == 5


def test_a_slow_reader_gets_everything_and_holds_nobody_up(monitor):
    """The model does not wait for a terminal; what came meanwhile is kept in order."""
    stream = monitor.stream(PROMPT, max_new_tokens=20)
    first = next(stream)
    other = monitor.analyze("A", max_new_tokens=3)
    assert other.generation_steps == 3
    rest = list(stream)
    assert [t.metrics.step for t in [first, *rest] if t.metrics] == list(range(20))


def test_an_end_is_an_end(monitor):
    """Read again it gives nothing more, and its analysis stays."""
    stream = monitor.stream(PROMPT, max_new_tokens=3)
    with pytest.raises(ConfigurationError, match="not come to its end"):
        _ = stream.analysis
    assert len([token for token in stream if token.metrics]) == 3
    assert list(stream) == []
    stream.close()
    assert stream.analysis.generation_steps == 3


def test_an_unread_stream_costs_nothing(monitor, model, monkeypatch):
    """Made and never read: no model is loaded, nothing runs, nothing is held."""
    counted = Slow(model, monkeypatch)
    stream = monitor.stream(PROMPT)
    assert monitor.resource.state == "unloaded"
    stream.close()
    with pytest.raises(GenerationCancelledError, match="closed"):
        next(stream)
    assert counted.passes == 0


def test_a_stopped_stream_has_the_analysis_of_what_was_read(monitor, model, monkeypatch):
    """A live check that has seen enough wants a verdict and not an error."""
    stream = monitor.stream(PROMPT, max_new_tokens=400)
    Slow(model, monkeypatch, at=5, action=stream.stop)
    tokens = list(stream)
    assert len(tokens) == 5
    assert stream.analysis.generation.finish_reason == "early_stop"
    assert stream.analysis.generation_steps == 5


def test_a_bad_prompt_is_told_at_once_or_at_the_first_token(monitor):
    """Never as an empty stream."""
    with pytest.raises(InputError):
        monitor.stream("")
    with pytest.raises(InputError, match="context window"):
        next(monitor.stream("word " * 1900))
    assert monitor.resource.users == 0


def test_a_stream_goes_past_the_cache(monitor):
    """Nothing is kept of it, and nothing kept is given out as if it came just now."""
    monitor.analyze(PROMPT, max_new_tokens=3)
    _, stream = read(monitor, max_new_tokens=3)
    assert not stream.analysis.from_cache
    assert len(monitor.engine.cache) == 1


# --- how it ends early ---


def leave_by_closing(stream):
    next(stream)
    stream.close()


def leave_by_with(stream):
    with stream:
        next(stream)


def leave_by_break(stream):
    for _ in stream:
        break


def leave_by_error(stream):
    with contextlib.suppress(ZeroDivisionError), stream:
        for _ in stream:
            raise ZeroDivisionError


@pytest.mark.parametrize("leave", [leave_by_closing, leave_by_with, leave_by_break, leave_by_error])
def test_leaving_ends_the_generation_within_a_step(monitor, model, monkeypatch, leave):
    """Whoever stops reading must not keep the device busy to the last token, nor the model loaded."""
    left = threading.Event()
    counted = Slow(model, monkeypatch, at=2, action=lambda: left.wait(60))
    leave(monitor.stream(PROMPT, max_new_tokens=400))
    left.set()
    assert idle(monitor)
    assert counted.passes <= 2


def leave_async_by_break(monitor):
    async def run():
        async for _ in monitor.stream_async(PROMPT, max_new_tokens=400):
            break

    asyncio.run(run())


def leave_async_by_with(monitor):
    async def run():
        async with monitor.stream_async(PROMPT, max_new_tokens=400) as stream:
            await anext(stream)

    asyncio.run(run())


def leave_async_by_cancelling(monitor):
    async def run():
        first = asyncio.Event()

        async def reading():
            async for _ in stream:
                first.set()

        stream = monitor.stream_async(PROMPT, max_new_tokens=400)
        task = asyncio.create_task(reading())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def leave_async_with_the_loop(monitor):
    async def run():
        stream = monitor.stream_async(PROMPT, max_new_tokens=400)
        await anext(stream)
        left.append(stream)  # neither closed nor read on when its loop is gone

    left: list[Any] = []
    asyncio.run(run())
    left.clear()


@pytest.mark.parametrize(
    "leave",
    [leave_async_by_break, leave_async_by_with, leave_async_by_cancelling, leave_async_with_the_loop],
)
def test_a_task_that_leaves_ends_the_generation_within_a_step(monitor, model, monkeypatch, leave):
    """As for a thread, whatever happened to the event loop meanwhile."""
    left = threading.Event()
    counted = Slow(model, monkeypatch, at=2, action=lambda: left.wait(60))
    leave(monitor)
    left.set()
    assert idle(monitor)
    assert counted.passes <= 2


def test_an_abandoned_stream_in_a_circle_is_given_up_by_the_collector(monitor, model, monkeypatch):
    """An object of the caller's that refers to itself must not hold the model for good."""

    class Reader:
        def __init__(self):
            self.itself = self
            self.stream = monitor.stream(PROMPT, max_new_tokens=400)
            next(self.stream)

    left = threading.Event()
    counted = Slow(model, monkeypatch, at=2, action=lambda: left.wait(60))
    gc.disable()
    try:
        Reader()
        assert monitor.resource.users == 1
        gc.collect()
        assert monitor.resource.users == 0
    finally:
        gc.enable()
        left.set()
    assert idle(monitor)
    assert counted.passes <= 2


def test_a_stream_that_waits_in_the_queue_leaves_it_when_closed(model, tokenizer, monkeypatch):
    """Its place is somebody else's."""
    backend = LocalBackend(model, tokenizer, limits=BatchLimits(rows=1, waiting=1))
    monitor = HamiltonianMonitor(backend=backend)
    gate, begun = threading.Event(), threading.Event()

    def hold():
        begun.set()
        gate.wait(60)

    Slow(model, monkeypatch, at=1, action=hold)
    busy = monitor.stream("A", max_new_tokens=2)
    reader = threading.Thread(target=lambda: list(busy))
    reader.start()
    assert begun.wait(60)
    waits = monitor.stream(PROMPT, timeout=0.02)
    with pytest.raises(GenerationTimeoutError) as error:
        next(waits)
    assert error.value.partial is None
    assert len(backend._queue) == 0
    gate.set()
    reader.join()
    assert busy.analysis.generation_steps == 2
    backend.close()


KINDS = pytest.mark.parametrize("kind", ["thread", "task"])


def begin(monitor, kind, **options):
    return (monitor.stream if kind == "thread" else monitor.stream_async)(PROMPT, **options)


def read_into(told, stream):
    """Read a stream of either kind to its end, putting what comes into a list."""

    async def read_on():
        async for token in stream:
            told.append(token)

    if hasattr(stream, "__anext__"):
        asyncio.run(read_on())
    else:
        for token in stream:
            told.append(token)


@KINDS
def test_the_time_of_a_stream_ends_it_with_what_was_measured(monitor, model, monkeypatch, kind):
    """The tokens that came are told, then the error, which has their analysis."""
    stream = begin(monitor, kind, max_new_tokens=400, timeout=1000.0)
    counted = Slow(model, monkeypatch, at=4, action=lambda: end_time_of(stream))
    told: list[Any] = []
    with pytest.raises(GenerationTimeoutError) as error:
        read_into(told, stream)
    assert counted.passes == 4
    partial = error.value.partial
    assert [bits(t.metrics) for t in told if t.metrics] == [bits(row) for row in partial.metrics]
    assert (partial.generation.finish_reason, partial.generation_steps) == ("timeout", 4)
    assert idle(monitor)


def end_time_of(stream):
    stream._control.deadline = time.monotonic() - 1.0


@KINDS
def test_a_whole_answer_at_the_last_moment_is_told_whole(monitor, model, monkeypatch, kind):
    """When the last step ends after the deadline, its token is told before the stream ends."""
    stream = begin(monitor, kind, max_new_tokens=4, timeout=1000.0)
    told: list[Any] = []

    def over():
        while len(told) < 3:  # all before it were read, and the reader waits for the last one
            time.sleep(0.001)
        end_time_of(stream)
        time.sleep(0.02)

    monkeypatch.setattr(stream._control, "remaining", lambda: 0.001 if len(told) == 3 else 1000.0)
    Slow(model, monkeypatch, at=4, action=over)
    read_into(told, stream)
    assert len([token for token in told if token.metrics]) == 4
    assert stream.analysis.generation.finish_reason == "length"


@pytest.mark.parametrize("reader", [read, read_async])
def test_a_model_that_fails_ends_the_stream_with_its_error(monitor, model, monkeypatch, reader):
    """Not with a short answer that looks whole, and no token of NaN before it."""
    forward, passes = model.forward, []
    told: list[Any] = []

    def broken(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        passes.append(1)
        if len(passes) == 3:
            outputs.logits[:] = float("nan")
        return outputs

    monkeypatch.setattr(model, "forward", broken)
    stream = monitor.stream(PROMPT, max_new_tokens=10)
    with pytest.raises(NumericalError):
        read_into(told, stream)
    assert len(told) == 2
    with pytest.raises(NumericalError):
        next(stream)
    with pytest.raises(ConfigurationError):
        _ = stream.analysis
    passes.clear()
    with pytest.raises(NumericalError):
        reader(monitor, max_new_tokens=10)
    assert idle(monitor)


def test_closing_from_another_thread_wakes_the_reader(monitor, model, monkeypatch):
    """The button that stops a live view is not on the thread that reads."""
    stream = monitor.stream(PROMPT, max_new_tokens=400)
    Slow(model, monkeypatch, at=3, action=stream.close)
    with pytest.raises(GenerationCancelledError):
        list(stream)
    assert idle(monitor)


def test_energy_without_thresholds_is_not_measured_in_streams_either(backend):
    """The same columns are NaN live and at the end."""
    monitor = HamiltonianMonitor(backend=backend, config=TrajectoryConfig(entropy_threshold=None))
    tokens, stream = read(monitor, max_new_tokens=3)
    assert all(math.isnan(token.metrics.energy) for token in tokens if token.metrics)
    assert [bits(t.metrics) for t in tokens if t.metrics] == [bits(row) for row in stream.analysis.metrics]
