"""The stack as a whole: the order of its layers, and what each end of a call leaves behind."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from cert.core.budget import Budget
from cert.core.circuit_breaker import Breaker, BreakerPolicy, CircuitBreaker, CircuitState, Outcome, Permit
from cert.core.errors import (
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    DeadlineExceededError,
    RateLimitedError,
    RetriesExhaustedError,
    StoreError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from cert.core.events import CallFinished, Event, EventHub, RetryScheduled
from cert.core.rate_limit import RateLimiter
from cert.core.resilience import Demand, ResiliencePolicy, ResilienceStack, current_attempt, transient
from cert.core.retry import RetryPolicy
from cert.testing import FakeClock


class Passing(FakeClock):
    """A clock on which an async wait is over at once, as `sleep` is."""

    async def sleep_async(self, seconds: float) -> None:
        self.advance(seconds)


class Diary:
    """Stands in for limiter, budget and breaker, and notes in which order the stack turns to them."""

    def __init__(self, clock: FakeClock, **refusals: Exception) -> None:
        self.clock = clock
        self.lines: list[str] = []
        self.refusals = refusals
        self.breaker = WrittenBreaker(self)

    def note(self, what: str, detail: object = "") -> None:
        self.lines.append(f"{what} {detail}".strip())
        if what in self.refusals:
            raise self.refusals[what]

    # limiter
    def acquire(self, tokens: int = 0, timeout: float | None = None) -> float:
        self.note("rate", f"{tokens}")
        self.granted = timeout
        return 0.0

    async def acquire_async(self, tokens: int = 0, timeout: float | None = None) -> float:
        return self.acquire(tokens, timeout)

    # budget, and its reservation
    def reserve(self, micro_dollars: int, agent: str | None = None) -> Diary:
        self.note("reserve", f"{micro_dollars} {agent}")
        return self

    async def reserve_async(self, micro_dollars: int, agent: str | None = None) -> Diary:
        return self.reserve(micro_dollars, agent)

    def settle(self, micro_dollars: int) -> None:
        self.note("settle", micro_dollars)

    def keep(self) -> None:
        self.note("keep")

    def release(self) -> None:
        self.note("release")

    async def settle_async(self, micro_dollars: int) -> None:
        self.settle(micro_dollars)

    async def keep_async(self) -> None:
        self.keep()

    async def release_async(self) -> None:
        self.release()


class WrittenBreaker(Breaker):
    def __init__(self, diary: Diary) -> None:
        super().__init__("model")
        self.diary = diary

    def check(self) -> None:
        self.diary.note("check")

    def acquire(self) -> Permit:
        self.diary.note("permit")
        return Permit(0)

    def record(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        self.diary.note("record", outcome.value)

    async def check_async(self) -> None:
        self.check()

    async def acquire_async(self) -> Permit:
        return self.acquire()

    async def record_async(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        self.record(permit, outcome, retry_after)


def stack(diary: Diary, **options: Any) -> ResilienceStack:
    options = {"breaker": diary.breaker, "limiter": diary, "budget": diary, "clock": diary.clock, **options}
    return ResilienceStack("ask", **options)


DEMAND = Demand(tokens=7, micro_dollars=100, agent="critic", cost=len)


def run(
    way: str, stack: ResilienceStack, function: Callable[[], Any], demand: Demand = DEMAND, **options: Any
) -> Any:
    if way == "sync":
        return stack.call(function, demand, **options)

    async def awaited() -> Any:
        return function()

    return asyncio.run(stack.call_async(awaited, demand, **options))


ways = pytest.mark.parametrize("way", ["sync", "async"])


def transport(diary: Diary, *errors: BaseException, takes: float = 0.0) -> Callable[[], str]:
    left = list(errors)

    def send() -> str:
        diary.lines.append("transport")
        diary.clock.advance(takes)
        if left:
            raise left.pop(0)
        return "answer"

    return send


ATTEMPT = ["check", "rate 7", "reserve 100 critic", "permit", "transport"]


# --- the order ------------------------------------------------------------------------------------


@ways
def test_the_order_of_the_layers(way: str) -> None:
    """A waiting call must hold no dollars, and the one probe must never wait in a queue."""
    diary = Diary(Passing())
    assert run(way, stack(diary), transport(diary)) == "answer"
    assert diary.lines == [*ATTEMPT, "record success", "settle 6"]


def test_both_ways_have_the_same_layers_in_the_documented_order() -> None:
    """The one place that writes the order down has to be what runs."""
    layers = [type(layer).__name__ for layer in stack(Diary(Passing())).layers]
    assert layers == [
        "Instrument",
        "Deadline",
        "Retrying",
        "BreakerRefusal",
        "RateLimit",
        "BudgetReservation",
        "BreakerLease",
        "AttemptTimeout",
    ]


@ways
def test_each_attempt_takes_rate_and_budget_anew(way: str) -> None:
    """Retries that bypass the limits get a whole service banned, and cost what nobody allowed."""
    diary = Diary(Passing())
    assert run(way, stack(diary), transport(diary, UpstreamUnavailableError("x"))) == "answer"
    first = [*ATTEMPT, "record failure", "keep"]
    assert diary.lines == [*first, *ATTEMPT, "record success", "settle 6"]


@ways
def test_an_open_circuit_costs_no_waiting_and_no_money(way: str) -> None:
    """Refused calls that queue for the rate limit would hold up those that could go."""
    diary = Diary(Passing(), check=CircuitOpenError("open", retry_after=9))
    with pytest.raises(CircuitOpenError):
        run(way, stack(diary), transport(diary))
    assert diary.lines == ["check"]


@ways
@pytest.mark.parametrize(
    ("where", "error", "lines"),
    [
        ("rate", RateLimitedError("full"), ["check", "rate 7"]),
        ("rate", StoreError("gone"), ["check", "rate 7"]),
        ("reserve", BudgetExceededError("spent"), ATTEMPT[:3]),
        ("reserve", StoreError("gone"), ATTEMPT[:3]),
        ("permit", CircuitOpenError("the probe is another's"), [*ATTEMPT[:4], "release"]),
    ],
)
def test_our_own_refusals_are_not_retried(way: str, where: str, error: Exception, lines: list[str]) -> None:
    """An exhausted budget that is asked six times over only keeps its caller waiting."""
    diary = Diary(Passing(), **{where: error})
    with pytest.raises(type(error)) as caught:
        run(way, stack(diary), transport(diary))
    assert caught.value is error
    assert diary.lines == lines


@ways
def test_what_is_left_out_is_not_there(way: str) -> None:
    """A call without limits needs none of them."""
    bare = ResilienceStack("ask", clock=Passing())
    assert run(way, bare, lambda: "answer", Demand()) == "answer"
    assert len(bare.layers) == 4


# --- money ----------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize(
    ("error", "end"),
    [
        (UpstreamRejectedError("no", context={"status": 400}), "release"),
        (UpstreamRateLimitError("slow", context={"status": 429}), "release"),
        (UpstreamUnavailableError("busy", context={"status": 529}), "release"),
        (UpstreamConnectionError("never connected", context={"sent": False}), "release"),
        (UpstreamUnavailableError("broken", context={"status": 500}), "keep"),
        (UpstreamUnavailableError("gateway", context={"status": 503}), "keep"),
        (UpstreamTimeoutError("slow"), "keep"),
        (UpstreamConnectionError("broke"), "keep"),
        (UpstreamError("?"), "keep"),
        (TypeError("bug"), "keep"),
        (KeyboardInterrupt(), "keep"),
    ],
)
def test_money_comes_back_only_when_surely_not_billed(way: str, error: BaseException, end: str) -> None:
    """Giving back what the vendor bills overshoots the limit; keeping what it does not starves the user."""
    diary = Diary(Passing())
    once = ResiliencePolicy(retry=RetryPolicy(attempts=1))
    with pytest.raises(type(error)):
        run(way, stack(diary, policy=once), transport(diary, error))
    assert diary.lines[-1] == end
    assert [line for line in diary.lines if line in ("settle", "keep", "release")] == [end]


@ways
def test_an_attempt_that_is_refused_after_one_that_was_sent_costs_nothing(way: str) -> None:
    """The circuit opens between two attempts: only the first can be billed."""
    diary = Diary(Passing())
    send = transport(diary, UpstreamUnavailableError("x"))

    def sends_once() -> str:
        diary.refusals["permit"] = CircuitOpenError("opened meanwhile")
        return send()

    with pytest.raises(CircuitOpenError):
        run(way, stack(diary), sends_once)
    assert [line for line in diary.lines if line in ("settle", "keep", "release")] == ["keep", "release"]


@ways
def test_without_a_known_cost_the_most_is_booked(way: str) -> None:
    """Booking nothing would let calls without usage figures through for ever."""
    diary = Diary(Passing())
    run(way, stack(diary), transport(diary), Demand(micro_dollars=100))
    assert diary.lines[-1] == "settle 100"


@ways
def test_an_answer_whose_cost_cannot_be_told_is_kept_at_its_most(way: str) -> None:
    """The call is billed all the same."""
    diary = Diary(Passing())
    with pytest.raises(AttributeError):
        run(way, stack(diary), transport(diary), Demand(micro_dollars=100, cost=lambda answer: answer.usage))
    assert diary.lines[-1] == "keep"


def test_a_cancelled_call_keeps_its_money_and_says_nothing_about_the_server() -> None:
    """A user who closes the page may still be billed, and has not shown that the server is broken."""
    hub, seen = told()
    diary = Diary(Passing())

    async def hangs() -> str:
        await asyncio.sleep(60)
        return "never"

    async def scenario() -> None:
        task = asyncio.create_task(stack(diary, hub=hub).call_async(hangs, DEMAND))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert diary.lines == [*ATTEMPT[:4], "record neutral", "keep"]
    assert hub.flush()
    assert [e.outcome for e in seen if isinstance(e, CallFinished)] == ["cancelled"]


@ways
def test_a_call_under_a_budget_must_say_what_it_can_cost(way: str) -> None:
    """A call without a price would be free, and the limit no limit."""
    diary = Diary(Passing())
    with pytest.raises(ConfigurationError, match="cost at most"):
        run(way, stack(diary), transport(diary), Demand(tokens=7))
    assert diary.lines == []


# --- time -----------------------------------------------------------------------------------------


@ways
def test_the_deadline_bounds_attempts_and_waits(way: str) -> None:
    """Whoever allowed ten seconds must have an answer or an error by then."""
    clock = Passing()
    diary = Diary(clock)
    errors = [UpstreamUnavailableError(f"{n}") for n in range(9)]
    with pytest.raises(DeadlineExceededError) as caught:
        run(way, stack(diary), transport(diary, *errors, takes=4.0), seconds=10.0)
    assert isinstance(caught.value.__cause__, UpstreamUnavailableError)
    assert caught.value.context["attempts"] == diary.lines.count("transport") == 3


@ways
def test_retries_that_end_early_say_why(way: str) -> None:
    """A wait asked by the server that does not fit is no missed deadline: there is still time to do else."""
    diary = Diary(Passing())
    with pytest.raises(RetriesExhaustedError) as caught:
        run(way, stack(diary), transport(diary, UpstreamRateLimitError("x", retry_after=50)), seconds=10.0)
    assert diary.clock.monotonic() == 0
    assert caught.value.context["reason"] == "time"


@ways
def test_the_rate_limit_may_wait_as_long_as_there_is_time(way: str) -> None:
    """A wait beyond the deadline would come back to a caller that has gone."""
    diary = Diary(Passing())
    run(way, stack(diary), transport(diary), seconds=33.0)
    assert diary.granted == 33.0


@ways
def test_a_turn_that_comes_too_late_is_not_used(way: str) -> None:
    """A call that waited its time away must not spend money on an answer that nobody waits for."""
    diary = Diary(Passing())

    class Slow(Diary):
        def note(self, what: str, detail: object = "") -> None:
            if what == "rate":
                diary.clock.advance(50)

    with pytest.raises(DeadlineExceededError):
        run(way, stack(diary, limiter=Slow(diary.clock)), transport(diary), seconds=50.0)
    assert "transport" not in diary.lines
    assert diary.lines[-1] == "release"


@ways
def test_the_transport_knows_its_time(way: str) -> None:
    """Plain code cannot be interrupted: its client has to be told."""
    diary = Diary(Passing())
    seen = []
    errors = [UpstreamUnavailableError("x")]

    def send() -> str:
        attempt = current_attempt()
        assert attempt is not None
        seen.append((attempt.number, attempt.timeout_seconds))
        diary.clock.advance(40)
        if errors:
            raise errors.pop()
        return "answer"

    policy = ResiliencePolicy(retry=RetryPolicy(initial_seconds=0), attempt_seconds=50, deadline_seconds=60)
    run(way, stack(diary, policy=policy), send)
    assert seen == [(1, 50.0), (2, 20.0)]
    assert current_attempt() is None


async def hang() -> str:
    await asyncio.sleep(60)
    return "never"


def test_an_attempt_that_hangs_is_cancelled_and_counts_as_a_failure() -> None:
    """A server that accepts and never answers would hold its callers, and never open the circuit."""
    diary = Diary(FakeClock())
    policy = ResiliencePolicy(attempt_seconds=0.02, retry=RetryPolicy(attempts=2, initial_seconds=0))
    with pytest.raises(RetriesExhaustedError) as caught:
        asyncio.run(stack(diary, policy=policy).call_async(hang, DEMAND))
    assert isinstance(caught.value.__cause__, UpstreamTimeoutError)
    assert diary.lines == [*ATTEMPT[:4], "record failure", "keep"] * 2


def test_a_hurried_caller_says_nothing_about_the_server() -> None:
    """One user's tiny deadline must not open the circuit for all others."""
    diary = Diary(FakeClock())
    with pytest.raises(DeadlineExceededError):
        asyncio.run(stack(diary).call_async(hang, DEMAND, seconds=0.02))
    assert diary.lines == [*ATTEMPT[:4], "record neutral", "keep"]


def test_a_time_out_of_the_client_itself_passes_as_it_is() -> None:
    """Python's own TimeoutError from inside must not be taken for the end of the attempt's time."""
    diary = Diary(Passing())
    with pytest.raises(TimeoutError, match="the client's own"):
        run("async", stack(diary), transport(diary, TimeoutError("the client's own")))
    assert diary.lines[-2:] == ["record failure", "keep"]


def test_a_layer_that_overstays_is_cancelled() -> None:
    """Even a limiter or store that ignores its time-out must not make a caller miss the deadline by much."""

    class Stuck(Diary):
        async def acquire_async(self, tokens: int = 0, timeout: float | None = None) -> float:
            await asyncio.sleep(60)
            return 0.0

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(DeadlineExceededError):
            await stack(Stuck(FakeClock())).call_async(hang, DEMAND, seconds=0.05)
        return loop.time() - began

    assert asyncio.run(scenario()) < 5


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_deadline_that_cannot_be_right_is_refused(seconds: float) -> None:
    """NaN compares false with everything: as a deadline it would never come."""
    with pytest.raises(ConfigurationError, match="seconds"):
        stack(Diary(Passing())).call(lambda: "x", DEMAND, seconds=seconds)
    with pytest.raises(ConfigurationError, match="seconds"):
        ResiliencePolicy(deadline_seconds=seconds)


def test_an_attempt_may_not_take_longer_than_the_whole() -> None:
    """Then no attempt would ever run into its own time, and a hung server would never open the circuit."""
    with pytest.raises(ConfigurationError, match="attempt_seconds"):
        ResiliencePolicy(attempt_seconds=200)


# --- events, errors, decorators -------------------------------------------------------------------


def told() -> tuple[EventHub, list[Event]]:
    hub, seen = EventHub(), list[Event]()
    hub.observe(seen.append)
    return hub, seen


@ways
@pytest.mark.parametrize(
    ("errors", "outcome", "attempts"),
    [
        ([], "ok", 1),
        ([UpstreamUnavailableError("x")] * 2, "ok", 3),
        ([UpstreamUnavailableError("x")] * 6, "retries_exhausted", 6),
        ([UpstreamRejectedError("x")], "upstream_rejected", 1),
        ([KeyError("x")], "error", 1),
    ],
)
def test_each_call_is_told_of_once(way: str, errors: list[Exception], outcome: str, attempts: int) -> None:
    """Dashboards count calls, not attempts; a call that is missing there did not happen for operators."""
    hub, seen = told()
    diary = Diary(Passing())
    try:
        run(way, stack(diary, hub=hub), transport(diary, *errors, takes=0.5))
    except Exception:
        assert outcome != "ok"
    assert hub.flush()
    (finished,) = [event for event in seen if isinstance(event, CallFinished)]
    assert (finished.operation, finished.outcome, finished.attempts) == ("ask", outcome, attempts)
    assert finished.seconds == diary.clock.monotonic()
    assert sum(isinstance(event, RetryScheduled) for event in seen) == attempts - 1


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (UpstreamConnectionError("x"), True),
        (UpstreamTimeoutError("x"), True),
        (UpstreamRateLimitError("x"), True),
        (UpstreamUnavailableError("x"), True),
        (UpstreamRejectedError("x"), False),
        (CircuitOpenError("x"), False),
        (BudgetExceededError("x"), False),
        (RateLimitedError("x"), False),
        (StoreError("x"), False),
        (RetriesExhaustedError("x"), False),
        (DeadlineExceededError("x"), False),
        (ConnectionError("x"), False),
    ],
)
def test_what_is_tried_again_by_default(error: Exception, again: bool) -> None:
    """Only a server's passing failures; anything else wastes time or money."""
    assert transient(error) is again


def test_decorated_functions_state_their_demand_from_their_arguments() -> None:
    """A price that does not depend on the prompt is none."""
    diary = Diary(Passing())
    protect = stack(diary).protect(lambda prompt, **_: Demand(tokens=len(prompt), micro_dollars=9))

    @protect
    def plain(prompt: str, *, shout: bool = False) -> str:
        return prompt.upper() if shout else prompt

    @protect
    async def awaited(prompt: str) -> str:
        return prompt

    assert plain("hello", shout=True) == "HELLO"
    assert asyncio.run(awaited("hi")) == "hi"
    assert [line for line in diary.lines if line.startswith("rate")] == ["rate 5", "rate 2"]
    assert plain.__name__ == "plain"


def test_of_many_tasks_one_probes_and_the_rest_is_refused_at_once() -> None:
    """After an outage a crowd waits; a server that just came back must meet one of it."""
    clock = Passing()
    breaker = CircuitBreaker("model", clock=clock)
    guarded = ResilienceStack("ask", breaker=breaker, clock=clock, retry_on=())
    sent = 0

    async def fails() -> str:
        raise UpstreamUnavailableError("x")

    async def slow() -> str:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.05)
        return "answer"

    async def scenario() -> list[Any]:
        for _ in range(5):
            with pytest.raises(UpstreamUnavailableError):
                await guarded.call_async(fails)
        clock.advance(15)
        return await asyncio.gather(*[guarded.call_async(slow) for _ in range(100)], return_exceptions=True)

    results = asyncio.run(scenario())
    assert sent == 1
    assert sum(result == "answer" for result in results) == 1
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 99
    assert breaker.state is CircuitState.CLOSED


@ways
def test_a_pause_asked_by_the_server_holds_for_all_and_is_waited_for(way: str) -> None:
    """After a 429 the others must not go on hammering; they come back after the pause by themselves."""
    clock = Passing()
    breaker = CircuitBreaker("model", clock=clock)
    guarded = ResilienceStack("ask", breaker=breaker, clock=clock)
    once = ResilienceStack("ask", breaker=breaker, clock=clock, retry_on=())
    diary = Diary(clock)
    with pytest.raises(UpstreamRateLimitError):
        run(way, once, transport(diary, UpstreamRateLimitError("slow", retry_after=8)), Demand())
    assert run(way, guarded, transport(diary), Demand()) == "answer"
    assert clock.monotonic() >= 8
    assert diary.lines == ["transport", "transport"]


@ways
def test_a_pause_asked_of_another_call_uses_up_no_attempt(way: str) -> None:
    """Of forty calls at once, each 429 would take an attempt of all of them, until none was left."""
    clock = Passing()
    breaker = CircuitBreaker("model", clock=clock)
    hub = EventHub()
    finished: list[Event] = []
    hub.observe(finished.append)
    policy = ResiliencePolicy(deadline_seconds=20, attempt_seconds=5, retry=RetryPolicy(attempts=1))
    once = ResilienceStack("ask", policy, breaker=breaker, clock=clock, hub=hub)
    diary = Diary(clock)
    with pytest.raises(UpstreamRateLimitError):
        run(way, once, transport(diary, UpstreamRateLimitError("slow", retry_after=8)), Demand())
    assert run(way, once, transport(diary), Demand()) == "answer"
    assert clock.monotonic() >= 8
    hub.flush()
    assert [event.attempts for event in finished if isinstance(event, CallFinished)] == [1, 1]
    with pytest.raises(UpstreamRateLimitError):
        run(way, once, transport(diary, UpstreamRateLimitError("slow", retry_after=30)), Demand())
    with pytest.raises(UpstreamRateLimitError):
        run(way, once, transport(diary), Demand())
    assert diary.lines == ["transport"] * 3


# --- with the real parts --------------------------------------------------------------------------


def test_a_storm_of_failures_and_cancellations_leaves_the_books_right() -> None:
    """Whatever becomes of calls: no reservation stays open, no dollar over the limit, nothing lost."""
    clock = FakeClock()
    budget = Budget(limit_total=20_000, clock=clock, hub=EventHub())
    guarded = ResilienceStack(
        "ask",
        ResiliencePolicy(retry=RetryPolicy(attempts=3, initial_seconds=0)),
        breaker=CircuitBreaker("model", BreakerPolicy(minimum_calls=10_000, failures_in_a_row=10_000)),
        limiter=RateLimiter(10_000, hub=EventHub()),
        budget=budget,
        clock=clock,
        hub=EventHub(),
    )
    chance = random.Random(0)
    billed = 0

    async def send() -> int:
        nonlocal billed
        fate = chance.random()
        if fate < 0.2:
            raise UpstreamRejectedError("no", context={"status": 400})
        billed += 60
        await asyncio.sleep(chance.uniform(0, 0.01))
        if fate < 0.5:
            raise UpstreamConnectionError("broke after the work was done")
        return 60

    demand = Demand(tokens=1, micro_dollars=100, cost=lambda answer: answer)

    async def scenario() -> list[Any]:
        tasks = [asyncio.create_task(guarded.call_async(send, demand)) for _ in range(300)]
        for task in chance.sample(tasks, 60):
            asyncio.get_running_loop().call_later(chance.uniform(0, 0.02), task.cancel)
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(scenario())
    books = budget.snapshot()
    assert books.reserved == 0
    assert billed <= books.spent_in_total <= 20_000
    kinds = {type(result) for result in results}
    assert kinds >= {int, UpstreamRejectedError, asyncio.CancelledError, BudgetExceededError}
    assert kinds <= {
        int,
        UpstreamRejectedError,
        RetriesExhaustedError,
        asyncio.CancelledError,
        BudgetExceededError,
    }
