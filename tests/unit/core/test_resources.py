"""Loading and unloading under many threads."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cert.core.errors import ConfigurationError, InputError, ModelLoadError, OutOfMemoryError, ResourceError
from cert.core.events import Event, EventHub, ModelLoaded, ModelUnloaded
from cert.core.memory import MemoryReading, MemoryTracker
from cert.core.resources import ManagedResource, preload


class Thing:
    def __init__(self) -> None:
        self.alive = True


class Scripted(ManagedResource[Thing]):
    """A resource that counts, and that fails when it is told to."""

    def __init__(self, name: str = "thing", **options) -> None:
        super().__init__(name, **options)
        self.loads = self.releases = self.abandoned = 0
        self.before_load: Callable[[], None] = lambda: None
        self.failure: BaseException | None = None
        self.release_failure: Exception | None = None

    def _load(self) -> Thing:
        self.before_load()
        if self.failure is not None:
            raise self.failure
        self.loads += 1
        assert self.loads - self.releases == 1, "two of them in memory at once"
        return Thing()

    def _release(self, value: Thing) -> None:
        assert value.alive
        value.alive = False
        self.releases += 1
        if self.release_failure is not None:
            raise self.release_failure

    def _abandon(self) -> None:
        self.abandoned += 1


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run work on several threads and return what they raised."""
    errors: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"
    return errors


class Life(RuleBasedStateMachine):
    """Any order of loads, failures, uses and unloads on one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.resource = Scripted()
        self.stacks: list[tuple[ExitStack, Thing]] = []
        self.loaded = False
        self.failed = False

    @rule()
    def load(self):
        self.resource.load()
        self.loaded, self.failed = True, False

    @rule()
    def fail_to_load(self):
        self.resource.failure = ModelLoadError("no")
        if self.loaded:
            self.resource.load()
        else:
            with pytest.raises(ModelLoadError):
                self.resource.load()
            self.failed = True
        self.resource.failure = None

    @rule()
    def acquire(self):
        stack = ExitStack()
        self.stacks.append((stack, stack.enter_context(self.resource.acquire())))
        self.loaded, self.failed = True, False

    @precondition(lambda self: self.stacks)
    @rule(data=st.data(), raising=st.booleans())
    def give_back(self, data, raising):
        stack, _ = self.stacks.pop(data.draw(st.integers(0, len(self.stacks) - 1)))
        error = ValueError("in the block")
        if raising:
            assert not stack.__exit__(ValueError, error, None)
        else:
            stack.close()

    @rule()
    def unload(self):
        if self.stacks:
            with pytest.raises(ResourceError, match="in use"):
                self.resource.unload(wait=0)
        else:
            self.resource.unload(wait=0)
            self.loaded = False

    @invariant()
    def is_what_was_asked_for(self):
        assert self.resource.state == ("loaded" if self.loaded else "unloaded")
        assert self.resource.users == len(self.stacks)
        assert self.resource.loads - self.resource.releases == int(self.loaded)
        assert all(thing.alive for _, thing in self.stacks)
        healthy = {"loaded": "healthy", "unloaded": "unhealthy" if self.failed else "degraded"}
        assert self.resource.health().status == healthy[self.resource.state]

    def teardown(self):
        for stack, _ in self.stacks:
            stack.close()


TestLife = Life.TestCase
TestLife.__doc__ = "A user never holds what was unloaded, and nothing is ever in memory twice."


def test_threads_share_one_load():
    """Eight requests at start must not load eight copies of a model."""
    resource, barrier = Scripted(), threading.Barrier(8)
    resource.before_load = lambda: time.sleep(0.02)

    def use(_: int) -> None:
        barrier.wait(10)
        with resource.acquire() as thing:
            assert thing.alive

    assert in_threads(8, use) == []
    assert resource.loads == 1
    assert resource.users == 0


def test_a_failed_load_is_told_to_all_who_waited_and_can_be_tried_again():
    """A passing fault at start must not leave the others waiting, nor the model unusable for good."""
    resource, calls = Scripted(), 0
    everyone = threading.Semaphore(0)

    def before() -> None:
        nonlocal calls
        calls += 1
        for _ in range(4):
            assert everyone.acquire(timeout=10)
        time.sleep(0.05)  # those that said so are about to wait

    resource.before_load = before
    resource.failure = ModelLoadError("half a file")

    def load(_: int) -> None:
        everyone.release()
        resource.load()

    errors = in_threads(4, load)
    assert [type(error) for error in errors] == [ModelLoadError] * 4
    assert calls == 1
    assert resource.abandoned == 1
    assert resource.state == "unloaded"
    found = resource.health()
    assert (found.status, found.code, found.detail) == ("unhealthy", "model_load", "half a file")
    resource.failure, resource.before_load = None, lambda: None
    resource.load()
    assert resource.health().status == "healthy"


def test_an_interrupted_load_is_taken_over_by_a_waiter():
    """Control-C in one thread says nothing of the model; the other threads must still get it."""
    resource = Scripted()
    entered, waiting = threading.Event(), threading.Event()

    def before() -> None:
        if not entered.is_set():
            entered.set()
            assert waiting.wait(10)
            time.sleep(0.05)
            raise KeyboardInterrupt

    resource.before_load = before

    def work(index: int) -> None:
        if index:
            assert entered.wait(10)
            waiting.set()
        resource.load()

    assert [type(error) for error in in_threads(2, work)] == [KeyboardInterrupt]
    assert resource.state == "loaded"
    assert resource.loads == 1


def test_a_failed_load_keeps_nothing_in_memory():
    """After an out-of-memory error the half-loaded model must be gone, or the next try fails as well."""

    class Half(ManagedResource[Thing]):
        kept: weakref.ref[Thing]

        def _load(self) -> Thing:
            half = Thing()
            self.kept = weakref.ref(half)
            raise OutOfMemoryError("full")

    resource = Half("half")
    with pytest.raises(OutOfMemoryError):
        resource.load()
    gc.collect()
    assert resource.kept() is None
    assert resource.health().code == "out_of_memory"


def test_an_error_while_clearing_up_does_not_hide_the_first():
    """The user needs to read why the load failed, not why the broom broke."""

    class Broken(Scripted):
        def _abandon(self) -> None:
            raise RuntimeError("broom")

    resource = Broken()
    resource.failure = ModelLoadError("no")
    with pytest.raises(ModelLoadError) as caught:
        resource.load()
    assert "broom" in caught.value.__notes__[0]
    assert resource.state == "unloaded"


def test_unloading_waits_for_the_users_and_refuses_new_ones():
    """A model must not vanish under a request, nor a busy service keep it for ever."""
    resource = Scripted()
    using, release, seen = threading.Event(), threading.Event(), list[str]()

    def work(index: int) -> None:
        if index == 0:
            with resource.acquire() as thing:
                using.set()
                assert release.wait(10)
                assert thing.alive
            return
        assert using.wait(10)
        if index == 1:
            resource.unload(wait=10)
            seen.append("unloaded")
            return
        while resource.state != "unloading":
            time.sleep(0.001)
        assert resource.health().status == "degraded"
        assert resource.health(require_loaded=True).status == "unhealthy"
        for refused in (resource.load, lambda: resource.acquire().__enter__()):
            with pytest.raises(ResourceError, match="being unloaded"):
                refused()
        assert not seen
        release.set()

    assert in_threads(3, work) == []
    assert seen == ["unloaded"]
    assert resource.state == "unloaded"
    assert resource.releases == 1


def test_unloading_in_vain_leaves_it_usable():
    """After a refused unload the service goes on as before."""
    resource = Scripted()
    with resource.acquire() as thing:
        with pytest.raises(ResourceError, match="in use") as caught:
            resource.unload(wait=0.01)
        assert caught.value.context["users"] == 1
        assert thing.alive
        with resource.acquire() as same:
            assert same is thing
    resource.unload(wait=0)
    assert resource.state == "unloaded"


def test_unloading_waits_for_a_load_in_progress():
    """A shutdown during start-up must neither crash nor leave the model behind."""
    resource, entered, go_on = Scripted(), threading.Event(), threading.Event()

    def before() -> None:
        entered.set()
        assert go_on.wait(10)

    resource.before_load = before

    def work(index: int) -> None:
        if index == 0:
            resource.load()
            return
        assert entered.wait(10)
        with pytest.raises(ResourceError):
            resource.unload(wait=0)
        go_on.set()
        resource.unload(wait=10)

    assert in_threads(2, work) == []
    assert (resource.loads, resource.releases) == (1, 1)


def test_many_unloads_release_once():
    """Shutdown hooks run twice; releasing twice crashes drivers."""
    resource = Scripted()
    resource.load()
    assert in_threads(6, lambda _: resource.unload()) == []
    assert resource.releases == 1


def test_an_error_on_release_still_counts_as_unloaded():
    """A driver that complains on the way out must not make the resource unusable."""
    resource = Scripted()
    resource.load()
    resource.release_failure = RuntimeError("driver")
    with pytest.raises(RuntimeError, match="driver"):
        resource.unload()
    assert resource.state == "unloaded"
    resource.release_failure = None
    with resource.acquire() as thing:
        assert thing.alive


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf")])
def test_a_wait_that_cannot_be_right_is_refused(wait):
    """Waiting for infinity is a shutdown that hangs."""
    with pytest.raises(ConfigurationError):
        Scripted().unload(wait=wait)


def test_threads_in_any_order_never_see_what_was_unloaded():
    """Under real contention no request works on a model that is gone, and none hangs."""
    resource, refused = Scripted(), list[int]()

    def work(index: int) -> None:
        dice = random.Random(index)
        for _ in range(150):
            try:
                match dice.randrange(10):
                    case 0:
                        resource.unload(wait=dice.choice([0, 0.001, 0.05]))
                    case 1:
                        resource.load()
                    case _:
                        with resource.acquire() as thing:
                            if dice.random() < 0.1:
                                time.sleep(0.0005)
                            assert thing.alive
            except ResourceError:
                refused.append(index)

    assert in_threads(8, work) == []
    assert refused, "nothing was ever refused: the test did not contend"
    assert resource.users == 0
    resource.unload()
    assert resource.loads == resource.releases > 1


def test_a_load_does_not_stop_the_event_loop():
    """While a model loads for ten seconds a service has to answer its liveness probe."""
    resource, go_on = Scripted(), threading.Event()

    def before() -> None:
        assert go_on.wait(10)

    resource.before_load = before

    async def scenario() -> None:
        async def use() -> bool:
            async with resource.acquire_async() as thing:
                return thing.alive

        tasks = [asyncio.create_task(use()) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in tasks)
        go_on.set()
        assert await asyncio.gather(*tasks) == [True, True, True]

    asyncio.run(scenario())
    assert (resource.loads, resource.users) == (1, 0)


def test_a_cancelled_wait_for_a_load_leaves_no_user_behind():
    """A client that hangs up during the load must not make the model impossible to unload."""
    resource, entered, go_on = Scripted(), threading.Event(), threading.Event()

    def before() -> None:
        entered.set()
        assert go_on.wait(10)

    resource.before_load = before

    async def scenario() -> None:
        async def use() -> None:
            async with resource.acquire_async():
                pytest.fail("cancelled before")

        task = asyncio.create_task(use())
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        go_on.set()

    asyncio.run(scenario())
    assert resource.users == 0
    resource.unload(wait=5)


def test_events_say_what_was_loaded_and_how_much_it_took():
    """The memory of a model on a dashboard has to be measured, or be missing: never zero by default."""
    seen: list[Event] = []
    hub = EventHub()
    hub.observe(seen.append)
    used = iter([100, 1100, 1100])
    measured = MemoryTracker(10**9, read=lambda device: MemoryReading(device, next(used), None, None))
    blind = MemoryTracker(10**9, read=lambda device: MemoryReading(device, None, None, None))
    for name, memory in (("measured", measured), ("blind", blind)):
        resource = Scripted(name, hub=hub, memory=memory, device="cuda:0")
        resource.load()
        resource.load()
        resource.unload()
        resource.unload()
    assert hub.flush()
    told = [(e.model, e.device, e.bytes_used) for e in seen if isinstance(e, ModelLoaded)]
    assert told == [("measured", "cuda:0", 1000), ("blind", "cuda:0", None)]
    assert [e.model for e in seen if isinstance(e, ModelUnloaded)] == ["measured", "blind"]


def test_a_load_over_the_memory_limit_fails_and_lets_go():
    """CERT_MAX_MEMORY_GB has to stop a model that is too large before the kernel kills the process."""
    memory = MemoryTracker(1000, read=lambda device: MemoryReading(device, 2000, None, None))
    resource = Scripted(memory=memory)
    with pytest.raises(OutOfMemoryError):
        resource.load()
    assert (resource.state, resource.loads, resource.releases) == ("unloaded", 1, 1)


def test_health_tells_a_foreign_error_by_its_class_only():
    """A health page must not show what a driver wrote into its message."""
    resource = Scripted()
    resource.failure = ValueError("password")
    with pytest.raises(ValueError, match="password"):
        resource.load()
    assert resource.health().detail == "ValueError"


def test_preloading_loads_all_or_none():
    """A start that fails half-way must give the memory back, and leave alone what was there before."""
    before, first, broken = Scripted("before"), Scripted("first"), Scripted("broken")
    before.load()
    broken.failure = InputError("no")
    with pytest.raises(InputError):
        preload([before, first, broken])
    assert [resource.state for resource in (before, first, broken)] == ["loaded", "unloaded", "unloaded"]
    broken.failure = None
    preload([before, first, broken])
    assert {resource.state for resource in (before, first, broken)} == {"loaded"}
    assert before.loads == 1
