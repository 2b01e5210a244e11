"""Rules of sameness: what they decide, what they leave open, and what they ask."""

import asyncio

import pytest

from cert.answers import (
    AsyncCascade,
    AsyncJudgeEquivalence,
    Cascade,
    EntailmentEquivalence,
    EntailmentLabel,
    Equivalence,
    ExactMatcher,
    Judge,
    JudgeEquivalence,
    Judgement,
    JudgeRequest,
    MatcherEquivalence,
    NormalizedMatcher,
    NumericMatcher,
)
from cert.core.errors import ConfigurationError

E, N, C = EntailmentLabel


class TableEntailment:
    """An entailment model whose labels are given, and which remembers what it was asked."""

    name = "table"

    def __init__(self, table):
        self.table = table
        self.asked = []

    def classify(self, pairs):
        self.asked.append(list(pairs))
        return [self.table[pair] for pair in pairs]


class ScriptedJudge:
    """A judge, sync and async, that says what a function of the request says."""

    name = "scripted"

    def __init__(self, says):
        self.says = says
        self.asked: list[JudgeRequest] = []

    def judge(self, requests):
        self.asked.extend(requests)
        return [self.says(request) for request in requests]

    async def judge_async(self, requests):
        await asyncio.sleep(0)
        return self.judge(requests)


@pytest.mark.parametrize(
    ("forth", "back", "strict", "loose"),
    [
        (E, E, True, True),
        (E, N, False, True),
        (N, E, False, True),
        (N, N, False, False),
        (E, C, False, False),
        (C, C, False, False),
        (E, None, None, None),
        (None, N, False, None),
        (None, C, False, False),
        (None, None, None, None),
    ],
)
def test_both_directions_decide(forth, back, strict, loose):
    """A one-sided answer ("Paris" and "a city") would count as the same; a missing label as a decision."""
    table = TableEntailment({("a", "b"): forth, ("b", "a"): back})
    assert EntailmentEquivalence(table).same("", [("a", "b")]) == [strict]
    assert EntailmentEquivalence(table, strict=False).same("", [("a", "b")]) == [loose]
    assert len(table.asked[0]) == 2  # both directions in one call


def test_the_question_is_put_before_the_answers():
    """Short answers cannot be compared without what was asked."""
    table = TableEntailment({("Q? a", "Q? b"): E, ("Q? b", "Q? a"): E, ("a", "b"): N, ("b", "a"): N})
    assert EntailmentEquivalence(table).same("Q?", [("a", "b")]) == [True]
    assert EntailmentEquivalence(table, with_question=False).same("Q?", [("a", "b")]) == [False]


def test_results_that_do_not_fit_the_pairs_are_an_error():
    """Decisions would be given to the wrong pairs."""

    class Short(TableEntailment):
        def classify(self, pairs):
            return [E for _ in pairs][1:]

    with pytest.raises(ValueError, match="2 were asked"):
        EntailmentEquivalence(Short({})).same("", [("a", "b")])


def test_matchers_compare_what_extractors_find():
    """Two derivations of one result would differ."""
    rule = MatcherEquivalence(NumericMatcher(), ("boxed", "last_number"))
    long = r"Since 6 · 7 = 42, \boxed{42}"
    assert rule.same("", [(long, "So 42.0"), (long, "43"), (long, "no idea")]) == [True, False, None]
    with pytest.raises(ConfigurationError, match="boxd"):
        MatcherEquivalence(NumericMatcher(), ("boxd",))


def test_a_rule_may_say_yes_only():
    """The answers "Paris" and "It is Paris" differ as texts, which says nothing of what they mean."""
    rule = MatcherEquivalence(NormalizedMatcher(), decides_difference=False)
    assert rule.same("", [("Paris", "paris."), ("Paris", "It is Paris")]) == [True, None]


def test_a_cascade_asks_each_rule_only_what_is_open():
    """The expensive rule would be paid for what a cheap one knows, or overrule it."""
    judge = ScriptedJudge(lambda request: Judgement(verdict="Paris" in request.answers[0]))
    rules: tuple[Equivalence, ...] = (MatcherEquivalence(NumericMatcher()), JudgeEquivalence(judge))
    pairs = [("4", "4.0"), ("Paris", "it is Paris"), ("4", "5"), ("Rome", "Paris")]
    assert Cascade(rules).same("Q", pairs) == [True, True, False, False]
    assert [request.answers for request in judge.asked] == [pairs[1], pairs[3]]
    assert Cascade(rules[:1]).same("Q", pairs) == [True, None, False, None]
    assert Cascade(rules).same("Q", [pairs[0]]) == [True]
    assert len(judge.asked) == 2
    with pytest.raises(ConfigurationError):
        Cascade(())


def test_the_asynchronous_rules_decide_as_the_others():
    """A service would get other clusters than a script."""

    def says(request):
        return Judgement(verdict=request.answers[0] < request.answers[1])

    pairs = [("4", "4.0"), ("a", "b"), ("b", "a"), ("4", "5")]
    first = MatcherEquivalence(NumericMatcher())
    for both in (False, True):
        rule = AsyncCascade(first, AsyncJudgeEquivalence(ScriptedJudge(says), both))
        expected = Cascade((first, JudgeEquivalence(ScriptedJudge(says), both))).same("Q", pairs)
        assert asyncio.run(rule.same_async("Q", pairs)) == expected
        assert expected == ([True, None, None, False] if both else [True, True, False, False])
    unasked = ScriptedJudge(says)
    asyncio.run(AsyncCascade(first, AsyncJudgeEquivalence(unasked)).same_async("Q", pairs[:1]))
    assert unasked.asked == []


def test_a_judge_is_asked_the_question_and_both_answers():
    """A judge without the question, or with the wrong one, would judge something else."""
    judge: Judge = ScriptedJudge(lambda _: Judgement(verdict=True))
    assert JudgeEquivalence(judge, both_orders=True).same("Capital?", [("a", "b")]) == [True]
    assert judge.asked == [  # type: ignore[attr-defined]
        JudgeRequest("same_answer", "Capital?", ("a", "b")),
        JudgeRequest("same_answer", "Capital?", ("b", "a")),
    ]


def test_a_missing_judgement_is_undecided():
    """A judge's failure would count as a disagreement of the answers."""
    judge = ScriptedJudge(lambda _: Judgement(missing="unparsable"))
    assert JudgeEquivalence(judge).same("", [("a", "b")]) == [None]
    half = ScriptedJudge(
        lambda r: Judgement(missing="x") if r.answers == ("b", "a") else Judgement(verdict=True)
    )
    assert JudgeEquivalence(half, both_orders=True).same("", [("a", "b")]) == [None]


@pytest.mark.parametrize(
    "values",
    [
        {"score": 1.1},
        {"score": -0.1},
        {"score": float("nan")},
        {"missing": "failed", "score": 0.5},
        {"missing": "failed", "verdict": False},
    ],
)
def test_a_failed_judgement_never_carries_a_number(values):
    """A judge that failed would be scored 0.5."""
    with pytest.raises(ConfigurationError):
        Judgement(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "same_answer", "answers": ("a",)},
        {"kind": "correct", "answers": ("a", "b")},
        {"kind": "same_answer", "answers": "ab"},
        {"kind": "beauty", "answers": ("a",)},
        {"kind": "quality", "answers": ("a",), "criteria": (("clarity", 0.0),)},
        {"kind": "quality", "answers": ("a",), "criteria": (("clarity", float("nan")),)},
    ],
)
def test_requests_that_make_no_sense_are_refused(values):
    """A judge would be paid for nothing."""
    with pytest.raises(ConfigurationError):
        JudgeRequest(question="Q", **values)


def test_names_tell_what_changes_the_decisions():
    """A record could not say by which rule answers were the same."""
    table = TableEntailment({})
    names = {
        EntailmentEquivalence(table).name,
        EntailmentEquivalence(table, strict=False).name,
        EntailmentEquivalence(table, with_question=False).name,
        MatcherEquivalence(ExactMatcher()).name,
        MatcherEquivalence(ExactMatcher(), decides_difference=False).name,
        MatcherEquivalence(ExactMatcher(), ("boxed",)).name,
        MatcherEquivalence(NumericMatcher(absolute=0.1)).name,
        MatcherEquivalence(NumericMatcher(absolute=0.2)).name,
        JudgeEquivalence(ScriptedJudge(None)).name,
        JudgeEquivalence(ScriptedJudge(None), both_orders=True).name,
    }
    assert len(names) == 10
    both = Cascade((MatcherEquivalence(ExactMatcher()), EntailmentEquivalence(table)))
    assert both.name.split(" → ") == [rule.name for rule in both.rules]
