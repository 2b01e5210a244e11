"""The queue before a model: bounded, fair, nothing lost, nothing run twice, nothing left behind."""

import gc
import multiprocessing
import queue
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cert.backends.control import Control
from cert.backends.microbatch import BatchLimits, MicroBatcher
from cert.core.errors import (
    ConfigurationError,
    GenerationCancelledError,
    GenerationTimeoutError,
    OverloadedError,
)


class Task:
    """A job of the queue."""

    def __init__(self, key: Any = "kind", timeout: float | None = None) -> None:
        self.key = key
        self.control = Control(timeout=timeout)
        self.future: Future[Any] = Future()


def answer(jobs: list[Task]) -> None:
    for job in jobs:
        job.future.set_result(job.key)


class Gate:
    """Runs a batch only when it is let: `batches` has those that began, `open` lets one end."""

    def __init__(self) -> None:
        self.batches: queue.SimpleQueue[list[Task]] = queue.SimpleQueue()
        self._keys = threading.Semaphore(0)

    def __call__(self, jobs: list[Task]) -> None:
        self.batches.put(list(jobs))
        self._keys.acquire()
        answer(jobs)

    def begun(self) -> list[Task]:
        return self.batches.get(timeout=30)

    def open(self, times: int = 1) -> None:
        self._keys.release(times)


def gated(**limits: int) -> tuple[MicroBatcher[Task], Gate, Task]:
    """A batcher whose thread is busy with a first job, so that what is added now waits."""
    gate = Gate()
    batcher = MicroBatcher(gate, BatchLimits(**limits))
    first = Task("first")
    batcher.add([first])
    assert gate.begun() == [first]
    return batcher, gate, first


def wait_for_batch_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "cert-batches":
            thread.join(30)


# --- turns ---


class Turns(RuleBasedStateMachine):
    """Any order of adding, withdrawing and running gives the batches that the rule of turns says."""

    rows, places = 3, 7

    @initialize()
    def begin(self) -> None:
        self.batcher, self.gate, plug = gated(rows=self.rows, waiting=self.places)
        self.running = [plug]
        self.turns: dict[str, list[Task]] = {}

    def waiting(self) -> list[Task]:
        return [job for jobs in self.turns.values() for job in jobs]

    @rule(kinds=st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
    def add(self, kinds: list[str]) -> None:
        jobs = [Task(kind) for kind in kinds]
        if len(self.waiting()) + len(jobs) > self.places:
            with pytest.raises(OverloadedError) as refusal:
                self.batcher.add(jobs)
            assert refusal.value.retry_after
            assert refusal.value.retryable
            return
        self.batcher.add(jobs)
        for job in jobs:
            self.turns.setdefault(job.key, []).append(job)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), how=st.sampled_from(["future", "control", "stop"]))
    def give_up(self, data: st.DataObject, how: str) -> None:
        job = data.draw(st.sampled_from(self.waiting()))
        if how == "stop":
            job.control.stop()  # it keeps its turn
            return
        if how == "control" and job.control.ending is None:
            job.control.cancel()
        else:
            job.future.cancel()
        assert job.future.cancelled()
        self.turns[job.key].remove(job)
        if not self.turns[job.key]:
            del self.turns[job.key]

    @rule()
    def run(self) -> None:
        if not self.waiting():
            return
        kind, jobs = next(iter(self.turns.items()))
        expected, rest = jobs[: self.rows], jobs[self.rows :]
        del self.turns[kind]
        if rest:
            self.turns[kind] = rest
        self.gate.open()
        assert self.gate.begun() == expected
        assert all(job.future.result(timeout=30) == job.key for job in self.running)
        self.running = expected

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        if hasattr(self, "batcher"):
            assert len(self.batcher) == len(self.waiting())
            assert not any(job.future.done() for job in self.waiting())

    def teardown(self) -> None:
        if hasattr(self, "batcher"):
            left = self.waiting()
            self.gate.open(100)
            self.batcher.close()
            assert all(job.future.done() for job in left)


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


def test_a_kind_waits_for_one_batch_of_another_only():
    """A flood of one kind must not keep a single request of another waiting for all of it."""
    batcher, gate, _ = gated(rows=4, waiting=100)
    batcher.add([Task("flood") for _ in range(40)])
    batcher.add([lonely := Task("lonely")])
    gate.open(2)
    assert {job.key for job in gate.begun()} == {"flood"}
    assert gate.begun() == [lonely]
    gate.open(100)
    batcher.close()


# --- many at once ---


def test_two_hundred_threads_get_each_its_own_answer_once():
    """Under load no request may be lost, run twice, or answered with another's result."""
    seen: list[Task] = []

    def run(jobs: list[Task]) -> None:
        seen.extend(jobs)
        answer(jobs)

    batcher: MicroBatcher[Task] = MicroBatcher(run, BatchLimits(rows=16))
    answers: list[tuple[int, Any]] = []

    def ask(number: int) -> None:
        for turn in range(5):
            job = Task((number % 3, number, turn))
            batcher.add([job])
            answers.append((number, job.control.wait(job.future)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == 1000
    assert sorted(number for number, _ in answers) == sorted(list(range(200)) * 5)
    assert all(key[1] == number for number, key in answers)
    batcher.close()


def test_those_that_come_together_share_a_batch():
    """Else concurrency would bring nothing: 32 requests would take 32 runs."""
    batcher, gate, _ = gated(rows=32)
    jobs = [Task() for _ in range(32)]
    threads = [threading.Thread(target=batcher.add, args=([job],)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.open()
    assert set(gate.begun()) == set(jobs)
    gate.open()
    batcher.close()


def test_a_refused_group_leaves_nothing_behind():
    """All or none: half a group in the queue would run with nobody waiting for it."""
    batcher, gate, _ = gated(waiting=3)
    with pytest.raises(OverloadedError, match="limit is 3"):
        batcher.add([Task() for _ in range(4)])
    assert len(batcher) == 0
    gate.open(10)
    batcher.close()


# --- ends ---


def test_a_deadline_in_the_queue_frees_the_place_at_once():
    """A caller who has gone must not take the place of one who waits."""
    batcher, gate, _ = gated(waiting=1)
    job = Task(timeout=0.01)
    batcher.add([job])
    with pytest.raises(GenerationTimeoutError) as error:
        job.control.wait(job.future)
    assert error.value.partial is None
    batcher.add([after := Task()])
    gate.open(2)
    assert gate.begun() == [after]
    batcher.close()


def test_a_deadline_that_passed_in_the_queue_is_not_run():
    """Nobody reads the answer: a batch must not be spent on it."""
    batcher, gate, _ = gated()
    late, early = Task(timeout=0.005), Task(timeout=100)
    batcher.add([late, early])
    time.sleep(0.01)
    gate.open(2)
    assert gate.begun() == [early]
    with pytest.raises(GenerationTimeoutError):
        late.future.result(timeout=30)
    batcher.close()


def test_what_the_run_raises_reaches_everyone_and_the_next_batch_runs():
    """A defect that hangs its callers, or kills the thread, would look like a frozen service."""
    failed = [Task("bad"), Task("bad")]

    def run(jobs: list[Task]) -> None:
        if jobs[0].key == "bad":
            jobs[0].future.set_result("done")
            raise ZeroDivisionError
        answer(jobs)

    batcher: MicroBatcher[Task] = MicroBatcher(run, BatchLimits())
    batcher.add(failed)
    assert failed[0].future.result(timeout=30) == "done"
    with pytest.raises(ZeroDivisionError):
        failed[1].future.result(timeout=30)
    batcher.add([good := Task("good")])
    assert good.future.result(timeout=30) == "good"
    batcher.close()


def test_a_request_that_a_run_forgets_is_told_so():
    """Better an error than waiting for ever."""
    batcher: MicroBatcher[Task] = MicroBatcher(lambda jobs: None, BatchLimits())
    batcher.add([job := Task()])
    with pytest.raises(RuntimeError, match="without a result"):
        job.future.result(timeout=30)
    batcher.close()


def test_closing_ends_what_waits_and_what_runs_and_joins():
    """After it the model may be let go of: nothing may touch it any more."""
    started = threading.Event()

    def run(jobs: list[Task]) -> None:
        started.set()
        ended = threading.Event()
        jobs[0].control.on_end(ended.set)
        assert ended.wait(30)
        jobs[0].future.set_exception(jobs[0].control.error())

    batcher: MicroBatcher[Task] = MicroBatcher(run, BatchLimits(rows=1))
    running, waiting = Task(), Task()
    batcher.add([running])
    assert started.wait(30)
    batcher.add([waiting])
    thread = batcher._thread
    batcher.close()
    assert thread is not None
    assert not thread.is_alive()
    for job in (running, waiting):
        with pytest.raises(GenerationCancelledError):
            job.control.wait(job.future)
    with pytest.raises(ConfigurationError, match="unloaded"):
        batcher.add([Task()])
    batcher.close()


def test_closing_from_many_threads_while_others_add_leaves_nobody_waiting():
    """A service that stops must answer everyone, if only with a refusal."""
    batcher: MicroBatcher[Task] = MicroBatcher(answer, BatchLimits())
    undecided: list[Task] = []

    def ask() -> None:
        for _ in range(50):
            job = Task()
            try:
                batcher.add([job])
            except ConfigurationError:
                return
            try:
                job.future.result(timeout=30)
            except CancelledError:
                pass
            except GenerationCancelledError:
                pass
            except TimeoutError:
                undecided.append(job)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    closers = [threading.Thread(target=batcher.close) for _ in range(3)]
    for thread in closers:
        thread.start()
    for thread in threads + closers:
        thread.join()
    assert undecided == []


# --- the thread itself ---


def test_the_idle_thread_ends_and_the_batcher_can_be_collected(monkeypatch):
    """A model that nobody uses any more must leave memory by itself."""
    monkeypatch.setattr("cert.backends.microbatch._IDLE", 0.01)
    batcher: MicroBatcher[Task] = MicroBatcher(answer, BatchLimits())
    batcher.add([job := Task()])
    job.future.result(timeout=30)
    wait_for_batch_threads()
    assert batcher._thread is None
    batcher.add([again := Task("again")])
    assert again.future.result(timeout=30) == "again"
    wait_for_batch_threads()
    reference = weakref.ref(batcher)
    del batcher
    assert reference() is None


def test_a_thread_that_is_to_stay_stays_and_keeps_no_batcher_alive(monkeypatch):
    """On a GPU a new thread costs the next caller seconds; a dropped model must leave memory all the same."""
    monkeypatch.setattr("cert.backends.microbatch._IDLE", 0.01)
    batcher: MicroBatcher[Task] = MicroBatcher(answer, BatchLimits(), 600.0)
    batcher.add([job := Task()])
    job.future.result(timeout=30)
    thread = batcher._thread
    assert thread is not None
    time.sleep(0.2)
    assert thread.is_alive()
    batcher.add([again := Task("again")])
    assert again.future.result(timeout=30) == "again"
    assert batcher._thread is thread
    reference = weakref.ref(batcher)
    del batcher
    thread.join(10)
    assert reference() is None
    assert not thread.is_alive()


def test_a_batcher_that_is_dropped_still_runs_what_it_took(monkeypatch):
    """A future in somebody's hands must come to an end, whatever became of the backend."""
    for _ in range(50):
        job = Task()
        MicroBatcher(answer, BatchLimits()).add([job])
        assert job.future.result(timeout=30) == "kind"


def test_nothing_of_a_finished_job_stays_behind(monkeypatch):
    """A thousand results that only the garbage collector can free are a leak under load."""
    monkeypatch.setattr("cert.backends.microbatch._IDLE", 0.01)
    batcher: MicroBatcher[Task] = MicroBatcher(answer, BatchLimits())
    gc.collect()
    gc.disable()
    try:
        job = Task()
        batcher.add([job])
        job.future.result(timeout=30)
        reference = weakref.ref(job)
        del job
        wait_for_batch_threads()
        assert reference() is None
    finally:
        gc.enable()
    batcher.close()


def test_a_job_from_the_batch_thread_runs_at_once_and_kinds_stay_apart():
    """A listener that asks the same model must neither wait for itself nor mix ways of sampling."""
    runs: list[list[str]] = []

    def run(jobs: list[Task]) -> None:
        runs.append([job.key for job in jobs])
        if jobs[0].key == "outer":
            inner = [Task("a"), Task("b"), Task("a"), Task("a")]
            batcher.add(inner)
            assert all(job.future.done() for job in inner)
        answer(jobs)

    batcher: MicroBatcher[Task] = MicroBatcher(run, BatchLimits(rows=2))
    batcher.add([outer := Task("outer")])
    assert outer.future.result(timeout=30) == "outer"
    assert runs == [["outer"], ["a", "a"], ["a"], ["b"]]
    batcher.close()


def test_a_thread_that_cannot_be_started_leaves_no_job_behind(monkeypatch):
    """The caller was told of the failure: his request must not run later with nobody to take it."""
    batcher: MicroBatcher[Task] = MicroBatcher(answer, BatchLimits())

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            batcher.add([Task()])
    assert len(batcher) == 0
    batcher.add([job := Task()])
    assert job.future.result(timeout=30) == "kind"
    batcher.close()


def _in_a_child(batcher: MicroBatcher[Task], answers: Any) -> None:
    batcher.add([job := Task("child")])
    answers.put(job.future.result(timeout=30))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own():
    """Servers load first and fork then; the child's first request must not wait for the parent's thread."""
    batcher: MicroBatcher[Task] = MicroBatcher(answer, BatchLimits())
    batcher.add([job := Task()])
    job.future.result(timeout=30)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(batcher, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == "child"
    batcher.close()


@pytest.mark.parametrize("limits", [{"rows": 0}, {"waiting": 0}, {"rows": -1}])
def test_limits_below_one_are_refused(limits):
    """A queue without a place would refuse everything, at the first request in production."""
    with pytest.raises(ConfigurationError):
        BatchLimits(**limits)


def test_a_process_ends_after_the_thread_has():
    """A script that never closes its monitor must not end in an abort in the middle of torch."""
    program = """
import time
from concurrent.futures import Future
from types import SimpleNamespace
from cert.backends.control import Control
from cert.backends.microbatch import BatchLimits, MicroBatcher

def run(jobs):
    for job in jobs:
        job.future.set_result("answer")
    time.sleep(0.3)
    print("let go of the tensors", flush=True)

batcher = MicroBatcher(run, BatchLimits())
job = SimpleNamespace(control=Control(), key=1, future=Future())
batcher.add([job])
print(job.future.result(), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["answer", "let go of the tensors"]
