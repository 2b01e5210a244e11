"""The linear-time patterns mean what Python's mean, and no text makes them slow."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.answers.linear_regex import MAX_WORK, LinearRegex
from cert.core.errors import ConfigurationError

ATOMS = st.sampled_from(
    [
        *"abé0 .^$",
        r"\d",
        r"\w",
        r"\S",
        r"\W",
        "[ab]",
        "[^a]",
        "[a-c0]",
        r"[\d_]",
        r"[^\s]",
        r"\b",
        r"\A",
        r"\Z",
    ]
)


def grow(inner):
    repeat = st.sampled_from(["*", "+", "?", "*?", "+?", "{2}", "{1,2}", "{0,2}", "{2,}"])
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, repeat).map(lambda pair: f"({pair[0]}){pair[1]}"),
    )


PATTERNS = st.recursive(ATOMS, grow, max_leaves=6)


@settings(max_examples=400)
@given(PATTERNS, st.text("abé0_ \n", max_size=8))
def test_patterns_mean_what_they_mean_in_python(pattern, text):
    """A user's pattern would match other answers than it says."""
    expected = re.compile(pattern)
    linear = LinearRegex(pattern)
    assert linear.fullmatch(text) == (expected.fullmatch(text) is not None)
    assert linear.search(text) == (expected.search(text) is not None)


@given(st.sampled_from(["paris", "[a-f]+", "[^a]", "é", r"É\d"]), st.text("aAbBéÉparisPARIS1", max_size=6))
def test_case_can_be_ignored(pattern, text):
    """'PARIS' would not match 'paris' for a user who asked for it."""
    expected = re.fullmatch(pattern, text, re.IGNORECASE) is not None
    assert LinearRegex(pattern, ignore_case=True).fullmatch(text) == expected


def test_words_bounds_and_empty_patterns():
    """Edges of the text are where patterns go wrong."""
    assert LinearRegex("").fullmatch("")
    assert LinearRegex("").search("abc")
    assert not LinearRegex("").fullmatch("a")
    assert LinearRegex("a$").search("a\n")
    assert not LinearRegex("a$").search("a\n\n")
    assert LinearRegex(r"\bcat\b").search("a cat.")
    assert not LinearRegex(r"\bcat\b").search("concatenate")
    assert LinearRegex(r"a\Bb").fullmatch("ab")


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*)*x", "a*a*a*a*a*a*b", "(.*,){5}P", "(a?){20}a{20}"]
)
def test_patterns_that_hang_python_do_not_hang_here(pattern):
    """A model could stop a service with an answer that fits a careless pattern (a time-out ends this)."""
    LinearRegex(pattern).fullmatch("a" * 20_000 + "!")
    LinearRegex(pattern).search("a" * 20_000 + "!")


def test_too_much_work_is_undecided():
    """A long answer with a long pattern would take minutes."""
    pattern = LinearRegex("a{1000}")
    assert pattern.fullmatch("a" * (MAX_WORK // 1000)) is None
    assert pattern.fullmatch("a" * 1000) is True


INVALID = ["(", "*", "[z-a]", "a{3001}", "(a{50}){50}"]
IRREGULAR = [r"(a)\1", "(?=a)", "(?<!a)b", "(?i)a", "(?s:.)", "a*+", "(?>a)", "(a)?(?(1)b)"]


@pytest.mark.parametrize("pattern", INVALID + IRREGULAR)
def test_what_cannot_be_done_is_refused_when_compiled(pattern):
    """A pattern with another meaning than the user's would decide answers."""
    with pytest.raises(ConfigurationError, match="cannot be used"):
        LinearRegex(pattern)
