"""Evaluators without a model: what they decide, and what they leave open."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.answers import CallableMatcher, NormalizedMatcher, squad_normalize
from cert.coordination.evaluators import (
    CallableEvaluator,
    MatchEvaluator,
    choice,
    exact,
    normalized,
    numeric,
    regex,
)
from cert.coordination.types import Task
from cert.core.errors import BudgetExceededError, ConfigurationError


def outcome(evaluator, answer, *references):
    """Return the score, or why there is none."""
    evaluation = asyncio.run(evaluator.evaluate(Task("A question", references=references), answer))
    assert evaluation.cost_micro_dollars == 0
    assert evaluation.evaluator == evaluator.identity
    return evaluation.missing if evaluation.score is None else evaluation.score


@pytest.mark.parametrize(
    ("evaluator", "answer", "references", "expected"),
    [
        (exact(), " Paris\n", ("Lyon", "Paris"), 1.0),
        (exact(), "paris", ("Paris",), 0.0),
        (exact("stated"), "The answer is Paris.", ("Paris",), 1.0),
        (exact("boxed"), "Paris", ("Paris",), "no_answer_found"),
        (exact(), "Paris", (), "no_reference"),
        (exact(), "x" * (1 << 20) + "x", ("x",), "input"),
        (normalized(), "The  PARIS!", ("paris",), 1.0),
        (numeric(), r"So \boxed{42.0}", ("42",), 1.0),
        (numeric(), "It is 42, I think", ("42",), 1.0),
        (numeric(), "It is 57", ("42", "41"), 0.0),
        (numeric(), "forty-two", ("42",), "no_answer_found"),
        (numeric("whole"), "forty-two", ("42",), "undecided"),
        (numeric("whole"), "It is 42 or 43", ("42",), "undecided"),
        (numeric(relative=0.01), "99.5", ("100",), 1.0),
        (choice(), "The answer is (B).", ("B",), 1.0),
        (choice(), "B", ("C",), 0.0),
        (choice(), "I don't know", ("C",), "undecided"),
        (regex(), "in Paris, France", ("Pari[sz]",), 1.0),
        (regex(search=False), "in Paris", ("Paris",), 0.0),
        (regex("^paris", ignore_case=True), "Paris", (), 1.0),
        (regex("(a+)+$"), "a" * 50_000 + "b", (), 0.0),
    ],
)
def test_rules_decide_or_say_why_not(evaluator, answer, references, expected):
    """A rule that cannot tell and says "wrong" makes the arm that words its answers freely the worse one."""
    assert outcome(evaluator, answer, *references) == expected


def test_a_matching_reference_decides_though_another_is_undecided():
    """An alias that cannot be read must not take away a right answer."""
    assert outcome(numeric("whole"), "42", "forty-two", "42") == 1.0
    assert outcome(numeric("whole"), "43", "forty-two", "42") == "undecided"


def test_mistakes_of_the_user_are_refused_at_once():
    """A pattern or name that cannot work must show before the agents are paid."""
    for wrong in (
        lambda: regex("("),
        lambda: exact("boxd"),
        lambda: MatchEvaluator(CallableMatcher(lambda a, b: a == b)),
        lambda: MatchEvaluator(NormalizedMatcher(), references="Paris"),
        lambda: CallableEvaluator(lambda task, answer: True),
    ):
        with pytest.raises(ConfigurationError):
            wrong()


def test_identities_are_the_same_in_every_process():
    """An address in a name would make each run of a suite another instrument."""
    program = (
        "from cert.answers import *\nfrom cert.coordination.evaluators import *\n"
        "print(MatchEvaluator(NormalizedMatcher(squad_normalize), 'stated').identity)\n"
        "print(numeric(relative=0.1).identity, regex('a').identity)"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    here = MatchEvaluator(NormalizedMatcher(squad_normalize), "stated").identity
    assert made == f"{here}\n{numeric(relative=0.1).identity} {regex('a').identity}\n"
    assert "0x" not in made
    assert (
        len({numeric().identity, numeric(relative=0.1).identity, exact().identity, regex("a").identity}) == 4
    )


def grade(value):
    """Return what becomes of a value that a function of the user returns."""
    return outcome(CallableEvaluator(lambda task, answer: value, name="graded"), "an answer")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1.0),
        (False, 0.0),
        (1, 1.0),
        (0.25, 0.25),
        (np.float32(0.5), 0.5),
        (np.bool_(True), 1.0),
        (np.array(0.5), 0.5),
        (None, "undecided"),
        (float("nan"), "not_a_number"),
        (np.float64("nan"), "not_a_number"),
        (1.0001, "out_of_range"),
        (-1, "out_of_range"),
        (float("inf"), "out_of_range"),
        (10**400, "out_of_range"),
        ("1.0", "returned str, which is no score"),
        ([1], "returned list, which is no score"),
        (np.array([1.0]), "returned ndarray, which is no score"),
        (1j, "returned complex, which is no score"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_function_returns_a_score_or_none(value, expected):
    """What is no score must not become one by being converted."""
    assert grade(value) == expected


def test_a_function_may_be_async_and_sees_the_task():
    """A checker that asks a service waits for it."""

    async def checked(task, answer):
        await asyncio.sleep(0)
        return answer in task.references

    assert outcome(CallableEvaluator(checked), "Paris", "Paris") == 1.0
    assert "checked" in CallableEvaluator(checked).identity


def test_what_a_function_raises_makes_its_evaluation_missing():
    """A checker that fails on one answer must not end the suite, nor call the answer wrong."""

    def broken(task, answer):
        raise ValueError("cannot parse " + answer * 1_000)

    missing = outcome(CallableEvaluator(broken), "this")
    assert missing.startswith("raised ValueError: cannot parse this")
    assert len(missing) <= 200


def test_an_empty_purse_in_a_function_goes_through():
    """A function that asks a model spends the same money."""

    def asks(task, answer):
        raise BudgetExceededError("no money")

    with pytest.raises(BudgetExceededError):
        outcome(CallableEvaluator(asks), "this")


@given(st.text(), st.lists(st.text(), min_size=1, max_size=3))
def test_no_answer_breaks_a_rule(answer, references):
    """Answers are untrusted: a text that raises ends a suite."""
    for evaluator in (exact(), normalized(), numeric(), choice(), exact("stated", "whole")):
        assert outcome(evaluator, answer, *references) in {0.0, 1.0, "undecided", "no_answer_found"}
