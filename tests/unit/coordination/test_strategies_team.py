"""A team: its agents really answer at once, who is absent is recorded, and below a quorum nothing is said."""

import asyncio
from dataclasses import replace

import pytest

from cert.coordination import strategies
from cert.coordination.chat import Completion, Usage
from cert.coordination.scripted import ScriptedChat
from cert.coordination.strategies import Agent, Team
from cert.coordination.types import Task
from cert.core.errors import (
    BudgetExceededError,
    ConfigurationError,
    DependencyMissingError,
    InputError,
    QuorumError,
    StoreError,
    UpstreamTimeoutError,
)

TASK = Task("What is the capital of Norway?")


def team_of(*clients, **options):
    return Team([Agent(f"agent-{n}", client) for n, client in enumerate(clients, 1)], **options)


def ask_all(team, task=TASK, **options):
    prompt = team.prompts.answer(task.text)
    return asyncio.run(team.ask_all(task, [(agent, prompt) for agent in team.agents], round=0, **options))


def completion(**changes):
    base = Completion(
        text="Oslo", model="m-1", usage=Usage(9, 2), cost_micro_dollars=19, latency_seconds=3.0, finish="stop"
    )
    return replace(base, **changes)


def test_agents_of_a_round_run_at_once():
    """One after the other, a round of five agents takes five times as long; here it would never end."""

    async def run():
        barrier = asyncio.Barrier(5)

        async def reply(_):
            await barrier.wait()
            return "Oslo"

        team = Team.of(ScriptedChat(otherwise=reply), 5)
        prompt = team.prompts.answer(TASK.text)
        async with asyncio.timeout(10):
            return await team.ask_all(TASK, [(agent, prompt) for agent in team.agents], round=0)

    said = asyncio.run(run())
    assert [(one.agent, one.text) for one in said] == [(f"agent-{n}", "Oslo") for n in range(1, 6)]


def test_a_response_says_what_was_asked_and_what_it_cost():
    """A transcript is what a verdict is checked against: nothing of it can be looked up later."""
    client = ScriptedChat(completion(finish="length", attempts=3), prices=(1, 5))
    team = Team([Agent("agent-1", client, system="Be brief.", temperature=0.5, max_tokens=7)], draw="run-2")
    (said,) = ask_all(team)
    (request,) = client.requests
    assert (request.system, request.temperature, request.max_tokens) == ("Be brief.", 0.5, 7)
    assert request.draw == "run-2/agent-1/round-0/answer"
    assert client.agents == ["agent-1"]
    assert (said.text, said.absent, said.role, said.round, said.model) == ("Oslo", None, "answer", 0, "m-1")
    assert (said.usage, said.cost_micro_dollars, said.finish, said.attempts) == (Usage(9, 2), 19, "length", 3)
    assert said.prompt_sha256 == request.prompt_sha256
    assert said.template == team.prompts.answer("x").template
    assert 0.0 <= said.seconds < 3.0


def test_the_time_of_a_cached_answer_is_what_it_takes_without_the_cache():
    """A run that is resumed would else report agents that answer in no time."""
    (said,) = ask_all(team_of(ScriptedChat(completion(from_cache=True))))
    assert said.from_cache
    assert said.seconds == 3.0


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (UpstreamTimeoutError("too slow"), "upstream_timeout"),
        (completion(finish="refusal"), "refusal"),
        (completion(finish="content_filter", text=""), "content_filter"),
        (completion(text=" \n"), "empty"),
        (completion(text="", finish="length"), "empty"),
    ],
)
def test_who_says_nothing_is_absent_with_the_reason(reply, why):
    """An empty answer that counts as one is judged, and votes; a refusal was paid for all the same."""
    said = ask_all(team_of(ScriptedChat(reply), ScriptedChat("Oslo"), ScriptedChat("Oslo")))
    assert [one.text for one in said] == [None, "Oslo", "Oslo"]
    assert [one.absent for one in said] == [why, None, None]
    assert said[0].cost_micro_dollars == (19 if isinstance(reply, Completion) else 0)


def test_below_the_quorum_the_round_fails_and_tells_what_was_said():
    """One of three is no team: its answer under the team's name would be measured as the team's."""
    down = UpstreamTimeoutError("too slow")
    earlier = ask_all(team_of(ScriptedChat("before")))
    with pytest.raises(
        QuorumError, match=r"2 of 3 agents .* 2 have to: agent-1 \(upstream_timeout\)"
    ) as caught:
        ask_all(team_of(ScriptedChat(down), ScriptedChat("Oslo"), ScriptedChat(down)), before=earlier)
    assert [one.text for one in caught.value.responses] == ["before", None, "Oslo", None]
    assert caught.value.context == {"asked": 3, "needed": 2, "absent": 2}


def test_the_quorum_is_the_users():
    """Who pays for five agents may be content with one, or with nothing less than five."""
    down = ScriptedChat(otherwise=UpstreamTimeoutError("too slow"))
    clients = [ScriptedChat(otherwise="Oslo"), down, down]
    assert [one.text for one in ask_all(team_of(*clients, quorum=1))] == ["Oslo", None, None]
    with pytest.raises(QuorumError):
        ask_all(team_of(*clients, quorum=3))
    with pytest.raises(QuorumError, match="3 of 3"):
        ask_all(team_of(down, down, down, quorum=1))
    assert [Team.of(down, 5).needed(n) for n in range(1, 6)] == [1, 2, 2, 3, 3]
    assert [Team.of(down, 5, quorum=4).needed(n) for n in range(1, 6)] == [1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    "error", [BudgetExceededError, ConfigurationError, DependencyMissingError, StoreError]
)
def test_what_ends_the_run_is_no_absence(error):
    """An exhausted budget that looks like shy agents would go on to spend, and report a worse team."""
    finished = []

    async def slow(_):
        await asyncio.sleep(0.01)
        finished.append("paid for")
        return "Oslo"

    with pytest.raises(error, match="no more"):
        ask_all(team_of(ScriptedChat(error("no more")), ScriptedChat(slow)))
    assert finished == ["paid for"]


def test_a_defect_of_the_program_passes_through():
    """A TypeError that counts as an absent agent is found by nobody."""
    with pytest.raises(TypeError):
        ask_all(team_of(ScriptedChat(TypeError("a defect")), ScriptedChat("a"), ScriptedChat("b")))


def test_who_cancels_a_round_cancels_all_its_agents():
    """Calls that go on after Ctrl-C are billed and seen by nobody."""
    cancelled = []

    async def run():
        started = asyncio.Barrier(4)

        async def forever(_):
            try:
                await started.wait()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(1)
                raise

        team = Team.of(ScriptedChat(otherwise=forever), 3)
        work = asyncio.create_task(strategies.get("vote")(TASK, team))
        await started.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(run())
    assert cancelled == [1, 1, 1]


def test_seeds_are_of_the_draw():
    """Equal seeds make three agents one; seeds by chance make a run that nobody can repeat."""

    def seeds(seed, task=TASK, draw=""):
        client = ScriptedChat(otherwise="Oslo")
        ask_all(Team.of(client, 3, seed=seed, draw=draw), task)
        return [request.seed for request in client.requests]

    assert seeds(None) == [None, None, None]
    assert seeds(1) == seeds(1)
    drawn = [*seeds(1), *seeds(2), *seeds(1, Task("another")), *seeds(1, draw="again")]
    assert len(set(drawn)) == 12
    assert all(0 <= seed < 2**31 for seed in drawn)


def test_half_a_surrogate_pair_does_not_end_the_debate():
    """A server's JSON may hold one; it can be neither sent on nor hashed."""
    (said,) = ask_all(team_of(ScriptedChat("smile \ud83d")))
    assert said.text == "smile ?"


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda chat: Team([]), "one agent or more"),
        (lambda chat: Team.of(chat, 0), "one agent or more"),
        (lambda chat: Team([Agent("a", chat), Agent("a", chat)]), "name of its own"),
        (lambda chat: Team([Agent("", chat)]), "name of its own"),
        (lambda chat: Team.of(chat, 2, quorum=3), "quorum of 2 agents is from 1 to 2"),
        (lambda chat: Team.of(chat, 2, quorum=0), "quorum"),
    ],
)
def test_a_team_that_cannot_be_is_refused(build, reason):
    """Before anything is paid for."""
    with pytest.raises(InputError, match=reason):
        build(ScriptedChat("x"))


def test_equal_agents_in_one_line():
    """Most teams are n times one model."""
    chat = ScriptedChat("x")
    team = Team.of(chat, 2, system="s", temperature=1.0, quorum=2, seed=3)
    assert team.agents == (
        Agent("agent-1", chat, system="s", temperature=1.0),
        Agent("agent-2", chat, system="s", temperature=1.0),
    )
    assert (team.quorum, team.seed) == (2, 3)
