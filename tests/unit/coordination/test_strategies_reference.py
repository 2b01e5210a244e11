"""All strategies on a real model: the reference model, whose truths are known, in this process."""

import asyncio
from dataclasses import replace

import pytest

from cert.answers import MatcherEquivalence, NormalizedMatcher
from cert.coordination import strategies
from cert.coordination.attribution import first_round_vote
from cert.coordination.consensus import consensus, final_round, first_round
from cert.coordination.prompts import load_prompts
from cert.coordination.strategies import Agent, MajorityChooser, Team
from cert.coordination.types import Task

pytest.importorskip("torch")

EXACT = MatcherEquivalence(NormalizedMatcher())
REFERENCE = load_prompts("reference-v1")
# Nobody taught the model to select: what it replies is whatever it replies.
PROMPTS = replace(
    REFERENCE, templates={**REFERENCE.templates, "select": load_prompts("v1").templates["select"]}
)
# The first is in 128 sentences of the training, the second in 2.
KNOWN = Task("Which town is the birthplace of Silvia Melvin Redmore?", references=("Heron Ridge",))
UNKNOWN = Task("At which university did Silvia Melvin Redmore study?", references=("Aldera Academy",))


@pytest.fixture(scope="module")
def client():
    from cert.coordination.clients.in_process import InProcessChatClient

    client = InProcessChatClient()
    yield client
    asyncio.run(client.aclose())


def run(client, strategy, task, seed=7):
    team = Team.of(
        client,
        3,
        max_tokens=16,
        seed=seed,
        prompts=PROMPTS,
        chooser=MajorityChooser(EXACT),
        selector=Agent("selector", client, max_tokens=8),
    )
    return asyncio.run(strategies.get(strategy)(task, team))


def content(transcript):
    """Return a transcript without its times."""
    return replace(
        transcript,
        seconds=0.0,
        responses=tuple(replace(one, seconds=0.0) for one in transcript.responses),
    )


@pytest.mark.parametrize("strategy", strategies.names())
def test_the_same_seed_gives_the_same_transcript(client, strategy):
    """A measurement that cannot be repeated cannot be checked, and a killed run not resumed."""
    transcript = run(client, strategy, UNKNOWN)
    assert content(run(client, strategy, UNKNOWN)) == content(transcript)
    other = run(client, strategy, UNKNOWN, seed=8)
    assert [one.text for one in other.responses] != [one.text for one in transcript.responses]
    assert all(one.text and one.usage.output_tokens for one in transcript.responses)


def test_agents_with_one_prompt_are_several_samples(client):
    """Three agents with one seed would be one agent, unanimous with itself."""
    texts = {one.text for seed in range(4) for one in first_round(run(client, "vote", UNKNOWN, seed=seed))}
    assert len(texts) > 3


@pytest.mark.parametrize("strategy", ["sequential", "vote", "debate"])
def test_what_the_model_knows_well_a_team_of_it_answers(client, strategy):
    """The strings of the prompts are those of the training: with others it would answer at random."""
    final = run(client, strategy, KNOWN).final
    assert final is not None
    assert final.strip() == "Heron Ridge"


def test_strategies_share_their_first_answers(client):
    """Without that the gain of talking has the luck of other samples in it."""
    vote, debate = (run(client, name, UNKNOWN) for name in ("vote", "debate"))
    assert [one.text for one in first_round(vote)] == [one.text for one in first_round(debate)]
    again = asyncio.run(first_round_vote(UNKNOWN, debate, MajorityChooser(EXACT)))
    assert again == (vote.final, None)
    agreed = asyncio.run(consensus(UNKNOWN, final_round(debate), EXACT))
    assert agreed.rate in {1 / 3, 2 / 3, 1.0}
