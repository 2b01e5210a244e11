"""A thousand calls at once: a window of them in flight, each with its own outcome in its own place."""

import gc
import itertools
import signal
import threading
import time
import weakref
from concurrent.futures import Future
from typing import Any

import pytest

from cert.backends.control import Control
from cert.backends.many import fly
from cert.core.errors import (
    CertError,
    GenerationCancelledError,
    GenerationError,
    GenerationTimeoutError,
    InputError,
    OverloadedError,
)


class Call:
    """A flight whose future the test settles."""

    def __init__(self, item: Any, timeout: float | None = None) -> None:
        self.item, self.control = item, Control(timeout=timeout)
        self.future: Future[Any] | None = Future()
        self.result: Any = None
        self.landed: list[Any] = []

    def land(self, outcome: Any) -> None:
        self.landed.append(outcome)
        if isinstance(outcome, BaseException):
            raise outcome
        self.result, self.future = outcome, None


class Station:
    """Begins calls and remembers them; those of even items are done at once."""

    def __init__(self, limit: int = 1000) -> None:
        self.calls: dict[Any, Call] = {}
        self.limit = limit
        self.most = 0

    @property
    def flying(self) -> list[Call]:
        return [call for call in self.calls.values() if call.future is not None and not call.future.done()]

    def begin(self, item: Any) -> Call:
        if isinstance(item, Exception):
            raise item
        if len(self.flying) >= self.limit:
            raise OverloadedError("full")
        self.calls[item] = Call(item)
        self.most = max(self.most, len(self.flying))
        return self.calls[item]

    def settle(self, item: Any, value: Any) -> None:
        while item not in self.calls:  # a timer may be early
            time.sleep(0.001)
        future = self.calls[item].future
        assert future is not None
        future.set_running_or_notify_cancel()
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)


def settle_all(station: Station, stop: threading.Event, value: Any = None) -> None:
    while not stop.is_set():
        for call in list(station.calls.values()):
            if call.future is not None and not call.future.done():
                station.settle(call.item, call.item * 10 if value is None else value)
        stop.wait(0.0005)


@pytest.fixture
def settled():
    """A station whose calls are settled as they come, by another thread."""
    station, stop = Station(), threading.Event()
    thread = threading.Thread(target=settle_all, args=(station, stop))
    thread.start()
    yield station
    stop.set()
    thread.join()


def test_each_outcome_comes_once_with_its_place(settled):
    """A result in another's place is the worst of all errors."""
    outcomes = list(fly(range(200), settled.begin, 7))
    assert sorted(outcomes) == [(place, place * 10) for place in range(200)]
    assert settled.most <= 7


def test_an_endless_input_is_taken_as_there_is_room(settled):
    """A file of millions of lines must not be read into memory first."""
    taken: list[int] = []

    def lines():
        for number in itertools.count():
            taken.append(number)
            yield number

    calls = fly(lines(), settled.begin, 5)
    for _ in range(20):
        next(calls)
    calls.close()
    assert len(taken) <= 20 + 5 + 1


def test_an_outcome_comes_as_soon_as_it_is_there():
    """The first to be done is told first, whatever came before it."""
    station = Station()
    calls = fly([1, 2, 3], station.begin, 3)
    threading.Timer(0.01, station.settle, args=(2, "two")).start()
    assert next(calls) == (1, "two")
    station.settle(3, "three")
    station.settle(1, "one")
    assert sorted(calls) == [(0, "one"), (2, "three")]


def test_one_that_fails_fails_alone(settled):
    """Before it began, or while it ran."""
    items = [1, InputError("bad"), 3]
    outcomes = dict(fly(items, settled.begin, 3))
    assert (outcomes[0], outcomes[2]) == (10, 30)
    assert isinstance(outcomes[1], InputError)
    station = Station()
    calls = fly([1, 2], station.begin, 2)
    threading.Timer(0.01, station.settle, args=(1, GenerationError("broken"))).start()
    place, error = next(calls)
    assert (place, type(error)) == (0, GenerationError)
    station.settle(2, "two")
    assert list(calls) == [(1, "two")]


def test_a_full_queue_is_waited_for_as_long_as_something_of_ours_flies():
    """A batch larger than the queue is the ordinary case, and no reason to fail."""
    station, stop = Station(limit=3), threading.Event()
    thread = threading.Thread(target=settle_all, args=(station, stop))
    thread.start()
    outcomes = list(fly(range(50), station.begin, 10))
    stop.set()
    thread.join()
    assert sorted(outcomes) == [(place, place * 10) for place in range(50)]


def test_a_queue_that_others_fill_is_an_error_of_the_item():
    """Nothing of ours will ever make room there."""
    outcomes = list(fly([1, 2], Station(limit=0).begin, 10))
    assert [type(outcome) for _, outcome in outcomes] == [OverloadedError] * 2


def test_a_deadline_ends_its_own_call_and_no_other(settled):
    """While the others go on."""
    late = Call("late", timeout=0.01)
    late_future = late.future

    def begin(item: Any) -> Call:
        return late if item == "late" else settled.begin(item)

    outcomes = dict(fly(["late", 1, 2], begin, 3))
    assert isinstance(outcomes[0], GenerationTimeoutError)
    assert (outcomes[1], outcomes[2]) == (10, 20)
    assert late_future is not None
    assert late_future.cancelled()


def test_a_call_may_go_on_with_another_future():
    """A follower whose leader went away asks again, in the same place."""
    station = Station()
    again: Future[Any] = Future()

    class Twice(Call):
        def land(self, outcome: Any) -> None:
            if self.future is again:
                super().land(outcome)
            else:
                self.future = again

    call = Twice("x")
    assert call.future is not None
    call.future.set_result("first")
    threading.Timer(0.01, again.set_result, args=("second",)).start()
    assert list(fly(["x"], lambda item: call, 1)) == [(0, "second")]
    assert station.calls == {}


@pytest.mark.parametrize("how", ["close", "raise", "interrupt"])
def test_leaving_gives_up_what_flies_and_tells_each_of_it(how):
    """What nobody waits for any more must not run on, nor leave its followers waiting."""
    station = Station()
    calls = fly([1, 2, 3, 4], station.begin, 3)
    threading.Timer(0.01, station.settle, args=(1, "one")).start()
    assert next(calls) == (0, "one")
    if how == "close":
        calls.close()
    elif how == "raise":
        threading.Timer(0.01, station.settle, args=(2, ZeroDivisionError())).start()
        with pytest.raises(ZeroDivisionError):
            next(calls)
    else:
        main = threading.main_thread().ident or 0
        threading.Timer(0.1, signal.pthread_kill, args=(main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(calls)
    for item in [3, 4] if how != "close" else [2, 3]:
        call = station.calls.get(item)
        if call is not None:
            assert call.future is not None
            assert call.future.cancelled()
            assert call.control.ending == "cancelled"
            assert isinstance(call.landed[-1], GenerationCancelledError)


def test_an_input_that_breaks_gives_up_what_flies():
    """A file that cannot be read on ends the whole, and leaves nothing running."""
    station = Station()

    def items():
        yield 1
        raise InputError("broken line")

    with pytest.raises(InputError):
        list(fly(items(), station.begin, 2))
    future = station.calls[1].future
    assert future is not None
    assert future.cancelled()


def test_an_error_that_is_kept_holds_nothing_else():
    """A list of ten thousand errors must not be a list of ten thousand call stacks with models in them."""

    class Model:
        pass

    def run() -> tuple[CertError, weakref.ref[Model]]:
        model = Model()
        station = Station()

        def begin(item: Any) -> Call:
            assert model is not None
            return station.begin(item)

        calls = fly([1], begin, 1)
        threading.Timer(0.01, station.settle, args=(1, GenerationError("broken"))).start()
        ((_, error),) = list(calls)
        assert isinstance(error, CertError)
        return error, weakref.ref(model)

    gc.collect()
    gc.disable()
    try:
        error, model = run()
        assert error.__traceback__ is None
        assert model() is None
    finally:
        gc.enable()


def test_one_that_is_cancelled_while_it_waits_is_heard_of():
    """A call that is withdrawn from elsewhere must end the wait for it, and not only its own life."""
    station = Station()
    calls = fly([1], station.begin, 1)

    def withdraw() -> None:
        while 1 not in station.calls:
            time.sleep(0.001)
        call = station.calls[1]
        assert call.future is not None
        call.control.cancel()
        call.future.cancel()

    threading.Timer(0.02, withdraw).start()
    ((place, error),) = list(calls)
    assert (place, type(error)) == (0, GenerationCancelledError)


def test_nothing_to_do_is_done():
    """No items, no outcomes, no waiting."""
    assert list(fly([], Station().begin, 1)) == []
