"""Ending a generation from outside, by a deadline, a word or going away: within a step, from any thread."""

import asyncio
import gc
import signal
import threading
import time
import weakref
from concurrent.futures import Future

import numpy as np
import pytest

pytest.importorskip("torch")

from cert.backends import GenerationRequest, Sampling
from cert.backends.control import Control, in_listener
from cert.backends.local import LocalBackend
from cert.backends.microbatch import BatchLimits
from cert.core.errors import ConfigurationError, GenerationCancelledError, GenerationTimeoutError

PROMPTS = ["The birth city of", "A", "What is the employer of someone whose name is rather long, and where?"]


@pytest.fixture
def backend(random_model, tokenizer):
    backend = LocalBackend(random_model, tokenizer, name="random")
    yield backend
    backend.close()


class AtStep:
    """Does something when a generation has made so many steps, and counts those that it made."""

    def __init__(self, step, action):
        self.step, self.action, self.last = step, action, 0

    def __call__(self, count):
        self.last = count
        if count == self.step:
            self.action()


def past(control):
    """The deadline is over, without anybody having to wait for it."""
    control.deadline = time.monotonic() - 1.0


def ended_at(backend, end, step=3, prompt=PROMPTS[0]):
    """Run a generation that ``end(control)`` ends at a step; its outcome and its last step."""
    controls: list[Control] = []
    listener = AtStep(step, lambda: end(controls[0]))
    controls.append(control := Control(timeout=1000.0, on_step=listener))
    future = backend.begin(GenerationRequest(prompt, max_new_tokens=40), control)
    try:
        return control.wait(future), listener.last
    except (GenerationTimeoutError, GenerationCancelledError) as error:
        return error, listener.last


# --- running generations ---


@pytest.mark.parametrize(
    ("end", "kind", "reason"),
    [
        (past, GenerationTimeoutError, "timeout"),
        (Control.cancel, GenerationCancelledError, "cancelled"),
    ],
)
def test_a_running_generation_ends_within_one_step_and_gives_what_it_has(backend, end, kind, reason):
    """A time-out that is looked at after the work is none; and what was measured is worth keeping."""
    whole = backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=40))
    error, last = ended_at(backend, end)
    assert isinstance(error, kind)
    assert last == 3
    assert error.partial.finish_reason == reason
    assert error.partial.steps.token_ids.tolist() == whole.steps.token_ids[:3].tolist()
    np.testing.assert_array_equal(error.partial.steps.logprob, whole.steps.logprob[:3])
    assert whole.text.startswith(error.partial.text)


def test_a_stopped_generation_is_a_result_and_not_an_error(backend):
    """Whoever has read enough wants the analysis of what he read."""
    generation, last = ended_at(backend, Control.stop)
    assert (generation.finish_reason, len(generation.steps), last) == ("early_stop", 3, 3)


@pytest.mark.parametrize("end", [past, Control.cancel, Control.stop])
def test_the_last_step_wins_over_the_end(backend, end):
    """An answer that is whole when its time is over is a whole answer."""
    generation, _ = ended_at(backend, end, step=40)
    assert generation.finish_reason == "length"
    assert len(generation.steps) == 40


def test_another_threads_word_ends_it_too(backend):
    """The button that cancels is never on the thread that waits."""
    reached, told = threading.Event(), threading.Event()

    def gate():
        reached.set()
        assert told.wait(30)

    control = Control(on_step=(listener := AtStep(5, gate)))
    future = backend.begin(GenerationRequest(PROMPTS[0], max_new_tokens=40), control)
    assert reached.wait(30)
    control.cancel()
    told.set()
    with pytest.raises(GenerationCancelledError) as error:
        control.wait(future)
    assert listener.last == 5
    assert len(error.value.partial.steps) == 5


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, seed=3)])
@pytest.mark.parametrize("end", [past, Control.cancel, Control.stop])
def test_the_neighbours_in_a_batch_go_on_with_the_same_tokens(backend, sampling, end):
    """One caller's time-out must neither shorten nor change the answer of another."""
    requests = [GenerationRequest(prompt, max_new_tokens=20, sampling=sampling) for prompt in PROMPTS]
    alone = [backend.generate(request) for request in requests]
    controls = [Control(timeout=1000.0) for _ in requests]
    listener = AtStep(4, lambda: end(controls[1]))
    controls[1] = Control(timeout=1000.0, on_step=listener)
    together = threading.Event()
    plug_control = Control(on_step=AtStep(1, lambda: together.wait(30)))
    plug = backend.begin(GenerationRequest("A", max_new_tokens=2, top_logprobs=1), plug_control)
    futures = [backend.begin(r, c) for r, c in zip(requests, controls, strict=True)]
    together.set()
    plug.result(timeout=60)
    for place in (0, 2):
        generation = futures[place].result(timeout=60)
        assert generation.steps.token_ids.tolist() == alone[place].steps.token_ids.tolist()
        np.testing.assert_allclose(generation.steps.logprob, alone[place].steps.logprob, atol=2e-5)
    assert listener.last == 4
    error = futures[1].exception(timeout=60)
    partial = futures[1].result() if error is None else error.partial
    assert partial.steps.token_ids.tolist() == alone[1].steps.token_ids[:4].tolist()


def test_a_listener_that_raises_ends_its_own_row_alone(backend):
    """A broken progress bar must not cost the neighbours their answers."""

    def fail():
        raise ZeroDivisionError

    bad = Control(on_step=(listener := AtStep(2, fail)))
    good = backend.begin(GenerationRequest(PROMPTS[0], max_new_tokens=6))
    broken = backend.begin(GenerationRequest(PROMPTS[1], max_new_tokens=6), bad)
    with pytest.raises(ZeroDivisionError):
        bad.wait(broken)
    assert listener.last == 2
    assert len(good.result(timeout=60).steps) == 6


# --- those that wait ---


@pytest.fixture
def busy(random_model, tokenizer):
    """A backend in the middle of a generation, with one place in its queue, and the key that frees it."""
    backend = LocalBackend(random_model, tokenizer, limits=BatchLimits(rows=1, waiting=1))
    reached, free = threading.Event(), threading.Event()

    def gate():
        reached.set()
        assert free.wait(60)

    control = Control(on_step=AtStep(1, gate))
    first = backend.begin(GenerationRequest("A", max_new_tokens=2), control)
    assert reached.wait(60)
    yield backend, free
    free.set()
    first.result(timeout=60)
    backend.close()


def test_a_waiting_request_is_withdrawn_at_its_deadline(busy):
    """It has nothing to give back, and its place is free at once."""
    backend, free = busy
    control = Control(timeout=0.01)
    future = backend.begin(GenerationRequest(PROMPTS[0]), control)
    with pytest.raises(GenerationTimeoutError, match=r"0\.01 s") as error:
        control.wait(future)
    assert error.value.partial is None
    after = backend.begin(GenerationRequest(PROMPTS[0], max_new_tokens=2))
    free.set()
    assert len(after.result(timeout=60).steps) == 2


def test_a_waiting_request_that_is_cancelled_wakes_whoever_waits_for_it(busy):
    """Without that the word would be heard only when the queue has moved, minutes later."""
    backend, _ = busy
    control = Control()
    future = backend.begin(GenerationRequest(PROMPTS[0]), control)
    threading.Timer(0.02, control.cancel).start()
    with pytest.raises(GenerationCancelledError):
        control.wait(future)
    assert future.cancelled()


def test_a_waiting_request_that_is_stopped_gives_its_first_token(busy):
    """A stop is no failure, wherever the request was when it came."""
    backend, free = busy
    control = Control()
    future = backend.begin(GenerationRequest(PROMPTS[0], max_new_tokens=20), control)
    control.stop()
    free.set()
    generation = control.wait(future)
    assert (generation.finish_reason, len(generation.steps)) == ("early_stop", 1)


# --- interrupts and tasks ---


def test_ctrl_c_while_waiting_ends_the_generation(backend):
    """Else the machine works on after the user has said stop."""
    ended = threading.Event()

    def interrupt():
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert ended.wait(60)  # the interrupt, and nothing else, gives the generation up

    control = Control(on_step=(listener := AtStep(3, interrupt)))
    control.on_end(ended.set)
    future = backend.begin(GenerationRequest(PROMPTS[0], max_new_tokens=40), control)
    with pytest.raises(KeyboardInterrupt):
        control.wait(future)
    assert isinstance(future.exception(timeout=60), GenerationCancelledError)
    assert listener.last == 3


def test_a_cancelled_task_ends_its_running_generation(backend):
    """A client that has hung up must not keep the device busy."""
    asyncio.run(_cancel_while_running(backend))


async def _cancel_while_running(backend):
    loop = asyncio.get_running_loop()
    ended = threading.Event()

    def hang_up():
        loop.call_soon_threadsafe(task.cancel)
        assert ended.wait(60)

    control = Control(on_step=(listener := AtStep(3, hang_up)))
    control.on_end(ended.set)
    future = backend.begin(GenerationRequest(PROMPTS[0], max_new_tokens=40), control)
    task = asyncio.create_task(control.wait_async(future))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await asyncio.to_thread(future.exception, 60), GenerationCancelledError)
    assert listener.last == 3


def test_a_cancelled_task_that_waits_frees_its_place(busy):
    """The queue is bounded: places of those who have gone must not refuse others."""
    backend, _ = busy

    async def hang_up():
        control = Control()
        future = backend.begin(GenerationRequest(PROMPTS[0]), control)
        task = asyncio.create_task(control.wait_async(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        return future

    assert asyncio.run(hang_up()).cancelled()
    backend.begin(GenerationRequest(PROMPTS[0], max_new_tokens=1)).cancel()


def test_a_task_hears_of_the_deadline_in_the_queue(busy):
    """As a thread does."""
    backend, _ = busy

    async def ask():
        control = Control(timeout=0.01)
        await control.wait_async(backend.begin(GenerationRequest(PROMPTS[0]), control))

    with pytest.raises(GenerationTimeoutError):
        asyncio.run(ask())


def test_a_result_that_comes_just_at_the_deadline_is_taken():
    """The loop knows of a result only a moment after it is there; that moment must not be a crash."""

    async def race():
        loop = asyncio.get_running_loop()
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()
        control = Control(timeout=0.01)
        task = asyncio.create_task(control.wait_async(future))
        await asyncio.sleep(0)
        loop.call_later(0.02, future.set_result, "whole")
        time.sleep(0.05)  # both are due now, the deadline first
        return await task

    assert asyncio.run(race()) == "whole"


def test_what_was_withdrawn_elsewhere_is_no_cancelled_task():
    """A model that is unloaded must not look like a task that was cancelled, which frameworks swallow."""

    async def wait():
        future: Future[str] = Future()
        control = Control()
        task = asyncio.create_task(control.wait_async(future))
        await asyncio.sleep(0)
        control.cancel()
        future.cancel()
        await task

    with pytest.raises(GenerationCancelledError):
        asyncio.run(wait())


@pytest.mark.parametrize("how", [asyncio.CancelledError, GenerationTimeoutError])
def test_whoever_goes_withdraws_what_waits_on_any_backend(how):
    """A future is all that some backends give: it has to be withdrawn itself."""

    async def go():
        future: Future[str] = Future()
        control = Control(timeout=0.01)
        task = asyncio.create_task(control.wait_async(future))
        await asyncio.sleep(0)
        if how is asyncio.CancelledError:
            task.cancel()
        with pytest.raises(how):
            await task
        await asyncio.sleep(0)
        return future

    assert asyncio.run(go()).cancelled()


# --- time ---


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), -float("inf")])
def test_a_timeout_that_is_no_time_is_refused(timeout):
    """0 is a mistake and not 'no limit'."""
    with pytest.raises(ConfigurationError, match="positive"):
        Control(timeout=timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 1e11])
def test_a_timeout_beyond_all_time_is_no_limit(timeout):
    """The system's own waits overflow there."""
    future: Future[str] = Future()
    threading.Timer(0.01, future.set_result, args=("done",)).start()
    assert Control(timeout=timeout).wait(future) == "done"


def test_the_time_can_be_counted_anew():
    """Loading a model takes longer than most time-outs, and is not part of them."""
    control = Control(timeout=1000.0)
    past(control)
    control.restart()
    assert control.ending is None
    remaining = control.remaining()
    assert remaining is not None
    assert remaining > 990.0


# --- around it ---


def test_a_listener_knows_that_it_is_one(backend):
    """What waits for the same backend there waits for ever; those who could must be able to tell."""
    seen = []
    backend.generate(
        GenerationRequest("A", max_new_tokens=2), on_step=lambda count: seen.append(in_listener())
    )
    assert seen == [True, True]
    assert not in_listener()


def test_the_word_is_told_once_to_each_listener_and_at_once_to_a_late_one():
    """A backend that hears it twice would cancel the next request on the same connection."""
    control, heard = Control(), []
    control.on_end(lambda: heard.append("early"))
    for thread in (threads := [threading.Thread(target=control.cancel) for _ in range(20)]):
        thread.start()
    for thread in threads:
        thread.join()
    control.stop()
    control.on_end(lambda: heard.append("late"))
    assert heard == ["early", "late"]
    assert control.ending == "cancelled"


def test_an_error_that_was_dropped_leaves_nothing_behind(backend):
    """A traceback holds the frames it passed; held by itself, it would hold a model until the next sweep."""

    class Mark:
        pass

    def fail():
        raise ZeroDivisionError

    def ask(mark):
        control = Control(on_step=AtStep(1, fail))
        try:
            control.wait(backend.begin(GenerationRequest("A", max_new_tokens=2), control))
        except ZeroDivisionError:
            return weakref.ref(mark)

    gc.collect()
    gc.disable()
    try:
        reference = ask(Mark())
        backend.close()  # its thread may still be at the end of the batch
        assert reference() is None
    finally:
        gc.enable()
