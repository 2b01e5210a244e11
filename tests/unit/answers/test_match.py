"""Matchers say yes, no, or that they cannot decide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.answers import (
    CallableMatcher,
    ChoiceMatcher,
    ExactMatcher,
    NormalizedMatcher,
    NumericMatcher,
    RegexMatcher,
    matches_any,
    squad_normalize,
)
from cert.core.errors import ConfigurationError, InputError


def test_exact_is_exact_but_for_invisible_differences():
    """Two encodings of one letter, or a final line break, would be different answers."""
    match = ExactMatcher()
    assert match("caf\u00e9\n", " cafe\u0301") is True
    assert match("Paris", "paris") is False


def test_the_normalisation_can_be_chosen():
    """Results that must compare with published ones need SQuAD's own, with its collisions."""
    assert NormalizedMatcher()("The Paris.", "paris") is True
    assert NormalizedMatcher()("1.5", "15") is False
    assert NormalizedMatcher(squad_normalize)("1.5", "15") is True


@pytest.mark.parametrize(
    ("answer", "gold", "result"),
    [
        ("42", "42.0", True),
        ("It is 1,234.", "1234", True),
        ("1/2", "0.5", True),
        ("50%", "0.5", True),
        ("5", "6", False),
        ("$5", "5", True),
        ("$5", "€5", False),
        ("5 km", "5", True),
        ("5 km", "5 KM", True),
        ("5 km", "5 m", None),
        ("50%", "50", None),
        ("50", "50%", None),
        ("49%", "50", False),
        ("50%", "50%", True),
        ("four", "4", None),
        ("4", "four", None),
        ("5 or 6", "5", None),
        ("1,5", "1.5", None),
        ("", "5", None),
    ],
)
def test_numbers(answer, gold, result):
    """A wrong decision is a wrong accuracy; an undecided one is reported."""
    assert NumericMatcher()(answer, gold) is result


def test_tolerances_and_percentages_as_asked():
    """A user's rounding rule would not hold."""
    assert NumericMatcher(absolute=0.01)("3.14", "3.1416") is True
    assert NumericMatcher(relative=0.001)("3.14", "3.1416") is True
    assert NumericMatcher()("3.14", "3.1416") is False
    assert NumericMatcher(percent_optional=True)("50", "50%") is True
    assert NumericMatcher(decimal=",")("1,5", "1,50") is True


@pytest.mark.parametrize("options", [{"absolute": -1.0}, {"relative": float("nan")}, {"decimal": ";"}])
def test_senseless_numeric_options_are_refused_at_once(options):
    """They would decide every answer wrongly, hours later."""
    with pytest.raises(ConfigurationError):
        NumericMatcher(**options)


def test_choices():
    """A word would be taken for a letter, or silence for a wrong answer."""
    match = ChoiceMatcher("ABCD")
    assert match("The answer is (b).", "B") is True
    assert match("C) Rome", "B") is False
    assert match("Rome", "B") is None
    with pytest.raises(ConfigurationError):
        ChoiceMatcher("abc")


def test_patterns():
    """A user's pattern is for the whole answer unless it is told to search."""
    assert RegexMatcher()(" 42 ", r"4\d") is True
    assert RegexMatcher()("it is 42", r"4\d") is False
    assert RegexMatcher(search=True)("it is 42", r"4\d") is True
    assert RegexMatcher(ignore_case=True)("PARIS", "paris") is True
    assert RegexMatcher()("a" * 1_000_000, "a{20}") is None
    with pytest.raises(ConfigurationError):
        RegexMatcher()("x", "(")


def test_the_users_own_rule():
    """A score where a decision is due would count every answer as right."""
    assert CallableMatcher(lambda a, b: None if not a else a in b)("x", "xy") is True
    assert CallableMatcher(lambda _, __: None)("x", "xy") is None
    assert CallableMatcher(lambda a, b: np.bool_(a == b))("x", "y") is False  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigurationError, match="float"):
        CallableMatcher(lambda *_: 0.7)("x", "y")  # type: ignore[arg-type]


def test_one_of_several_accepted_answers_is_enough():
    """An alias would be wrong, or an undecided alias count as a wrong answer."""
    numeric = NumericMatcher()
    assert matches_any(numeric, "5", ["four", "5"]) is True
    assert matches_any(numeric, "5", ["four", "6"]) is None
    assert matches_any(numeric, "5", ["7", "6"]) is False
    with pytest.raises(InputError, match="accepted"):
        matches_any(numeric, "5", [])
    with pytest.raises(InputError, match="accepted"):
        matches_any(numeric, "5", "55")


SYMMETRIC = [ExactMatcher(), NormalizedMatcher(), NumericMatcher(absolute=0.5), ChoiceMatcher()]
TEXTS = st.one_of(st.text(max_size=20), st.integers().map(str), st.sampled_from("ABCDE"))


@pytest.mark.parametrize("matcher", SYMMETRIC)
@given(a=TEXTS, b=TEXTS)
def test_matching_has_no_side(matcher, a, b):
    """The order of two answers would decide whether they agree; an answer would differ from itself."""
    assert matcher(a, b) is matcher(b, a)
    assert matcher(a, a) is not False


@pytest.mark.parametrize("matcher", [*SYMMETRIC, RegexMatcher(), CallableMatcher(lambda *_: True)])
def test_too_long_answers_are_refused(matcher):
    """Work without bound."""
    with pytest.raises(InputError):
        matcher("x" * (1 << 21), "x")
