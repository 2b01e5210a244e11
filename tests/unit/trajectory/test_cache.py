"""Each answer is made once, kept while it is worth it, and handed to nobody whom it does not belong to."""

import asyncio
import dataclasses
import gc
import itertools
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from cert.backends import GenerationRequest, Message, Sampling, ScoreRequest
from cert.backends.base import ModelIdentity
from cert.backends.local import LocalBackend
from cert.core.errors import (
    ConfigurationError,
    GenerationCancelledError,
    GenerationError,
    GenerationTimeoutError,
    InputError,
    NumericalError,
)
from cert.trajectory import HamiltonianMonitor, TrajectoryConfig
from cert.trajectory.cache import Follow, Hit, Lead, LeaderGoneError, SingleFlightCache
from cert.trajectory.engine import HamiltonianEngine

PROMPT = "The birth city of"


# --- the cache itself ---


def test_one_leads_the_others_follow_and_later_ones_hit():
    """A question that a hundred ask at once is answered once."""
    cache: SingleFlightCache[str] = SingleFlightCache(10)
    lead = cache.claim("key")
    followers = [cache.claim("key") for _ in range(3)]
    assert isinstance(lead, Lead)
    lead.fulfil("answer")
    assert [f.future.result(timeout=0) for f in followers if isinstance(f, Follow)] == ["answer"] * 3
    assert cache.claim("key") == Hit("answer")
    assert isinstance(cache.claim("other"), Lead)


@pytest.mark.parametrize(
    "error", [GenerationTimeoutError("t"), GenerationCancelledError("c"), KeyboardInterrupt()]
)
def test_what_is_the_leaders_own_makes_the_others_ask_again(error):
    """One caller's short time-out must not fail those with a long one."""
    cache: SingleFlightCache[str] = SingleFlightCache(10)
    lead, follow = cache.claim("key"), cache.claim("key")
    assert isinstance(lead, Lead)
    assert isinstance(follow, Follow)
    lead.fail(error)
    with pytest.raises(LeaderGoneError):
        follow.future.result(timeout=0)
    assert isinstance(cache.claim("key"), Lead)


def test_what_the_question_fails_with_is_told_to_all_each_a_copy():
    """The same prompt is too long for everyone; one exception object in ten threads tangles tracebacks."""
    cache: SingleFlightCache[str] = SingleFlightCache(10)
    lead, *follows = [cache.claim("key") for _ in range(3)]
    assert isinstance(lead, Lead)
    error = InputError("too long", hint="shorten it", context={"tokens": 9})
    lead.fail(error)
    told = [f.future.exception(timeout=0) for f in follows if isinstance(f, Follow)]
    assert len({id(e) for e in [error, *told]}) == 3
    for one in told:
        assert isinstance(one, InputError)
        assert one.to_dict() == error.to_dict()


def test_what_a_leaders_listener_raised_is_told_to_nobody():
    """His progress bar refused, not the model."""
    cache: SingleFlightCache[str] = SingleFlightCache(10)
    lead, follow = cache.claim("key"), cache.claim("key")
    assert isinstance(lead, Lead)
    assert isinstance(follow, Follow)
    lead.fail(InputError("mine"), own=True)
    with pytest.raises(LeaderGoneError):
        follow.future.result(timeout=0)


def test_clearing_in_the_middle_keeps_nothing_of_before():
    """After a clear nobody may get what was asked for before it; those who waited still get it."""
    cache: SingleFlightCache[str] = SingleFlightCache(10)
    old = cache.claim("key")
    follow = cache.claim("key")
    cache.clear()
    new = cache.claim("key")
    assert isinstance(old, Lead)
    assert isinstance(new, Lead)
    assert isinstance(follow, Follow)
    old.fulfil("old")
    assert follow.future.result(timeout=0) == "old"
    assert isinstance(cache.claim("key"), Follow)
    new.fulfil("new")
    assert cache.claim("key") == Hit("new")
    cache.clear()
    assert (len(cache), isinstance(cache.claim("key"), Lead)) == (0, True)


def test_no_size_keeps_nothing_and_still_shares():
    """Who switches the cache off still does not want the same work done twice at once."""
    cache: SingleFlightCache[str] = SingleFlightCache(0)
    lead, follow = cache.claim("key"), cache.claim("key")
    assert isinstance(lead, Lead)
    assert isinstance(follow, Follow)
    lead.fulfil("answer")
    assert follow.future.result(timeout=0) == "answer"
    assert isinstance(cache.claim("key"), Lead)
    assert len(cache) == 0


@pytest.mark.parametrize("size", [1, 2, 10])
def test_a_small_cache_keeps_its_bound_and_the_newest(size):
    """The bound is a promise about memory; a question that is repeated at once is answered at once."""
    cache: SingleFlightCache[int] = SingleFlightCache(size)
    for number in range(100):
        lead = cache.claim(number)
        assert isinstance(lead, Lead)
        lead.fulfil(number)
        assert cache.claim(number) == Hit(number)
        assert len(cache) <= size


def test_a_negative_size_is_refused():
    """-1 as 'no limit' would be a leak, as 'off' a surprise."""
    with pytest.raises(ConfigurationError):
        SingleFlightCache(-1)


def test_the_hit_rate_of_a_zipf_trace_is_above_seventy_per_cent():
    """The promise of decision 0005: 10,000 prompts by Zipf's law, 1,000 places."""
    ranks = np.arange(1, 10_001)
    weights = 1.0 / ranks
    trace = np.random.default_rng(7).choice(10_000, size=120_000, p=weights / weights.sum()).tolist()
    cache: SingleFlightCache[int] = SingleFlightCache(1000)
    hits = 0
    for at, key in enumerate(trace):
        claim = cache.claim(key)
        if isinstance(claim, Lead):
            claim.fulfil(key)
        elif at >= 20_000:
            hits += 1
    assert hits / 100_000 > 0.70
    assert len(cache) <= 1000


def test_a_cache_that_nobody_holds_is_collected():
    """A monitor that is dropped must take its thousand analyses along."""
    cache: SingleFlightCache[str] = SingleFlightCache(10)
    assert cache._kept is not None
    kept = weakref.ref(cache._kept)
    cache._kept._maintainer.result(timeout=30)  # the library's own task ends, and lets go of it
    del cache
    gc.collect()
    assert kept() is None


def test_threads_that_lead_and_follow_in_any_order_all_get_the_answer():
    """Races between landing and claiming must lose nobody."""
    cache: SingleFlightCache[int] = SingleFlightCache(8)
    made = itertools.count()

    def ask(key: int) -> int:
        while True:
            claim = cache.claim(key)
            if isinstance(claim, Hit):
                return claim.value
            if isinstance(claim, Lead):
                if next(made) % 3 == 0:
                    claim.fail(GenerationTimeoutError("mine"))
                    continue
                claim.fulfil(key)
                return key
            try:
                return claim.future.result(timeout=30)
            except LeaderGoneError:
                continue

    with ThreadPoolExecutor(50) as pool:
        keys = [number % 20 for number in range(5_000)]
        assert list(pool.map(ask, keys)) == keys


# --- the key ---

BASE = GenerationRequest("prompt", 10, Sampling(0.5, 0.9, 5, 7), 20)
IDENTITY = ModelIdentity("name", "revision", "transformers", 100, 128, "cpu", "float32")


class Named:
    """A backend of which only the identity is asked."""

    def __init__(self, identity):
        self.identity = identity


def key(request=BASE, identity=IDENTITY, **config):
    engine: Any = object.__new__(HamiltonianEngine)
    engine.config = TrajectoryConfig(**config)
    engine.gate = None
    return engine.key(Named(identity), request)


def another(value):
    if isinstance(value, str) or value is None:
        return f"{value}!"
    return value / 2 if isinstance(value, float) else value + 1


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(ModelIdentity)])
def test_another_model_is_another_key(field):
    """An answer of one revision, device or precision is no answer of another."""
    changed = dataclasses.replace(IDENTITY, **{field: another(getattr(IDENTITY, field))})
    assert key(identity=changed) != key()


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(TrajectoryConfig)])
def test_another_setting_is_another_key(field):
    """A verdict under one threshold is no verdict under another."""
    config = {field: another(getattr(TrajectoryConfig(), field) or 1.0)}
    if field in ("top_p", "temperature"):
        config = {field: 0.25}
    assert key(**config) != key()
    assert hash(key(**config)) != hash(key())


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Sampling)])
def test_another_way_of_sampling_is_another_key(field):
    """The seed above all."""
    sampling = dataclasses.replace(BASE.sampling, **{field: another(getattr(BASE.sampling, field))})
    assert key(dataclasses.replace(BASE, sampling=sampling)) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "other"},
        {"prompt": (Message("user", "prompt"),)},
        {"max_new_tokens": 11},
        {"top_logprobs": 21},
    ],
)
def test_another_request_is_another_key(change):
    """Text and the message with that text are two questions."""
    assert key(dataclasses.replace(BASE, **change)) != key()


def test_given_texts_have_keys_of_their_own():
    """A scored text is no generation, and ids are no text."""
    keys = [
        key(ScoreRequest("p", completion="c")),
        key(ScoreRequest("pc", completion="")),
        key(ScoreRequest("p", token_ids=(1,))),
        key(ScoreRequest("p", token_ids=(1,), top_logprobs=3)),
        key(ScoreRequest((Message("user", "p"),), completion="c")),
        key(GenerationRequest("p")),
    ]
    assert len(set(keys)) == len(keys)


@given(
    top_p=st.none() | st.floats(0.01, 1.0),
    top_k=st.none() | st.integers(0, 100),
    seed=st.none() | st.integers(0, 2**62),
)
def test_a_greedy_answer_is_the_same_whatever_the_seed(top_p, top_k, seed):
    """Nothing else of the sampling plays a part, and a cache that says otherwise is half as good."""
    greedy = GenerationRequest("prompt", sampling=Sampling(0.0, top_p, top_k, seed))
    assert key(greedy) == key(GenerationRequest("prompt"))


# --- in a monitor ---


@pytest.fixture(scope="module")
def loaded():
    backend = LocalBackend.load("reference")
    yield backend
    backend.close()


class Counting:
    """The reference model, counting what it is asked and held up where a test wants it."""

    def __init__(self, backend):
        self.backend, self.begun, self.gate = backend, 0, None

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def prepare(self, request, control):
        begin = self.backend.prepare(request, control)

        def counted():
            self.begun += 1
            if self.gate is None:
                return begin()
            return self.gate(begin, control)

        return counted


@pytest.fixture
def counting(loaded):
    return Counting(loaded)


@pytest.fixture
def monitor(counting):
    return HamiltonianMonitor(backend=counting)


class Held:
    """Holds the first generation up: the test has its control, and says when it may begin."""

    def __init__(self):
        self.begun, self.open = threading.Event(), threading.Event()
        self.control = None
        self.count = 0

    def __call__(self, begin, control):
        self.count += 1
        if self.count > 1:
            return begin()
        self.control = control
        future: Future[Any] = Future()
        self.begun.set()
        control.on_end(future.cancel)

        def later():
            assert self.open.wait(60)
            if future.set_running_or_notify_cancel():
                real = begin()
                real.add_done_callback(
                    lambda done: (
                        future.set_exception(done.exception())
                        if done.exception()
                        else future.set_result(done.result())
                    )
                )

        threading.Thread(target=later, daemon=True).start()
        return future


@pytest.fixture
def held(counting):
    counting.gate = Held()
    yield counting.gate
    counting.gate.open.set()


def in_thread(call):
    """Run a call on a thread; its future."""
    future: Future[Any] = Future()

    def run():
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def waiting(monitor, count):
    """Wait until so many follow."""
    for _ in range(10_000):
        flights = list(monitor.engine.cache._flights.values())
        if flights and len(flights[0].followers) >= count:
            return
        threading.Event().wait(0.001)
    raise AssertionError("nobody follows")


def test_a_repeated_question_is_answered_from_the_cache_and_says_so(monitor, counting):
    """The same bits, and honest about where they come from."""
    first, second = (monitor.analyze(PROMPT, max_new_tokens=4) for _ in range(2))
    assert (first.from_cache, second.from_cache, counting.begun) == (False, True, 1)
    assert second.generation is first.generation
    assert not monitor.analyze(PROMPT, max_new_tokens=4, use_cache=False).from_cache
    monitor.clear_cache()
    assert not monitor.analyze(PROMPT, max_new_tokens=4).from_cache
    assert counting.begun == 3


def test_samples_without_a_seed_are_new_ones_unless_it_is_asked_otherwise(counting):
    """Ten samples that are one sample would look like perfect agreement."""
    monitor = HamiltonianMonitor(backend=counting)
    fresh = [monitor.analyze(PROMPT, temperature=1.0, max_new_tokens=2) for _ in "12"]
    assert fresh[0].generation.sampling != fresh[1].generation.sampling
    assert not fresh[1].from_cache
    seeded = [monitor.analyze(PROMPT, temperature=1.0, seed=5, max_new_tokens=2) for _ in "12"]
    assert seeded[1].from_cache
    keeping = HamiltonianMonitor(backend=counting, cache_unseeded=True)
    kept = [keeping.analyze(PROMPT, temperature=1.0, max_new_tokens=2) for _ in "12"]
    assert kept[1].from_cache


def test_threads_and_tasks_share_one_generation(monitor, counting, held):
    """However they ask, the device works once."""
    lead = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4))
    assert held.begun.wait(60)
    threads = [in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4)) for _ in range(5)]

    async def tasks():
        return await asyncio.gather(*(monitor.analyze_async(PROMPT, max_new_tokens=4) for _ in range(5)))

    loop = in_thread(lambda: asyncio.run(tasks()))
    waiting(monitor, 10)
    held.open.set()
    results = [future.result(timeout=60) for future in [lead, *threads]] + loop.result(timeout=60)
    assert counting.begun == 1
    assert {id(result.generation) for result in results} == {id(results[0].generation)}
    assert sum(not result.from_cache for result in results) == 1


@pytest.mark.parametrize("how", ["cancel", "timeout"])
@pytest.mark.parametrize("leader", ["thread", "task"])
def test_a_leader_that_goes_away_leaves_a_follower_to_go_on(monitor, counting, held, how, leader):
    """Whoever came first may hang up; the others still get their answer."""
    ask = {"max_new_tokens": 4, "timeout": 0.2 if how == "timeout" else None}
    if leader == "thread":
        lead = in_thread(lambda: monitor.analyze(PROMPT, **ask))
    else:
        lead = in_thread(lambda: asyncio.run(monitor.analyze_async(PROMPT, **ask)))
    assert held.begun.wait(60)
    follow = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4))
    other = in_thread(lambda: asyncio.run(monitor.analyze_async(PROMPT, max_new_tokens=4)))
    waiting(monitor, 2)
    if how == "cancel":
        held.control.cancel()
    expected = GenerationTimeoutError if how == "timeout" else GenerationCancelledError
    assert isinstance(lead.exception(timeout=60), expected)
    assert follow.result(timeout=60).generation is other.result(timeout=60).generation
    assert counting.begun == 2


def test_a_cancelled_task_that_led_leaves_a_follower_to_go_on(monitor, counting, held):
    """A client that disconnects must not take the others with it."""

    async def run():
        lead = asyncio.create_task(monitor.analyze_async(PROMPT, max_new_tokens=4))
        await asyncio.to_thread(held.begun.wait, 60)
        follow = asyncio.create_task(monitor.analyze_async(PROMPT, max_new_tokens=4))
        await asyncio.to_thread(waiting, monitor, 1)
        lead.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lead
        return await follow

    assert asyncio.run(run()).generation_steps == 4
    assert counting.begun == 2


def test_a_followers_own_end_does_no_harm(monitor, counting, held):
    """Neither to the one who makes the answer nor to the others who wait for it."""
    lead = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4))
    assert held.begun.wait(60)
    patient = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4))
    with pytest.raises(GenerationTimeoutError):
        monitor.analyze(PROMPT, max_new_tokens=4, timeout=0.02)

    async def hang_up():
        task = asyncio.create_task(monitor.analyze_async(PROMPT, max_new_tokens=4))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(hang_up())
    held.open.set()
    assert lead.result(timeout=60).generation is patient.result(timeout=60).generation
    assert counting.begun == 1


def test_a_question_that_fails_fails_for_all_who_asked(monitor, counting, held):
    """A follower need not find out for himself that the model gives no numbers."""
    lead = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4))
    assert held.begun.wait(60)
    follow = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4))
    waiting(monitor, 1)
    forward = counting.backend.model.forward

    def broken(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits[:] = float("nan")
        return outputs

    counting.backend.model.forward = broken
    try:
        held.open.set()
        errors = [future.exception(timeout=60) for future in (lead, follow)]
    finally:
        del counting.backend.model.forward
    assert [type(error) for error in errors] == [NumericalError] * 2
    assert errors[0] is not errors[1]
    assert counting.begun == 1


def test_a_listener_of_the_leader_that_refuses_is_not_the_followers_failure(monitor, counting, held):
    """Even when it raises one of our own errors."""

    def refuse(_steps):
        raise GenerationError("I have seen enough")

    lead = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4, on_step=refuse))
    assert held.begun.wait(60)
    follow = in_thread(lambda: monitor.analyze(PROMPT, max_new_tokens=4))
    waiting(monitor, 1)
    held.open.set()
    assert "seen enough" in str(lead.exception(timeout=60))
    assert follow.result(timeout=60).generation_steps == 4


def test_an_error_is_not_kept(monitor, counting):
    """The next one who asks finds out anew: memory may be there again."""
    forward = counting.backend.model.forward

    def broken(*args, **kwargs):
        raise ValueError("once")

    counting.backend.model.forward = broken
    try:
        with pytest.raises(GenerationError):
            monitor.analyze(PROMPT, max_new_tokens=2)
    finally:
        counting.backend.model.forward = forward
        del counting.backend.model.forward
    assert monitor.analyze(PROMPT, max_new_tokens=2).generation_steps == 2


def test_a_listener_may_ask_its_own_question(monitor):
    """It would wait for itself: the answer is being made by the very thread that asks."""
    inner = []

    def ask(count):
        if count == 2:
            inner.append(monitor.analyze(PROMPT, max_new_tokens=4))

    outer = monitor.analyze(PROMPT, max_new_tokens=4, on_step=ask)
    assert inner[0].generated_text == outer.generated_text


def test_a_caller_cannot_spoil_what_is_kept_for_others(monitor):
    """Writing into a result is an error at the place where it is done, not a wrong number elsewhere."""
    result = monitor.analyze(PROMPT, max_new_tokens=4)
    columns = [result.energy, result.generation.offsets]
    for part in (result.generation.steps, result.step, result.running, result.generation.stop_step):
        fields = dataclasses.fields(part) if part is not None else ()
        columns += [value for f in fields if isinstance(value := getattr(part, f.name), np.ndarray)]
    assert len(columns) > 15
    for column in columns:
        with pytest.raises(ValueError, match="read-only"):
            column[...] = 0
