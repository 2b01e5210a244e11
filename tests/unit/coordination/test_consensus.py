"""Agreement: of what is said and not of what sounds alike, the same in every order, and open where it is."""

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.answers import (
    AsyncJudgeEquivalence,
    EntailmentEquivalence,
    EntailmentLabel,
    Judgement,
    MatcherEquivalence,
    NormalizedMatcher,
    cluster,
)
from cert.coordination import strategies
from cert.coordination.alike import WrittenAlike, same_answer
from cert.coordination.chat import Usage
from cert.coordination.consensus import (
    agreement_beyond_chance,
    cluster_responses,
    consensus,
    final_round,
    first_round,
)
from cert.coordination.scripted import ScriptedChat
from cert.coordination.strategies import Agent, Team
from cert.coordination.types import AgentResponse, Task
from cert.core.errors import InputError, UpstreamTimeoutError

TASK = Task("What holds?")
EXACT = MatcherEquivalence(NormalizedMatcher())
# Near in writing and in embeddings, and contraries, other numbers, other units, other dates.
APART = [
    ("enforceable", "not enforceable"),
    ("It is enforceable under section 5.", "It is not enforceable under section 5."),
    ("legal", "illegal"),
    ("They can.", "They can't."),
    ("Yes, in 1990", "No, in 1990"),
    ("42", "57"),
    ("5", "-5"),
    ("1,234", "1.234"),
    ("5 million", "5 billion"),
    ("5 km", "5 m"),
    ("5 MW", "5 mW"),
    ("5 m²", "5 m³"),
    ("5 °C", "5 °F"),
    ("$5", "€5"),
    ("50%", "50"),
    ("9 AM", "9 PM"),
    ("12/05/2020", "05/12/2020"),
    ("5 May 2020", "5 June 2020"),
    ("≥ 5", "≤ 5"),
    ("10²", "102"),
]


def said(*texts, number=0):
    return [
        AgentResponse(
            agent=f"agent-{n}",
            round=number,
            role="answer",
            text=text,
            absent=None if text is not None else "upstream_timeout",
            prompt_sha256="",
            template="",
            model="m",
            usage=Usage(),
        )
        for n, text in enumerate(texts, 1)
    ]


def of(*texts, rule=None):
    return asyncio.run(consensus(TASK, said(*texts), rule))


class Contradicts:
    """A model of entailment that knows these pairs: they contradict each other."""

    name = "nli"

    def classify(self, pairs):
        same, other = EntailmentLabel.ENTAILMENT, EntailmentLabel.CONTRADICTION
        return [same if premise == hypothesis else other for premise, hypothesis in pairs]


class Says:
    """A judge that says the same of all pairs; ``None`` is a judgement that failed."""

    name = "judge"

    def __init__(self, verdict):
        self.verdict = verdict

    async def judge_async(self, requests):
        missing = "unparsable" if self.verdict is None else None
        return [Judgement(verdict=self.verdict, missing=missing) for _ in requests]


@pytest.mark.parametrize(
    "rule",
    [
        None,
        same_answer(EntailmentEquivalence(Contradicts())),
        same_answer(AsyncJudgeEquivalence(Says(False))),
        same_answer(AsyncJudgeEquivalence(Says(None))),
    ],
    ids=["writing", "entailment", "judge", "judge that fails"],
)
@pytest.mark.parametrize(("one", "other"), APART)
def test_contraries_and_other_numbers_are_no_agreement(one, other, rule):
    """MiniLM has .95 for "enforceable" and "not enforceable": a consensus by cosine would be unanimous."""
    result = of(one, other, one, rule=rule)
    assert result.rate in {None, 2 / 3}
    assert result.rate_interval.low == 2 / 3
    assert result.pairwise in {None, 1 / 3}
    assert (result.missing == "undecided") == (result.rate is None)


def test_a_failed_judge_leaves_agreement_open():
    """Undecided counted as different reports discord that nobody saw, counted as the same, harmony."""
    result = of(
        "It is safe.", "Safe.", "It is not safe.", rule=same_answer(AsyncJudgeEquivalence(Says(None)))
    )
    assert (result.rate, result.pairwise, result.missing) == (None, None, "undecided")
    assert (result.rate_interval.low, result.rate_interval.high) == (pytest.approx(1 / 3), 1.0)
    assert (result.pairwise_interval.low, result.pairwise_interval.high) == (0.0, 1.0)


def test_rates_are_of_those_who_answered():
    """An absent agent neither agrees nor disagrees, and is counted."""
    result = of("Oslo", None, "oslo.", "Bergen", "Oslo", rule=EXACT)
    assert (result.answers, result.absent) == (4, 1)
    assert (result.rate, result.pairwise) == (0.75, 0.5)
    assert result.rate_interval.low == result.rate_interval.high == 0.75


@pytest.mark.parametrize("texts", [(), ("Oslo",), ("Oslo", None), (None, None)])
def test_one_answer_agrees_with_nobody(texts):
    """A consensus of 1.0 of one agent would be the best there is."""
    result = of(*texts)
    assert (result.rate, result.pairwise, result.rate_interval, result.missing) == (
        None,
        None,
        None,
        "too_few",
    )


@given(
    st.lists(st.sampled_from(["a", "b", "c", "7", "7.0", "8", "a b"]), min_size=2, max_size=6), st.randoms()
)
def test_consensus_has_bounds_and_no_order(texts, random):
    """Which agent is called the first must not change how far they agree."""
    result, shuffled = of(*texts), of(*random.sample(texts, len(texts)))
    assert (result.rate_interval, result.pairwise_interval) == (
        shuffled.rate_interval,
        shuffled.pairwise_interval,
    )
    n = len(texts)
    assert 1 / n <= result.rate_interval.low <= result.rate_interval.high <= 1.0
    assert 0.0 <= result.pairwise_interval.low <= result.pairwise_interval.high <= 1.0
    assert (result.pairwise_interval.low == 1.0) == (result.rate_interval.low == 1.0)


def transcript_of(strategy, *scripts, **options):
    agents = [Agent(f"agent-{n}", ScriptedChat(*script)) for n, script in enumerate(scripts, 1)]
    selector = Agent("selector", ScriptedChat("1"))
    team = Team(agents, selector=selector, **options)
    return asyncio.run(strategies.get(strategy)(TASK, team))


def test_the_final_round_is_the_agents_last():
    """The aggregator's one answer agrees with itself: it is not the team's consensus."""
    parallel = transcript_of("parallel", ["a", "sum"], ["b"])
    assert [one.text for one in final_round(parallel)] == ["a", "b"]
    assert [one.text for one in final_round(transcript_of("best_of_n", ["a"], ["b"]))] == ["a", "b"]
    debate = transcript_of("debate", ["a", "c", "c"], ["b", "b", "c"])
    assert [one.text for one in first_round(debate)] == ["a", "b"]
    assert [one.text for one in final_round(debate)] == ["c", "c"]
    assert [one.text for one in final_round(transcript_of("sequential", ["a"], ["b"]))] == ["b"]


def test_clusters_over_rounds():
    """Who adopts whose answer is seen only where the rounds share their clusters."""
    down = UpstreamTimeoutError("x")
    debate = transcript_of("debate", ["1", "1", "2"], ["2", down, "2.0"], ["1", "1", "1"])
    assert asyncio.run(cluster_responses(TASK, debate.responses)) == (0, 1, 0, 0, None, 0, 1, 1, 0)
    assert asyncio.run(cluster_responses(TASK, said("It is.", "It is not."))) is None


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, twelve units.
EXAMPLE = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


def clustered(answers, rule=EXACT):
    return answers, cluster("", answers, rule, "connected")


def test_alpha_is_krippendorffs():
    """A coefficient of the same name with another value is worse than none."""
    units = [[row[n] for row in EXAMPLE if row[n] != "."] for n in range(12)]
    result = agreement_beyond_chance([clustered(unit) for unit in units])
    assert result.alpha == pytest.approx(0.743, abs=5e-4)
    assert result.tasks == 11  # nobody can agree on the last but one alone
    assert result.pairwise is not None
    assert result.chance is not None
    assert result.alpha == pytest.approx(1 - (1 - result.pairwise) / (1 - result.chance))


def test_yes_and_no_agree_by_chance():
    """Two coins agree half the time: that must come out as nothing."""
    rng = np.random.default_rng(0)
    coins = [clustered([str(face) for face in rng.choice(["yes", "no"], 2)]) for _ in range(2000)]
    result = agreement_beyond_chance(coins)
    assert result.pairwise == pytest.approx(0.5, abs=0.05)
    assert result.chance == pytest.approx(0.5, abs=0.01)
    assert result.alpha == pytest.approx(0.0, abs=0.06)


def test_open_answers_hardly_agree_by_chance():
    """Answers that occur in one task each have next to nothing to be corrected for; it is said how much."""
    tasks = [clustered([f"a{n}", f"a{n}", f"b{n}"]) for n in range(50)]
    result = agreement_beyond_chance(tasks)
    assert result.pairwise == pytest.approx(1 / 3)
    assert result.chance == pytest.approx(0.006, abs=0.004)
    assert result.alpha == pytest.approx(1 / 3, abs=0.02)


def test_agreement_that_says_nothing_is_missing():
    """All agents say "yes" to everything: perfect agreement, or one answer only; nobody can tell."""
    assert agreement_beyond_chance([clustered(["yes", "yes"])] * 5).missing == "no_variation"
    assert agreement_beyond_chance([]).missing == "too_few"
    assert agreement_beyond_chance([clustered(["yes"])]).missing == "too_few"
    free = [clustered(["It is.", "It is not.", "42"], WrittenAlike()), clustered(["1", "1", "2"])]
    result = agreement_beyond_chance(free)
    assert (result.alpha, result.missing) == (None, "undecided")
    assert result.alpha_interval is not None
    assert result.alpha_interval.low < result.alpha_interval.high


@dataclass
class NotLetters:
    """Sets apart what is written alike: two agents' "see above" are two answers to it."""

    name: str = "by place"

    def same(self, question, pairs):
        return [False for _ in pairs]


def test_clusters_and_answers_belong_together():
    """Clusters of another round give an agreement that looks like one."""
    _, clusters = clustered(["a", "b"])
    with pytest.raises(InputError, match="clusters of 2 answers"):
        agreement_beyond_chance([(["a", "b", "c"], clusters)])
    apart = clustered(["Oslo", "oslo."], NotLetters())
    assert agreement_beyond_chance([apart, clustered(["1", "2"])]).pairwise == 0.0
