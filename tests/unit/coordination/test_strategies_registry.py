"""Strategies by name: the known ones, the user's own, and clear words for what is neither."""

import asyncio

import pytest

from cert.coordination import strategies
from cert.coordination.scripted import ScriptedChat
from cert.coordination.strategies import Discussion, Team, registry
from cert.coordination.types import Task
from cert.core.errors import InputError


class FirstOnly:
    """A strategy of a user: the first agent's answer, so many times over."""

    name = "first_only"

    def __init__(self, times=1):
        self.identity = f"first_only(times={times})"

    async def __call__(self, task, team):
        talk = Discussion(self.identity, task, team)
        return talk.close_with(await talk.ask(team.agents[0], talk.prompts.answer(task.text)))


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(registry, "_makers", dict(registry._makers))


def test_the_strategies_of_the_package():
    """Their names are in users' programs, files and records."""
    assert strategies.names() == ("sequential", "parallel", "debate", "vote", "best_of_n")
    assert [strategies.get(name).name for name in strategies.names()] == list(strategies.names())
    identities = [strategies.get(name).identity for name in strategies.names()]
    assert identities == ["sequential", "parallel", "debate(rounds=2)", "vote", "best_of_n"]


def test_an_unknown_strategy_names_the_known_ones():
    """A typing error has to be put right without the source."""
    with pytest.raises(InputError, match="no strategy 'debatte'") as caught:
        strategies.get("debatte")
    assert caught.value.hint == "one of sequential, parallel, debate, vote, best_of_n"


@pytest.mark.parametrize(
    ("name", "parameters", "known"),
    [("debate", {"round": 3}, "rounds"), ("vote", {"rounds": 3}, "none"), ("parallel", {"n": 3}, "none")],
)
def test_an_unknown_parameter_names_the_known_ones(name, parameters, known):
    """A parameter that is ignored is a measurement of something else."""
    with pytest.raises(InputError, match=f"{name}: ") as caught:
        strategies.get(name, **parameters)
    assert caught.value.hint == f"its parameters are: {known}"


@pytest.mark.usefixtures("own")
def test_a_strategy_of_the_users_own():
    """The list is a beginning: whoever has another way of working together measures it in the same way."""
    strategies.register("first_only", FirstOnly)
    assert strategies.names()[-1] == "first_only"
    mine = strategies.get("first_only", times=2)
    transcript = asyncio.run(mine(Task("2 + 2?"), Team.of(ScriptedChat("4"), 1)))
    assert (transcript.final, transcript.strategy) == ("4", "first_only(times=2)")
    with pytest.raises(InputError, match="unexpected"):
        strategies.get("first_only", turns=2)


@pytest.mark.usefixtures("own")
def test_a_name_is_taken_once():
    """A plug-in that silently replaces "vote" changes every measurement after it."""
    with pytest.raises(InputError, match="already"):
        strategies.register("vote", FirstOnly)
    strategies.register("vote", FirstOnly, replace=True)
    assert strategies.get("vote").name == "first_only"
    with pytest.raises(InputError, match="needs a name"):
        strategies.register(" ", FirstOnly)
