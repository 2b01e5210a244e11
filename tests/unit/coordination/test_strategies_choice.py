"""Majorities of answers that say the same: ties by a rule, and no guess where nothing tells them apart."""

import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.answers import MatcherEquivalence, NormalizedMatcher
from cert.coordination.strategies import Choice, MajorityChooser
from cert.core.errors import ConfigurationError

EXACT = MatcherEquivalence(NormalizedMatcher())


@dataclass
class Rule:
    """Answers such as "a1": the letter is the meaning; "?" is never decided."""

    name: str = "rule"

    def same(self, question, pairs):
        return [None if "?" in {a[0], b[0]} else a[0] == b[0] for a, b in pairs]


def choose(answers, **options):
    return asyncio.run(MajorityChooser(**options).choose("", answers))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7))
def test_the_plurality_wins_and_ties_go_to_the_first(answers):
    """The answer of a vote has to be one that nobody got more votes than."""
    choice = choose(answers, equivalence=EXACT)
    counts = Counter(answers)
    assert choice.missing is None
    assert counts[answers[choice.index]] == max(counts.values())
    assert choice.index == min(i for i, a in enumerate(answers) if counts[a] == max(counts.values()))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), st.randoms())
def test_without_ties_the_order_of_the_agents_is_nothing(answers, random):
    """A majority that depends on who is called agent-1 is none."""
    shuffled = random.sample(answers, len(answers))
    one, other = (choose(said, equivalence=EXACT, ties="none") for said in (answers, shuffled))
    assert one.missing == other.missing
    assert one.missing == "tie" or answers[one.index] == shuffled[other.index]


def test_different_answers_without_a_majority_are_one_agents():
    """Three different answers hold no vote: the outcome must be worth one agent, not nothing and not more."""
    assert choose(["b", "c", "a"], equivalence=EXACT) == Choice(0)
    assert choose(["b", "c", "a"], equivalence=EXACT, ties="none") == Choice(None, "tie")


def test_nothing_is_guessed_where_nothing_can_tell():
    """Free texts without a reader: whichever were taken would be an agent's, sold as the team's."""
    assert choose(["It is safe.", "It is not safe."]) == Choice(None, "undecided")
    assert choose(["It is safe.", "It is safe.", "It is not safe.", "Unsure."]) == Choice(None, "undecided")


def test_what_wins_in_any_case_wins():
    """An absolute majority needs no judge for the rest, and a judge would cost."""
    assert choose(["It is not safe.", "It is safe.", "It is safe"]) == Choice(1)


@given(st.lists(st.sampled_from(["a", "b", "?1", "?2"]), min_size=1, max_size=7), st.data())
def test_a_winner_despite_open_pairs_wins_however_they_are_decided(answers, data):
    """An undecided pair must never have been the one that counted."""
    choice = choose(answers, equivalence=Rule())
    decided = [data.draw(st.sampled_from(["a", "b", "c"])) if "?" in answer else answer for answer in answers]
    one_each = dict(zip(answers, decided, strict=True))  # the same text always means the same
    decided = [one_each[answer] for answer in answers]
    if choice.index is not None and choice.missing is None and any("?" in answer for answer in answers):
        counts = Counter(decided)
        assert counts[decided[choice.index]] == max(counts.values())


def test_ties_are_a_known_rule():
    """A misspelt rule would silently be another."""
    with pytest.raises(ConfigurationError, match="'first' or 'none'"):
        MajorityChooser(ties="random")  # type: ignore[arg-type]
    assert MajorityChooser().name == "majority(written alike, ties=first)"
