"""Voting and talking: two parts that add up to what the team gains over one agent, on the same samples."""

import asyncio
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.coordination import strategies
from cert.coordination.attribution import attribute, first_round_vote
from cert.coordination.scripted import ScriptedChat
from cert.coordination.strategies import Agent, MajorityChooser, Team
from cert.coordination.types import Task
from cert.core.errors import InputError

TASK = Task("6 × 7?")
# Quarters are exact in floating point, and so are their sums.
EXACT = st.one_of(st.none(), st.integers(0, 4).map(lambda n: n / 4))
ANY = st.one_of(st.none(), st.floats(0, 1))


def triples(scores, **size):
    return st.lists(st.tuples(scores, scores, scores), max_size=12, **size)


@given(triples(EXACT))
def test_the_parts_are_the_whole(rows):
    """Parts that do not add up leave a gain that is nobody's."""
    result = (
        attribute(*(list(column) for column in zip(*rows, strict=True))) if rows else attribute([], [], [])
    )
    complete = [row for row in rows if None not in row]
    assert (result.tasks, result.missing) == (len(complete), len(rows) - len(complete))
    if not complete:
        assert (result.total, result.voting, result.talking) == (None, None, None)
        return
    n = len(complete)
    sums = [Fraction(0)] * 3
    for one, voted, said in complete:
        for part, gain in enumerate((said - one, voted - one, said - voted)):
            sums[part] += Fraction(gain)
    assert sums[0] == sums[1] + sums[2]
    assert [result.total, result.voting, result.talking] == [float(part) / n for part in sums]


@given(triples(ANY, min_size=1))
def test_the_parts_are_the_whole_whatever_the_scores(rows):
    """The same for scores with any digits, to rounding."""
    result = attribute(*(list(column) for column in zip(*rows, strict=True)))
    if result.total is not None and result.voting is not None and result.talking is not None:
        assert result.voting + result.talking == pytest.approx(result.total, abs=1e-12)
        assert all(abs(part) <= 1.0 for part in (result.total, result.voting, result.talking))


def test_a_task_that_lacks_one_quality_is_in_none_of_the_parts():
    """Means over different tasks differ for a reason that is neither voting nor talking."""
    result = attribute([0.0, 1.0, None], [1.0, None, 1.0], [1.0, 0.0, 1.0])
    assert (result.total, result.voting, result.talking, result.tasks, result.missing) == (
        1.0,
        1.0,
        0.0,
        1,
        2,
    )
    with pytest.raises(InputError, match="no triples"):
        attribute([0.0], [0.0], [])


def run(strategy, *scripts):
    agents = [Agent(f"agent-{n}", ScriptedChat(*script)) for n, script in enumerate(scripts, 1)]
    return asyncio.run(strategies.get(strategy)(TASK, Team(agents)))


def test_the_vote_is_over_the_runs_own_first_answers():
    """A vote of other samples would add their luck to what talking is said to do."""
    debate = run("debate", ["41", "42", "42"], ["42", "42", "42"], ["42", "41", "42"])
    assert asyncio.run(first_round_vote(TASK, debate, MajorityChooser())) == ("42", None)
    texts = run("parallel", ["It is safe.", "Safe."], ["It is not safe."])
    assert asyncio.run(first_round_vote(TASK, texts, MajorityChooser())) == (None, "undecided")
    sequence = run("sequential", ["41"], ["42"])
    assert asyncio.run(first_round_vote(TASK, sequence, MajorityChooser())) == ("41", None)


def test_the_vote_of_a_debate_is_the_vote_strategy():
    """Both are called the vote: with the same first answers they have to be the same answer."""
    firsts = ["42", "41", "42.0"]
    vote = run("vote", *([text] for text in firsts))
    debate = run("debate", *([text, "41", "41"] for text in firsts))
    assert asyncio.run(first_round_vote(TASK, debate, MajorityChooser()))[0] == vote.final == "42"
