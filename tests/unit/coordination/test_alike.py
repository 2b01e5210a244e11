"""What writing tells of two answers: never that a negation, another number or another unit is the same."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.answers import MatcherEquivalence, NormalizedMatcher
from cert.coordination.alike import WrittenAlike, cluster_answers, same_answer, written_key
from cert.core.errors import InputError

# Pairs that are close in writing, and mostly in embeddings, and far apart in what they say.
APART = [
    ("enforceable", "not enforceable"),
    ("The clause is enforceable.", "The clause is not enforceable."),
    ("The clause is enforceable under section 5.", "The clause is not enforceable under section 5."),
    ("legal", "illegal"),
    ("They can.", "They can't."),
    ("Yes, in 1990", "No, in 1990"),
    ("p", "!p"),
    ("42", "57"),
    ("5", "-5"),
    ("+3", "-3"),
    ("5", "(−5)"),
    ("0.1", "0.01"),
    ("1e3", "1e-3"),
    ("1,234", "1.234"),
    ("1,000", "10,00"),
    ("1.234,5", "1,234.5"),
    ("5 million", "5 billion"),
    ("5 km", "5 m"),
    ("5 km", "5 miles"),
    ("5 MW", "5 mW"),
    ("5 m²", "5 m"),
    ("5 m²", "5 m³"),
    ("5'", '5"'),
    ("5 °C", "5 °F"),
    ("$5", "€5"),
    ("50%", "50"),
    ("50%", "0.5"),
    ("9 AM", "9 PM"),
    ("10:30", "10.30"),
    ("12/05/2020", "05/12/2020"),
    ("5 May 2020", "5 June 2020"),
    ("2019", "2020"),
    ("≥ 5", "≤ 5"),
    ("3-5", "35"),
    ("10²", "102"),
    ("1/2", "1/3"),
    ("n!", "n"),
    ("f'(x)", "f(x)"),
    ("A*", "A"),
    ("mW", "MW"),
]

TOGETHER = [
    ("Paris", " paris. "),
    ("**Paris**", "Paris"),
    ("The Eiffel Tower", "Eiffel tower"),
    ("No.", "no"),
    ("1,234", "1234"),
    ("1\u202f000", "1000"),
    ("1/2", "0.5"),
    ("1e3", "1000.0"),
    ("42 km", "42km."),
    ("−5", "-5"),
    ("5%", "5 percent"),
    ("`x - y`", "x - y"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_is_apart_is_never_the_same(one, other):
    """A vote or a consensus of these would report agreement on the contrary, or on another number."""
    assert WrittenAlike().same("", [(one, other), (other, one)]) in ([None, None], [False, False])


@pytest.mark.parametrize(("one", "other"), TOGETHER)
def test_what_is_written_alike_is_the_same(one, other):
    """Agents differ in points, capitals and separators: votes must not be lost on them."""
    assert WrittenAlike().same("", [(one, other), (other, one)]) == [True, True]


def test_a_bare_number_is_no_bridge_between_units():
    """5 is 5 km and 5 is 5 m: if both were so, three answers that differ would be unanimous."""
    answers = ["5", "5 km", "5 m", "5 AM", "5 PM", "$5", "€5", "5%"]
    assert len({written_key(answer) for answer in answers}) == len(answers)


TEXTS = st.one_of(
    st.sampled_from([text for pair in [*APART, *TOGETHER] for text in pair]),
    st.text("5.,-% kmM*\"aA'!", max_size=8),
    st.text(max_size=8),
)


@given(st.lists(TEXTS, min_size=3, max_size=3))
def test_it_is_an_equivalence(three):
    """Clusters of a rule that is none depend on who answered first."""
    a, b, c = three
    rule = WrittenAlike()
    assert rule.same("", [(a, a)]) == [True]
    assert rule.same("", [(a, b)]) == rule.same("", [(b, a)])
    same = rule.same("", [(a, b), (b, c), (a, c)])
    assert not (same[0] and same[1]) or same[2]


def test_long_answers_cost_little():
    """An answer is whatever a model writes: a million asterisks must not stop the measurement."""
    assert written_key("*" * 500_000 + "a" + "*" * 500_000)
    with pytest.raises(InputError):
        written_key("a" * (1 << 21))


class Reader:
    """Decides all by the first letter, as a judge over a network or at hand."""

    name = "reader"

    def __init__(self):
        self.asked = []

    async def same_async(self, question, pairs):
        self.asked += pairs
        return [a[0] == b[0] for a, b in pairs]


def test_only_what_writing_leaves_open_is_asked():
    """Judges cost money: equal texts and different numbers are none of their business."""
    reader = Reader()
    rule = same_answer(reader)
    clustering = asyncio.run(cluster_answers("?", ["42", "57", "42.0", "a rose", "another"], rule))
    assert clustering.labels == (0, 1, 0, 2, 2)
    assert all("a rose" in pair or "another" in pair for pair in reader.asked)
    assert rule.name == "written alike → reader"


def test_rules_at_hand_come_second_as_well():
    """An entailment model in this process is no coroutine, and decides all the same."""
    then = MatcherEquivalence(NormalizedMatcher())
    clustering = asyncio.run(cluster_answers("?", ["Oslo", "Bergen"], same_answer(then)))
    assert clustering.labels == (0, 1)
    assert asyncio.run(cluster_answers("?", ["Oslo", "Bergen"], same_answer())).labels is None
