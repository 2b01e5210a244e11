"""Figures of the instrument: against values from the literature, by hand, and by simulation."""

import asyncio
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cert.coordination.evaluators import (
    QualityEvaluator,
    calibrated_share,
    exact,
    flip_rate,
    judge_figures,
    krippendorff_alpha,
    repeat_deviation,
)
from cert.coordination.scripted import ScriptedChat
from cert.coordination.types import Task
from cert.core.errors import InputError

NAN = float("nan")
# The example of Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): 4 observers, 12 units.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
RATINGS = arrays.arrays(
    np.float64,
    st.tuples(st.integers(2, 4), st.integers(1, 6)),
    elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, NAN]),
)


def test_alpha_has_the_published_values():
    """An agreement that cannot be compared with the literature says nothing."""
    assert krippendorff_alpha(OBSERVERS, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(OBSERVERS, "interval") == pytest.approx(0.849, abs=5e-4)


def by_pairs(ratings):
    """Return alpha by its definition: mean differences of pairs, one by one."""
    items = [[r for r in column if not np.isnan(r)] for column in ratings.T]
    items = [item for item in items if len(item) >= 2]
    everything = [r for item in items for r in item]
    if len(set(everything)) < 2:
        return None
    observed = sum(
        sum((a - b) ** 2 for a, b in itertools.permutations(item, 2)) / (len(item) - 1) for item in items
    ) / len(everything)
    n = len(everything)
    expected = sum((a - b) ** 2 for a, b in itertools.permutations(everything, 2)) / (n * (n - 1))
    return 1 - observed / expected


@given(RATINGS)
def test_alpha_is_what_its_definition_says(ratings):
    """A shortcut of the calculation must not change the number."""
    expected = by_pairs(ratings)
    assert krippendorff_alpha(ratings) == (None if expected is None else pytest.approx(expected))


def test_alpha_knows_agreement_from_chance():
    """Raters who all give the same score to everything agree perfectly and show nothing."""
    assert krippendorff_alpha(np.array([[0.1, 0.5, 0.9]] * 3)) == 1.0
    assert krippendorff_alpha(np.full((3, 5), 0.7)) is None
    assert krippendorff_alpha(np.array([[0.5, NAN], [NAN, 0.5]])) is None
    generator = np.random.default_rng(1)
    assert krippendorff_alpha(generator.random((2, 5_000))) == pytest.approx(0.0, abs=0.05)
    assert krippendorff_alpha(np.array([[0.0, 1.0], [1.0, 0.0]])) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("scores", "rate"),
    [
        ([[0.9, 0.8, 0.5]], 0.0),
        ([[0.9, 0.1]], 1.0),
        ([[0.9, 0.9, 0.1]], 2 / 3),
        ([[0.9, NAN, 0.1]], 1.0),
        ([[0.9, 0.1], [0.9, 0.9]], 0.5),
        ([[0.9, NAN], [NAN, NAN]], None),
        ([[0.9], [0.1]], None),
    ],
)
def test_flips_are_pairs_on_different_sides(scores, rate):
    """A missing repeat is no flip, and one repeat alone cannot contradict itself."""
    found = flip_rate(np.array(scores))
    assert found == (None if rate is None else pytest.approx(rate))


@pytest.mark.parametrize(
    ("scores", "deviation"),
    [
        ([[0.4, 0.6]], np.std([0.4, 0.6], ddof=1)),
        ([[0.4, 0.6, NAN], [1.0, NAN, NAN]], np.std([0.4, 0.6], ddof=1)),
        ([[0.0, 1.0], [0.5, 0.5]], 0.5),
        ([[0.5], [0.7]], None),
        ([[NAN, NAN]], None),
    ],
)
def test_the_deviation_of_repeats_is_pooled(scores, deviation):
    """Differences between answers are no noise of the judge."""
    found = repeat_deviation(np.array(scores))
    assert found == (None if deviation is None else pytest.approx(deviation))


def points(n):
    """Return the arguments of a judgement with one criterion."""
    return {"rationale": "", "scores": {"all": n}}


def evaluations(*judges, repeats):
    """Return the evaluations of two answers by judges that give these points."""
    chats = [
        ScriptedChat(*[points(n) if n is not None else "prose" for n in said], model=f"judge-{i}")
        for i, said in enumerate(judges)
    ]
    evaluator = QualityEvaluator(
        chats[0], panel=chats[1:], repeats=repeats, criteria=["all"], least_share=0.01
    )

    async def run():
        return [await evaluator.evaluate(Task("t"), answer) for answer in ("one", "two")]

    return asyncio.run(run())


def test_figures_of_evaluations():
    """Scores that are put to the wrong judge or repeat would make a noisy judge look like a divided panel."""
    made = evaluations([9, 1, 2, None], [9, 9, 2, 2], repeats=2)
    figures = judge_figures(made)
    assert figures.judgements == 8
    assert figures.missing_rate == 1 / 8
    assert figures.missing_by_reason == {"no_tool_call": 1}
    assert figures.flip_rate == pytest.approx(1 / 3)  # of three judge-and-answer pairs with two repeats
    assert figures.repeat_deviation == pytest.approx(np.sqrt(0.32 / 3))
    assert figures.panel_alpha == pytest.approx(krippendorff_alpha(np.array([[0.5, 0.2], [0.9, 0.2]])))
    alone = judge_figures(evaluations([9, 2], repeats=1))
    assert (alone.flip_rate, alone.repeat_deviation, alone.panel_alpha) == (None, None, None)


def test_figures_of_two_instruments_are_refused():
    """The noise of two judges in one number belongs to neither."""
    one, other = evaluations([9, 2], repeats=1), evaluations([9, 9, 2, 2], repeats=2)
    with pytest.raises(InputError):
        judge_figures([*one, *other])
    with pytest.raises(InputError):
        judge_figures([])
    with pytest.raises(InputError):  # a rule has no judges
        judge_figures([asyncio.run(exact().evaluate(Task("t", references=("a",)), "a"))])


def verdicts(share, n):
    """Return n verdicts, of which this share is true."""
    return [1] * round(share * n) + [0] * (n - round(share * n))


def test_a_share_is_corrected_for_the_errors_of_the_judge():
    """A lenient judge makes 20 percent look like 34, for which an arm would be bought."""
    labels = verdicts(1.0, 100) + verdicts(0.0, 100)
    said = verdicts(0.9, 100) + verdicts(0.2, 100)
    share = calibrated_share(verdicts(0.34, 1_000), said, labels)
    assert share.raw == 0.34
    assert share.corrected == pytest.approx(0.2)
    assert (share.specificity, share.sensitivity) == (0.8, 0.9)
    assert share.interval.low < 0.2 < share.interval.high
    assert (share.n, share.n_wrong, share.n_right) == (1_000, 100, 100)


def test_the_interval_has_the_value_worked_out_by_hand():
    """With p 0.5 of 100, q0 0.8 and q1 0.9 of 50 each: the formula of arXiv 2511.21140, step by step."""
    z = 1.959963984540054
    n, m = 100 + z * z, 52.0
    p, q0, q1 = (50 + z * z / 2) / n, 41 / 52, 46 / 52
    j = q0 + q1 - 1
    t = (p + q0 - 1) / j
    v0, v1 = q0 * (1 - q0) / m, q1 * (1 - q1) / m
    middle = t + 2 * z * z * (-(1 - t) * v0 + t * v1)
    half = z * np.sqrt(p * (1 - p) / n + (1 - t) ** 2 * v0 + t**2 * v1) / j
    labels = verdicts(1.0, 50) + verdicts(0.0, 50)
    share = calibrated_share(verdicts(0.5, 100), verdicts(0.9, 50) + verdicts(0.2, 50), labels)
    assert (share.interval.low, share.interval.high) == pytest.approx((middle - half, middle + half))


def test_a_judge_that_may_be_guessing_corrects_nothing():
    """Divided by nearly nothing, the estimate is anything: it is not measured."""
    labels = [1, 1, 1, 1, 0, 0, 0, 0]
    for said in ([1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0, 1]):
        share = calibrated_share(verdicts(0.5, 100), said, labels)
        assert share.corrected is None
        assert (share.interval.low, share.interval.high) == (0.0, 1.0)


def test_missing_verdicts_are_left_out():
    """A missing verdict that counts as "wrong" would be a number for a judge that failed."""
    labels = verdicts(1.0, 30) + verdicts(0.0, 30)
    said = verdicts(0.9, 30) + verdicts(0.1, 30)
    whole = calibrated_share([1, 0, 1, 0], said, labels)
    holes = calibrated_share([1, NAN, 0, 1, NAN, 0], [*said, NAN, NAN], [*labels, 1, 0])
    assert holes == whole


@pytest.mark.parametrize(
    ("judged", "said", "labels"),
    [
        ([], [1, 0], [1, 0]),
        ([NAN], [1, 0], [1, 0]),
        ([1], [1, 1], [1, 1]),
        ([1], [1], [1, 0]),
        ([0.5], [1, 0], [1, 0]),
        ([1], [1, 0], [1, 0.5]),
        ([1], [1, 0], [1, NAN]),
        ([[1, 2]], [1, 0], [1, 0]),
    ],
)
def test_what_cannot_be_corrected_is_refused(judged, said, labels):
    """Labels of one kind only say nothing about the other kind of error."""
    with pytest.raises(InputError):
        calibrated_share(judged, said, labels)


@pytest.mark.parametrize("theta", [0.1, 0.5, 0.9])
def test_intervals_cover_the_truth(theta):
    """An interval that misses the truth more often than it says makes worthless arms look proven."""
    generator = np.random.default_rng(7)
    specificity, sensitivity, runs = 0.75, 0.9, 1_000
    covered, raw, corrected = 0, [], []
    for _ in range(runs):
        judged = generator.random(200) < theta * sensitivity + (1 - theta) * (1 - specificity)
        labels = np.repeat([0, 1], 100)
        said = generator.random(200) < np.where(labels == 1, sensitivity, 1 - specificity)
        share = calibrated_share(judged, said, labels)
        covered += share.interval.low <= theta <= share.interval.high
        assert share.corrected is not None
        raw.append(share.raw)
        corrected.append(share.corrected)
    assert covered / runs >= 0.94
    assert abs(np.mean(corrected) - theta) < 0.01
    assert abs(np.mean(raw) - theta) > 0.04
