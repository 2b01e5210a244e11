"""Budgets: never exceeded, never forgotten, and closed when the books cannot be used; local and in Redis."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from fakeredis.commands_mixins import server_mixin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from cert.core import budget_ledger
from cert.core.budget import Account, Budget, Reservation, dollars, micro_dollars
from cert.core.errors import BudgetExceededError, ConfigurationError, InputError, StoreError
from cert.core.events import BudgetBegun, BudgetRefused, BudgetSettled, ComponentDegraded, Event, EventHub
from cert.core.redis_scripts import RedisScripts
from cert.testing import FakeClock

HOUR = 3600


class FakeServer:
    """A Redis in this process whose wall clock a test moves, and that can be cut off."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.jumped = 0.0
        self.server = fakeredis.FakeServer()
        server_mixin.time = SimpleNamespace(time=self.wall)  # type: ignore[assignment, attr-defined]

    def wall(self) -> float:
        return 1_700_000_000.0 + self.clock.monotonic() + self.jumped

    def scripts(self) -> RedisScripts:
        """What one replica would hold."""
        return RedisScripts(
            client=fakeredis.FakeStrictRedis(server=self.server),
            async_client=fakeredis.FakeAsyncRedis(server=self.server),
        )


@pytest.fixture(autouse=True)
def _wall_clock_of_fakeredis() -> Iterator[None]:
    yield
    server_mixin.time = time  # type: ignore[attr-defined]


class World:
    """A budget, its clock, and what it told."""

    def __init__(self, kind: str, per_hour: int | None = None, total: int | None = None, **more: Any) -> None:
        self.clock = FakeClock(10.0)
        self.kind = kind
        self.events: list[Event] = []
        self.hub = EventHub()
        self.hub.observe(self.events.append)
        self.server = FakeServer(self.clock) if kind == "redis" else None
        self.limits = (per_hour, total)
        self.more = more
        self.budget = self._make()

    def replica(self) -> Budget:
        """The same budget in another process, where it can be shared."""
        return self.budget if self.server is None else self._make()

    def _make(self) -> Budget:
        redis = None if self.server is None else self.server.scripts()
        return Budget(*self.limits, redis=redis, clock=self.clock, hub=self.hub, **self.more)

    def told(self, kind: type[Any]) -> list[Any]:
        assert self.hub.flush()
        return [event for event in self.events if isinstance(event, kind)]


both = pytest.mark.parametrize("kind", ["local", "redis"])


# --- money ----------------------------------------------------------------------------------------


@given(st.decimals(min_value=0, max_value=10**9, allow_nan=False))
def test_money_is_rounded_up(amount: Decimal) -> None:
    """A price rounded down would spend more than the books say."""
    assert 0 <= micro_dollars(amount) - Fraction(amount) * 1_000_000 < 1


@given(st.integers(0, 10**15))
def test_money_comes_back_exactly(amount: int) -> None:
    """A cost shown to the user would differ from what is booked."""
    assert micro_dollars(dollars(amount)) == amount


@pytest.mark.parametrize(
    "amount", [0.1, True, Decimal("NaN"), Decimal("Infinity"), Decimal(-1), -1, Decimal(10**9 + 1), "1"]
)
def test_what_is_no_amount_is_refused(amount: Any) -> None:
    """A float or a NaN would get into sums of money."""
    with pytest.raises(InputError):
        micro_dollars(amount)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["limit_per_hour", "limit_total"])
@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf, 1.5, True, "5", 10**15 + 1])
def test_a_limit_that_is_none_is_refused_by_name(setting: str, limit: Any) -> None:
    """A mistyped limit would mean no limit."""
    with pytest.raises(ConfigurationError, match=setting) as caught:
        Budget(**{setting: limit})
    assert caught.value.context["setting"] == setting


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_lifetime_of_reservations_that_is_none_is_refused(seconds: float) -> None:
    """A reservation would expire at once or never."""
    with pytest.raises(ConfigurationError, match="expires_after"):
        Budget(100, expires_after=seconds)


@both
@pytest.mark.parametrize("amount", [-1, math.nan, 0.5, True, 10**15 + 1])
def test_an_amount_that_is_none_is_refused(kind: str, amount: Any) -> None:
    """A negative reservation would make room for what the limit forbids."""
    budget = World(kind, 100).budget
    with pytest.raises(InputError):
        budget.reserve(amount)
    with pytest.raises(InputError):
        budget.reserve(1).settle(amount)
    assert budget.snapshot().reserved == 1


@both
@pytest.mark.parametrize("agent", ["", "x" * 201])
def test_an_agents_name_is_bounded(kind: str, agent: str) -> None:
    """A prompt passed as a name would be kept in Redis."""
    with pytest.raises(InputError):
        World(kind, 100).budget.reserve(1, agent)


# --- what a budget promises -----------------------------------------------------------------------


@both
def test_reserved_dollars_are_not_given_twice(kind: str) -> None:
    """Two calls at once would together cost more than is left."""
    world = World(kind, per_hour=100)
    world.budget.reserve(60)
    with pytest.raises(BudgetExceededError) as caught:
        world.budget.reserve(41)
    assert caught.value.context == {
        "budget": "default",
        "limit": "hour",
        "limit_micro_dollars": 100,
        "spent_micro_dollars": 0,
        "reserved_micro_dollars": 60,
        "asked_micro_dollars": 41,
    }
    assert not caught.value.retryable
    world.budget.reserve(40)
    assert [event.micro_dollars for event in world.told(BudgetRefused)] == [41]


@both
def test_settling_gives_back_what_was_not_needed(kind: str) -> None:
    """Upper bounds would use up the budget instead of costs."""
    world = World(kind, per_hour=100, total=150)
    assert world.budget.reserve(100).settle(30)
    snapshot = world.budget.snapshot()
    assert (snapshot.spent_in_hour, snapshot.spent_in_total, snapshot.reserved) == (30, 30, 0)
    (event,) = world.told(BudgetSettled)
    assert (event.micro_dollars, event.spent_micro_dollars, event.limit_micro_dollars) == (30, 30, 100)


@both
def test_the_first_closing_counts(kind: str) -> None:
    """A handler that closes twice would book a call twice, or take back what was billed."""
    world = World(kind, per_hour=100)
    one, two, three = (world.budget.reserve(10) for _ in range(3))
    assert one.settle(4)
    assert two.keep()
    assert three.release()
    for reservation in (one, two, three):
        assert not reservation.settle(9)
        assert not reservation.keep()
        assert not reservation.release()
    assert world.budget.snapshot().spent_in_total == 14


@both
def test_more_than_was_reserved_is_booked_as_it_is(kind: str) -> None:
    """The books would say less than the bill."""
    world = World(kind, per_hour=100)
    world.budget.reserve(10).settle(120)
    assert world.budget.snapshot().spent_in_hour == 120
    with pytest.raises(BudgetExceededError):
        world.budget.reserve(1)


@both
def test_spending_leaves_the_hour_and_stays_in_the_total(kind: str) -> None:
    """The hour's limit would become a limit for ever, or the total would be forgotten."""
    world = World(kind, per_hour=100, total=150)
    world.budget.reserve(100).keep()
    world.clock.advance(HOUR - 1)
    with pytest.raises(BudgetExceededError, match="an hour"):
        world.budget.reserve(1)
    world.clock.advance(2)
    world.budget.reserve(50)
    with pytest.raises(BudgetExceededError, match="in total"):
        world.budget.reserve(1)


@both
def test_spending_stays_in_the_hour_for_all_of_it(kind: str) -> None:
    """Forgotten a part of a second too early, it could be spent twice within one hour."""
    world = World(kind, per_hour=100)
    world.clock.advance(0.5)
    world.budget.reserve(100).keep()
    world.clock.advance(HOUR - 0.25)
    with pytest.raises(BudgetExceededError):
        world.budget.reserve(1)
    world.clock.advance(1.5)
    world.budget.reserve(100)


@both
def test_a_reservation_that_nobody_settles_becomes_spending(kind: str) -> None:
    """A crash between reserve and settle would give dollars back that may have been billed."""
    world = World(kind, per_hour=100, expires_after=60.0)
    lost = world.budget.reserve(70, "critic")
    world.clock.advance(59)
    assert world.budget.snapshot().reserved == 70
    world.clock.advance(2)
    snapshot = world.budget.snapshot()
    assert (snapshot.spent_in_hour, snapshot.reserved) == (70, 0)
    assert snapshot.agents["critic"].spent == 70
    assert not lost.settle(1)
    assert world.budget.snapshot().spent_in_hour == 70
    assert [event.micro_dollars for event in world.told(BudgetSettled)] == [70]


@both
def test_agents_are_accounted_apart(kind: str) -> None:
    """Nobody could say which agent of a team costs what."""
    world = World(kind, per_hour=1000)
    world.budget.reserve(10, "a:b").settle(3)
    world.budget.reserve(20, "a:b")
    world.budget.reserve(40, "naïve\nname").keep()
    world.budget.reserve(5).keep()
    agents = {
        name: (account.spent, account.reserved) for name, account in world.budget.snapshot().agents.items()
    }
    assert agents == {"a:b": (3, 20), "naïve\nname": (40, 0)}


def fill_accounts(world: World) -> None:
    """Give one agent after another an account until there are as many as there may be."""
    most = budget_ledger.MOST_AGENTS
    if world.server is None:
        for number in range(most):
            world.budget.reserve(2, f"agent-{number}").settle(1)
        return
    sums = {f"{kind}:agent-{number}": int(kind == "s") for number in range(most) for kind in "sr"}
    world.server.scripts()._client.hset("cert:budget:{default}:agents", mapping=sums)


@both
def test_made_up_agents_do_not_fill_the_memory(kind: str) -> None:
    """A caller that names a new agent with each request would grow the books without end."""
    world = World(kind)
    fill_accounts(world)
    for number in range(20):
        world.budget.reserve(2, f"late-{number}").settle(1)
    world.budget.reserve(7, "agent-3").keep()
    late = world.budget.reserve(5, "latest")
    agents = world.budget.snapshot().agents
    assert len(agents) == budget_ledger.MOST_AGENTS + 1
    assert agents["agent-3"] == Account(8, 0), "who had an account keeps it"
    assert agents["other"] == Account(20, 5)
    late.settle(4)
    assert world.budget.snapshot().agents["other"] == Account(24, 0), "what it reserved it gives back"


@both
def test_an_agent_takes_one_account_of_the_thousand(kind: str) -> None:
    """A team of a few agents would lose its accounts to the bound."""
    world = World(kind)
    for number in range(10):
        world.budget.reserve(0, "free").settle(0)
        world.budget.reserve(1, f"agent-{number % 3}").settle(0)
    agents = world.budget.snapshot().agents
    assert set(agents) == {"free", "agent-0", "agent-1", "agent-2"}


def test_shared_books_that_begin_are_told_of() -> None:
    """After a loss of Redis and a restart of every replica nobody would notice the second budget."""
    world = World("redis", per_hour=100)
    world.budget.reserve(1).keep()
    world.replica().reserve(1).keep()
    assert [event.budget for event in world.told(BudgetBegun)] == ["default"]
    assert world.server is not None
    world.server.scripts()._client.flushall()
    world.replica().reserve(1)
    assert len(world.told(BudgetBegun)) == 2


@both
def test_without_limits_everything_is_counted(kind: str) -> None:
    """Accounting would need a limit."""
    world = World(kind)
    world.budget.reserve(10**15).keep()
    world.budget.reserve(1).keep()
    assert world.budget.snapshot().spent_in_total == 10**15 + 1


@both
def test_asynchronous_calls_use_the_same_books(kind: str) -> None:
    """Half of a program would have a budget of its own."""
    world = World(kind, per_hour=100)

    async def spend() -> list[bool]:
        kept, settled, released = [await world.budget.reserve_async(30, "a") for _ in range(3)]
        with pytest.raises(BudgetExceededError):
            await world.budget.reserve_async(30)
        return [await kept.keep_async(), await settled.settle_async(7), await released.release_async()]

    assert asyncio.run(spend()) == [True, True, True]
    assert world.budget.snapshot() == asyncio.run(world.replica().snapshot_async())
    assert world.budget.snapshot().spent_in_hour == 37


class Books(RuleBasedStateMachine):
    """Reservations, closings, crashes and time in any order, against a model that keeps every entry."""

    kind = "local"
    open = Bundle("open")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.kind, per_hour=100, total=400, expires_after=900.0)
        self.held: dict[str, tuple[int, float]] = {}
        self.spent: list[tuple[float, int]] = []

    @property
    def now(self) -> float:
        return self.world.clock.monotonic()

    def _expire(self) -> None:
        for identifier, (amount, expires_at) in list(self.held.items()):
            if expires_at <= self.now:
                del self.held[identifier]
                self.spent.append((self.now, amount))

    def _in_hour(self, slack: float) -> int:
        return sum(amount for at, amount in self.spent if at > self.now - HOUR - slack)

    @rule(target=open, amount=st.integers(0, 60), agent=st.sampled_from([None, "a", "b"]))
    def reserve(self, amount: int, agent: str | None) -> Reservation | None:
        self._expire()
        reserved = sum(held for held, _ in self.held.values())
        total = sum(amount for _, amount in self.spent)
        try:
            reservation = self.world.replica().reserve(amount, agent)
        except BudgetExceededError:
            over_hour = self._in_hour(1.0) + reserved + amount > 100
            assert over_hour or total + reserved + amount > 400
            return None
        self.held[reservation.identifier] = (amount, self.now + 900.0)
        return reservation

    @rule(reservation=open, part=st.sampled_from([0.0, 0.5, 1.0]))
    def settle(self, reservation: Reservation | None, part: float) -> None:
        if reservation is not None:
            actual = int(reservation.micro_dollars * part)
            self._close(reservation, reservation.settle(actual), actual)

    @rule(reservation=open)
    def keep(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self._close(reservation, reservation.keep(), reservation.micro_dollars)

    @rule(reservation=consumes(open))
    def release(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self._close(reservation, reservation.release(), 0)

    def _close(self, reservation: Reservation, closed: bool, amount: int) -> None:
        self._expire()
        assert closed == (reservation.identifier in self.held)
        if closed:
            del self.held[reservation.identifier]
            self.spent.append((self.now, amount))

    @rule(seconds=st.sampled_from([0.25, 1.0, 300.0, 900.0, 3000.0, 3599.75, 3600.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @precondition(lambda self: self.world.server is not None)
    @rule(seconds=st.sampled_from([-7200.0, -1.0]))
    def wall_clock_jumps_back(self, seconds: float) -> None:
        assert self.world.server is not None
        self.world.server.jumped += seconds

    @invariant()
    def books_agree(self) -> None:
        self._expire()
        snapshot = self.world.budget.snapshot()
        assert snapshot.reserved == sum(held for held, _ in self.held.values())
        assert snapshot.spent_in_total == sum(amount for _, amount in self.spent)
        assert self._in_hour(0) <= snapshot.spent_in_hour <= self._in_hour(1.0)
        assert snapshot.spent_in_hour + snapshot.reserved <= 100
        assert snapshot.spent_in_total + snapshot.reserved <= 400


class SharedBooks(Books):
    """The same with a new replica for each reservation, and a wall clock that goes back."""

    kind = "redis"


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSharedBooks = SharedBooks.TestCase
TestSharedBooks.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


# --- shared books when things go wrong ------------------------------------------------------------


@pytest.mark.parametrize("jump", [-100_000.0, -60.0, 60.0, 100_000.0])
def test_a_wall_clock_that_jumps_changes_nothing(jump: float) -> None:
    """An administrator who sets the clock would give everyone a second budget, or close it for a day."""
    world = World("redis", per_hour=100)
    world.budget.reserve(100).keep()
    assert world.server is not None
    world.server.jumped = jump
    world.clock.advance(HOUR - 10)
    with pytest.raises(BudgetExceededError):
        world.budget.reserve(1)
    world.clock.advance(15)
    world.budget.reserve(100)


def test_redis_gone_closes_the_budget_and_says_so() -> None:
    """Without the books every replica would spend the whole budget."""
    world = World("redis", per_hour=100)
    world.budget.reserve(40).keep()
    assert world.server is not None
    world.server.server.connected = False
    for _ in range(3):
        with pytest.raises(StoreError) as caught:
            world.budget.reserve(1)
    assert caught.value.retry_after is not None
    assert world.budget.degraded == "fail_closed"
    assert [(event.component, event.mode, event.active) for event in world.told(ComponentDegraded)] == [
        ("budget.default", "fail_closed", True)
    ]
    world.server.server.connected = True
    world.clock.advance(1.0)
    world.budget.reserve(60)
    assert not world.budget.degraded
    assert not world.told(ComponentDegraded)[-1].active


def test_what_could_not_be_settled_is_settled_later() -> None:
    """An outage would turn every call in flight into its upper bound."""
    world = World("redis", per_hour=100)
    settled, released, kept = (world.budget.reserve(amount) for amount in (30, 20, 10))
    assert world.server is not None
    world.server.server.connected = False
    assert not settled.settle(7)
    assert not released.release()
    assert not kept.keep()
    world.server.server.connected = True
    world.clock.advance(1.0)
    world.budget.reserve(5)
    snapshot = world.replica().snapshot()
    assert (snapshot.spent_in_hour, snapshot.reserved) == (17, 5)
    assert sum(event.micro_dollars for event in world.told(BudgetSettled)) == 17


def test_on_an_event_loop_redis_gone_closes_the_budget_too() -> None:
    """The services call this way: an answer would be lost, or money spent, where the other form is right."""
    world = World("redis", per_hour=100)
    assert world.server is not None
    server = world.server.server

    async def outage() -> None:
        settled, kept = [await world.budget.reserve_async(amount) for amount in (30, 10)]
        server.connected = False
        assert not await settled.settle_async(7)
        assert not await kept.keep_async()
        with pytest.raises(StoreError):
            await world.budget.reserve_async(1)
        with pytest.raises(StoreError):
            await world.budget.snapshot_async()
        assert world.budget.degraded == "fail_closed"
        server.connected = True
        world.clock.advance(1.0)
        await world.budget.reserve_async(5)
        snapshot = await world.budget.snapshot_async()
        assert (snapshot.spent_in_hour, snapshot.reserved) == (17, 5)

    asyncio.run(outage())
    assert [event.active for event in world.told(ComponentDegraded)] == [True, False]


def test_a_cancelled_reservation_is_given_back() -> None:
    """Calls that were never made would use up the budget."""
    world = World("redis", per_hour=100)
    asked = world.budget._store._redis  # type: ignore[attr-defined]  # between Redis's work and its answer
    answer_of = asked.run_async

    async def slow(*question: Any) -> list[Any]:
        answer: list[Any] = await answer_of(*question)
        await asyncio.sleep(10)
        return answer

    async def cancel() -> None:
        asked.run_async = slow
        task = asyncio.ensure_future(world.budget.reserve_async(100))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asked.run_async = answer_of

    asyncio.run(cancel())
    assert world.replica().snapshot().reserved == 100
    world.budget.reserve(100)
    assert world.replica().snapshot().reserved == 100


def test_a_replica_refuses_books_that_have_lost_data() -> None:
    """A Redis that restarts empty would give everyone a second budget."""
    world = World("redis", per_hour=100, total=200)
    world.budget.reserve(90).keep()
    assert world.server is not None
    scripts = world.server.scripts()
    scripts._client.flushall()
    with pytest.raises(StoreError, match="lost"):
        world.budget.reserve(1)
    assert world.budget.degraded == "fail_closed"
    other = world.replica()
    for _ in range(10):
        other.reserve(1)  # begins new books: a process just started cannot know
    world.clock.advance(2 * HOUR)
    with pytest.raises(StoreError, match="lost"):
        world.budget.reserve(1)


def test_a_replica_refuses_books_that_went_back_in_time() -> None:
    """A Redis restored from an old snapshot would have forgotten spending."""
    world = World("redis", per_hour=100)
    world.budget.reserve(10).keep()
    assert world.server is not None
    client = world.server.scripts()._client
    state = "cert:budget:{default}:state"
    before = client.hgetall(state)
    world.budget.reserve(50).keep()
    client.hset(state, mapping=before)
    with pytest.raises(StoreError, match="lost"):
        world.budget.reserve(1)


def test_an_hours_budget_goes_on_an_hour_after_a_loss() -> None:
    """A budget without a total would stay closed for ever although all that was lost is long past."""
    world = World("redis", per_hour=100, expires_after=60.0)
    world.budget.reserve(90).keep()
    assert world.server is not None
    world.server.scripts()._client.flushall()
    with pytest.raises(StoreError, match="lost"):
        world.budget.reserve(1)
    world.clock.advance(HOUR + 30)
    with pytest.raises(StoreError, match="lost"):
        world.budget.reserve(1)
    world.clock.advance(31)
    world.budget.reserve(100)


def test_a_step_sent_twice_is_done_once() -> None:
    """A connection that breaks after the work would book it twice."""
    world = World("redis", per_hour=100)
    asked = world.budget._store._redis  # type: ignore[attr-defined]
    answer_of = asked.run
    asked.run = lambda *question: [answer_of(*question) for _ in range(2)][1]
    reservation = world.budget.reserve(30)
    assert world.budget.snapshot().reserved == 30
    reservation.settle(10)
    snapshot = world.budget.snapshot()
    assert (snapshot.spent_in_hour, snapshot.reserved) == (10, 0)
