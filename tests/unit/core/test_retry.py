"""Retrying: how often, how long, and what is never tried again."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.core.errors import (
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    RetriesExhaustedError,
    UpstreamRateLimitError,
    UpstreamUnavailableError,
)
from cert.core.events import Event, EventHub, RetryScheduled
from cert.core.retry import Retry, RetryPolicy
from cert.core.retry_after import parse_http_date, parse_retry_after
from cert.testing import FakeClock


def longest(_low: float, high: float) -> float:
    return high


class Passing(FakeClock):
    """A clock on which an async wait is over at once, as `sleep` is."""

    async def sleep_async(self, seconds: float) -> None:
        self.advance(seconds)


class Flaky:
    """Fails with the given errors one after the other, then answers; notes when it was called."""

    def __init__(self, clock: FakeClock, *errors: BaseException, takes: float = 0.0) -> None:
        self.clock = clock
        self.errors = list(errors)
        self.takes = takes
        self.started: list[float] = []

    def __call__(self) -> str:
        self.started.append(self.clock.monotonic())
        self.clock.advance(self.takes)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    @property
    def waits(self) -> list[float]:
        return [later - earlier - self.takes for earlier, later in pairwise(self.started)]


def run(retry: Retry, function: Callable[[], Any], way: str, **options: Any) -> Any:
    if way == "sync":
        return retry.call(function, **options)

    async def awaited() -> Any:
        return function()

    return asyncio.run(retry.call_async(awaited, **options))


ways = pytest.mark.parametrize("way", ["sync", "async"])


def broken(count: int, retry_after: float | None = None) -> list[UpstreamUnavailableError]:
    return [UpstreamUnavailableError(f"broken {n}", retry_after=retry_after) for n in range(count)]


@ways
def test_a_passing_failure_is_not_seen_by_the_caller(way: str) -> None:
    """Without it, one hiccup of a server fails a whole analysis."""
    clock = Passing()
    flaky = Flaky(clock, *broken(2))
    retry = Retry(on=UpstreamUnavailableError, clock=clock, uniform=longest)
    assert run(retry, flaky, way) == "answer"
    assert flaky.waits == [0.5, 1.0]


@ways
def test_attempts_are_bounded_and_the_last_failure_is_the_cause(way: str) -> None:
    """Without a bound a broken server would be called for ever; without its cause nobody knows why."""
    clock = Passing()
    errors = broken(9)
    flaky = Flaky(clock, *errors)
    retry = Retry(on=UpstreamUnavailableError, policy=RetryPolicy(attempts=4), clock=clock)
    with pytest.raises(RetriesExhaustedError) as caught:
        run(retry, flaky, way)
    assert len(flaky.started) == 4
    assert caught.value.__cause__ is errors[3]
    assert caught.value.context["attempts"] == 4
    assert caught.value.context["reason"] == "attempts"


@ways
def test_one_attempt_means_the_error_itself(way: str) -> None:
    """Whoever turns retries off expects the server's error, not one about retries."""
    clock = Passing()
    retry = Retry(on=UpstreamUnavailableError, policy=RetryPolicy(attempts=1), clock=clock)
    with pytest.raises(UpstreamUnavailableError):
        run(retry, Flaky(clock, *broken(1)), way)


@ways
@pytest.mark.parametrize("error", [CircuitOpenError("open"), BudgetExceededError("spent"), TypeError("bug")])
def test_what_is_not_worth_it_passes_at_once(way: str, error: Exception) -> None:
    """An open circuit, an empty budget and a bug would otherwise be tried six times over."""
    clock = Passing()
    flaky = Flaky(clock, error)
    with pytest.raises(type(error)) as caught:
        run(Retry(on=UpstreamUnavailableError, clock=clock), flaky, way)
    assert caught.value is error
    assert len(flaky.started) == 1


def test_a_circuit_that_opens_between_attempts_names_the_failure_before_it() -> None:
    """A user who sees only "circuit open" cannot know what the server said."""
    clock = Passing()
    first = UpstreamUnavailableError("broken")
    flaky = Flaky(clock, first, CircuitOpenError("open"))
    with pytest.raises(CircuitOpenError) as caught:
        Retry(on=UpstreamUnavailableError, clock=clock).call(flaky)
    assert caught.value.__cause__ is first


def test_on_is_mandatory() -> None:
    """A default would sooner or later retry what must not be retried."""
    with pytest.raises(TypeError, match="on"):
        Retry()  # type: ignore[call-arg]


def test_on_takes_classes_and_decisions() -> None:
    """A predicate that is taken for a class would retry nothing."""
    clock = Passing()
    decided = Retry(on=lambda error: str(error) == "broken 0", clock=clock)
    assert decided.call(Flaky(clock, *broken(1))) == "answer"
    several = Retry(on=(KeyError, UpstreamUnavailableError), clock=clock)
    assert several.call(Flaky(clock, KeyError("x"), *broken(1))) == "answer"


@ways
def test_the_server_s_wait_is_honoured_and_jittered(way: str) -> None:
    """Coming back early gets callers banned; all coming back at once breaks the server again."""
    clock = Passing()
    errors = [UpstreamRateLimitError("slow", retry_after=7.0) for _ in range(2)]
    flaky = Flaky(clock, *errors)
    run(Retry(on=UpstreamRateLimitError, clock=clock, uniform=longest), flaky, way)
    assert flaky.waits == [7.5, 8.0]


def test_an_absurd_wait_of_the_server_is_cut() -> None:
    """A server, or whoever sits between, could otherwise stop a caller for a day."""
    policy = RetryPolicy(total_seconds=1000, retry_after_maximum_seconds=60)
    assert policy.wait(1, 1000, 86_400, longest) == 60.5
    assert policy.wait(1, 1000, math.inf, longest) == 60.5


@pytest.mark.parametrize("nonsense", [math.nan, -5.0, 0.0])
def test_a_nonsensical_wait_of_the_server_counts_as_none(nonsense: float) -> None:
    """A NaN in a wait would end in a crash of the sleep or in no wait at all."""
    assert RetryPolicy().wait(1, 100, nonsense, longest) == 0.5


@ways
def test_a_server_s_wait_that_does_not_fit_ends_it_at_once(way: str) -> None:
    """Waiting for what can no longer be used wastes the caller's time, and coming early is pointless."""
    clock = Passing()
    flaky = Flaky(clock, UpstreamRateLimitError("slow", retry_after=30.0))
    with pytest.raises(RetriesExhaustedError) as caught:
        run(Retry(on=UpstreamRateLimitError, clock=clock), flaky, way, seconds=20.0)
    assert clock.monotonic() == 0
    assert caught.value.context["reason"] == "time"
    assert caught.value.retry_after == 30.0


@ways
def test_total_time_is_bounded(way: str) -> None:
    """Six attempts of a slow server could otherwise take many times what the caller allowed."""
    clock = Passing()
    flaky = Flaky(clock, *broken(99), takes=3.0)
    retry = Retry(on=UpstreamUnavailableError, policy=RetryPolicy(attempts=99), clock=clock, uniform=longest)
    with pytest.raises(RetriesExhaustedError) as caught:
        run(retry, flaky, way, seconds=10.0)
    assert flaky.started[-1] <= 10.0
    assert caught.value.context["reason"] == "time"


@given(
    policy=st.builds(
        RetryPolicy,
        attempts=st.integers(1, 12),
        total_seconds=st.floats(0.01, 300),
        initial_seconds=st.floats(0, 10),
        maximum_seconds=st.floats(0, 60),
        retry_after_maximum_seconds=st.floats(0, 120),
    ),
    asked=st.lists(st.none() | st.floats(allow_nan=True), min_size=12, max_size=12),
    takes=st.floats(0, 20),
    seed=st.integers(0, 2**32),
)
def test_every_wait_is_within_its_bounds(
    policy: RetryPolicy, asked: list[float | None], takes: float, seed: int
) -> None:
    """Whatever a server asks and however long calls take: attempts, waits and total time stay bounded."""
    clock = Passing()
    errors = [UpstreamUnavailableError("broken", retry_after=seconds) for seconds in asked]
    flaky = Flaky(clock, *errors, takes=takes)
    uniform = random.Random(seed).uniform
    retry = Retry(on=UpstreamUnavailableError, policy=policy, clock=clock, uniform=uniform)
    with pytest.raises((RetriesExhaustedError, UpstreamUnavailableError)):
        retry.call(flaky)
    assert len(flaky.started) <= policy.attempts
    assert flaky.started[-1] <= policy.total_seconds * (1 + 1e-9)
    for number, (wait, seconds) in enumerate(zip(flaky.waits, asked, strict=False), start=1):
        floor = min(seconds, policy.retry_after_maximum_seconds) if seconds is not None and seconds > 0 else 0
        assert floor - 1e-6 <= wait <= floor + policy.ceiling(number) + 1e-6


def test_jitter_is_full() -> None:
    """Jitter on a part of the wait only would leave callers of a recovering server in step."""
    policy = RetryPolicy(initial_seconds=8, maximum_seconds=100)
    drawn = [policy.wait(2, 1000.0, None, random.Random(seed).uniform) or 0.0 for seed in range(2000)]
    assert min(drawn) < 0.2
    assert max(drawn) > 15.8
    assert sum(drawn) / len(drawn) == pytest.approx(8, abs=0.5)


def test_a_thousand_attempts_do_not_overflow() -> None:
    """2 to the power of the attempt must not end a patient caller with an OverflowError."""
    assert RetryPolicy(attempts=5000).ceiling(4999) == 20.0


def test_a_cancellation_is_never_retried() -> None:
    """A cancelled request that goes on spends money for nobody."""
    calls = 0

    async def hangs() -> None:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    async def scenario() -> None:
        with pytest.raises(asyncio.CancelledError):
            await Retry(on=Exception, clock=Passing()).call_async(hangs)

    asyncio.run(scenario())
    assert calls == 1


def test_a_cancellation_ends_the_wait() -> None:
    """A caller that has gone must not come back after its backoff."""
    clock = FakeClock()
    flaky = Flaky(clock, *broken(3))

    async def fails() -> str:
        return flaky()

    async def scenario() -> None:
        task = asyncio.create_task(Retry(on=UpstreamUnavailableError, clock=clock).call_async(fails))
        await clock.settle()
        assert clock.sleeping == 1
        task.cancel()
        await clock.advance_async(100)
        assert task.cancelled()

    asyncio.run(scenario())
    assert len(flaky.started) == 1


@ways
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_whoever_stops_the_program_is_obeyed(way: str, stop: type[BaseException]) -> None:
    """Ctrl-C must not be taken for a failure of the server, however generous the decision to retry."""
    clock = Passing()
    flaky = Flaky(clock, stop())
    with pytest.raises(stop):
        run(Retry(on=lambda error: True, clock=clock), flaky, way)
    assert len(flaky.started) == 1


def test_decorated_functions_keep_arguments_and_kind() -> None:
    """A decorator that loses arguments, or turns `async` into plain, breaks its user's code."""
    clock = Passing()
    retry = Retry(on=UpstreamUnavailableError, clock=clock)
    errors = [*broken(1), *broken(1)]

    @retry
    def plain(a: int, *, b: int) -> int:
        if len(errors) == 2:
            raise errors.pop()
        return a + b

    @retry
    async def awaited(a: int, *, b: int) -> int:
        if errors:
            raise errors.pop()
        return a * b

    assert plain(2, b=3) == 5
    assert asyncio.run(awaited(2, b=3)) == 6
    assert plain.__name__ == "plain"


def test_each_retry_is_told_and_no_argument_with_it() -> None:
    """Operators see retries; prompts, which are arguments, must never get into a log that way."""
    hub = EventHub()
    seen: list[Event] = []
    hub.observe(seen.append)
    clock = Passing()
    flaky = Flaky(clock, *broken(1), KeyError("why"))
    retry = Retry(on=Exception, operation="ask", clock=clock, hub=hub, uniform=longest)

    @retry
    def ask(prompt: str) -> str:
        return flaky()

    assert ask("the secret prompt") == "answer"
    assert hub.flush()
    told = [event for event in seen if isinstance(event, RetryScheduled)]
    assert [(e.operation, e.attempt, e.wait_seconds, e.error) for e in told] == [
        ("ask", 1, 0.5, "upstream_unavailable"),
        ("ask", 2, 1.0, "KeyError"),
    ]
    assert "secret" not in repr(told)


@pytest.mark.parametrize(
    "setting",
    [
        {"attempts": 0},
        {"total_seconds": 0},
        {"total_seconds": math.inf},
        {"initial_seconds": math.nan},
        {"maximum_seconds": -1},
        {"retry_after_maximum_seconds": "60"},
    ],
)
def test_settings_that_cannot_be_right_are_refused(setting: dict[str, Any]) -> None:
    """A NaN or a negative limit found at the first failure is found too late."""
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        RetryPolicy(**setting)


# --- Retry-After ----------------------------------------------------------------------------------

NOON = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110


@pytest.mark.parametrize(
    "date", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_every_form_of_an_http_date_is_read(date: str) -> None:
    """RFC 9110 asks recipients to accept three forms; a missed one means coming back at once."""
    assert parse_http_date(date) == NOON


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RETRY-AFTER": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 06 Nov 1994 09:00:00 GMT", "date": "Sun, 06 Nov 1994 08:59:00 GMT"}, 60.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Sun, 99 Nov 1994 08:49:47 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_what_a_server_asks_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """A wait that is misread means a ban, or a call that hangs."""
    assert parse_retry_after(headers, now=NOON) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text(max_size=40)))
def test_no_header_breaks_the_reading(headers: dict[str, str]) -> None:
    """A header is a stranger's text: nonsense in it must not crash the call."""
    seconds = parse_retry_after(headers)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))
