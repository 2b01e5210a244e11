"""Rounds of a debate: who was talked out of what is right, who into it, and what was left lying."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.coordination import strategies
from cert.coordination.consensus import cluster_responses
from cert.coordination.dynamics import RoundChange, oracle_gap, pooled, round_changes
from cert.coordination.scripted import ScriptedChat
from cert.coordination.strategies import Agent, Team
from cert.coordination.types import Task
from cert.core.errors import InputError, UpstreamTimeoutError

TASK = Task("6 × 7?")
DOWN = UpstreamTimeoutError("too slow")


def debate(*scripts, rounds=1, strategy="debate"):
    agents = [Agent(f"agent-{n}", ScriptedChat(*script)) for n, script in enumerate(scripts, 1)]
    parameters = {"rounds": rounds} if strategy == "debate" else {}
    return asyncio.run(strategies.get(strategy, **parameters)(TASK, Team(agents)))


def scored(transcript, right="42"):
    return [None if one.text is None else float(one.text == right) for one in transcript.responses]


def changes(transcript, scores=None):
    clusters = asyncio.run(cluster_responses(TASK, transcript.responses))
    return round_changes(transcript, scored(transcript) if scores is None else scores, clusters)


def test_who_is_talked_out_of_the_right_answer():
    """A debate that costs two right answers and wins one must show both, not their difference."""
    transcript = debate(["42", "41"], ["42", "41"], ["41", "42"], ["42", "42"], ["40", "40"])
    (change,) = changes(transcript)
    assert change.round == 1
    assert (change.right_before, change.right_to_wrong, change.right_to_wrong_rate) == (3, 2, 2 / 3)
    assert (change.wrong_before, change.wrong_to_right, change.wrong_to_right_rate) == (2, 1, 0.5)


def test_adoption_of_a_majority_and_of_a_wrong_one():
    """Following the others is learning where they are right, and conformity where they are not."""
    (right,) = changes(debate(["42", "42"], ["42", "42"], ["41", "42"], ["40", "40"], ["42", "42"]))
    assert (right.outside_majority, right.adopted, right.adoption_rate) == (2, 1, 0.5)
    assert (right.outside_wrong_majority, right.wrong_adoption_rate) == (0, None)
    (wrong,) = changes(debate(["41", "41"], ["41", "41"], ["42", "41"]))
    assert (wrong.outside_wrong_majority, wrong.adopted_wrong, wrong.wrong_adoption_rate) == (1, 1, 1.0)


def test_half_is_no_majority():
    """Two against two leave nobody to conform to."""
    (change,) = changes(debate(["42", "42"], ["42", "42"], ["41", "42"], ["41", "42"]))
    assert (change.outside_majority, change.adoption_rate) == (0, None)


def test_who_is_absent_or_unscored_is_in_no_rate():
    """A failed call is no lost conviction, and a failed judgement no wrong answer."""
    transcript = debate(["42", "41"], ["42", DOWN], ["42", "42"], ["41", "41"])
    scores = scored(transcript)
    scores[3] = None
    (change,) = changes(transcript, scores)
    assert (change.right_before, change.right_to_wrong, change.wrong_before, change.unscored) == (2, 1, 0, 1)


def test_rounds_are_followed_one_by_one():
    """What happens in the second round must not be booked on the first."""
    transcript = debate(["42", "41", "42"], ["42", "42", "42"], rounds=2)
    assert [(c.round, c.right_to_wrong, c.wrong_to_right) for c in changes(transcript)] == [
        (1, 1, 0),
        (2, 0, 1),
    ]
    assert round_changes(transcript, scored(transcript))[0].outside_majority == 0


def test_the_aggregator_is_no_agent_that_changed_its_mind():
    """It often is the first agent by name: its answer must not be read as that agent's next."""
    transcript = debate(["a long text", "It is 42."], ["another text"], strategy="parallel")
    assert transcript.responses[-1].agent == "agent-1"
    assert round_changes(transcript, [1.0, 0.0, 0.0]) == ()
    sequence = debate(["41"], ["42"], strategy="sequential")
    assert round_changes(sequence, [0.0, 1.0]) == ()


def test_tasks_are_added_up():
    """The mean of rates of one or two agents each is noise; rates are of sums."""
    one = changes(debate(["42", "41"], ["42", "42"]))
    other = changes(debate(["42", "42", "42"], ["41", "41", "42"], rounds=2))
    first, second = pooled([one, other])
    assert (first.right_before, first.right_to_wrong, second.wrong_to_right) == (3, 1, 1)
    assert pooled([]) == ()
    with pytest.raises(InputError, match="not added"):
        RoundChange(round=1) + RoundChange(round=2)


def test_what_a_perfect_choice_would_have_gained():
    """A team that had the right answer and gave another has a problem that more agents do not solve."""
    transcript = debate(["41"], ["42"], ["41"], strategy="vote")
    assert oracle_gap(transcript, [0.0, 1.0, 0.0], 0.0) == 1.0
    assert oracle_gap(transcript, [0.25, 0.5, 0.25], 0.75) == -0.25
    assert oracle_gap(transcript, [0.25, None, 0.25], 0.25) is None
    assert oracle_gap(transcript, [1.0, None, 0.25], 0.25) == 0.75
    assert oracle_gap(transcript, [0.25, 0.5, 0.25], None) is None
    assert oracle_gap(transcript, [None, None, None], 0.5) is None


def test_the_aggregated_answer_is_not_in_the_pool():
    """With it in there, an aggregator could never be better than the best agent."""
    transcript = debate(["a long text", "It is 42."], ["another text"], strategy="parallel")
    assert oracle_gap(transcript, [0.25, 0.5, 1.0], 1.0) == -0.5


def test_scores_are_one_a_response():
    """Scores that are shifted by one belong to other agents."""
    transcript = debate(["42"], ["41"], strategy="vote")
    with pytest.raises(InputError, match="2 responses and 1 scores"):
        round_changes(transcript, [1.0])
    with pytest.raises(InputError, match="2 responses and 3 clusters"):
        round_changes(transcript, [1.0, 0.0], [0, 0, 1])
    with pytest.raises(InputError, match="2 responses and 0 scores"):
        oracle_gap(transcript, [], 1.0)


@given(
    st.lists(st.lists(st.sampled_from(["41", "42", "43"]), min_size=3, max_size=3), min_size=2, max_size=5)
)
def test_counts_fit_each_other(scripts):
    """Rates are shares: no part is larger than its whole, and every agent is counted once."""
    for change in changes(debate(*scripts, rounds=2)):
        assert change.right_before + change.wrong_before + change.unscored == len(scripts)
        assert 0 <= change.right_to_wrong <= change.right_before
        assert 0 <= change.wrong_to_right <= change.wrong_before
        assert 0 <= change.adopted_wrong <= change.adopted <= change.outside_majority < len(scripts) / 2
        assert change.adopted_wrong <= change.outside_wrong_majority <= change.outside_majority
