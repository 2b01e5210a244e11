"""Intervals over units: what is resampled, when an interval is refused, and whether it covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cert.core.errors import ConfigurationError
from cert.trajectory.evaluation.bootstrap import (
    Resampling,
    clustered,
    clustered_auroc,
    estimate,
    minority,
    paired_difference,
)
from cert.trajectory.evaluation.metrics import auroc, auroc_of
from cert.trajectory.evaluation.ranks import Ranking


def known(value):
    """What must have been measured."""
    assert value is not None
    return value


def sample(units, per, seed, shift=1.0):
    """Scores of answers about units that have something in common."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), per)
    shared = 0.7 * rng.normal(size=units)[unit]
    wrong = rng.random(units * per) < (0.05 + 0.3 * rng.random(units))[unit]
    return shared + rng.normal(size=units * per) + shift * wrong, wrong, unit


def test_answers_about_one_unit_come_and_go_together():
    """Otherwise several facts about one person would count as independent evidence."""
    units = np.array([7, 7, 3, 7, 3, 9])
    for weights in Resampling(units, 200, 1).weights():
        assert np.array_equal(weights[:, 0], weights[:, 1])
        assert np.array_equal(weights[:, 2], weights[:, 4])
        assert np.all(weights[:, [0, 2, 5]].sum(axis=1) == 3)


@pytest.mark.parametrize("units", [3, 40, 30_000])
def test_as_many_draws_are_made_as_were_asked_for(units):
    """Otherwise an interval would rest on fewer draws than the report says."""
    assert sum(len(one) for one in Resampling(np.arange(units), 203, 0).weights()) == 203


def test_too_few_draws_are_refused():
    """Otherwise the end of an interval would be one draw."""
    with pytest.raises(ConfigurationError, match="200"):
        Resampling(np.arange(3), 199)


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    """Otherwise a committed table cannot be reproduced."""
    score, wrong, unit = sample(40, 3, 0)
    first, again, other = (clustered_auroc(score, wrong, unit, seed) for seed in (7, 7, 8))
    assert first == again
    assert (first.value, first.low) != (other.value, other.low)


def test_an_interval_over_units_is_wider_than_one_over_answers():
    """Otherwise a hundred questions about ten people would look like a hundred people."""
    rng = np.random.default_rng(2)
    unit = np.repeat(np.arange(30), 12)
    wrong = (rng.random(30) < 0.5)[unit]
    score = rng.normal(size=30)[unit] + 0.1 * rng.normal(size=360) + wrong
    by_unit, by_answer = (clustered_auroc(score, wrong, of, 0) for of in (unit, np.arange(360)))
    assert known(by_unit.high) - known(by_unit.low) > 2 * (known(by_answer.high) - known(by_answer.low))


@pytest.mark.parametrize("shift", [0.8, 2.0])
def test_intervals_cover_the_truth_about_as_often_as_they_say(shift):
    """Otherwise "95 %" would be a wish; a plain percentile interval covers 82 to 90 % here."""
    truth = auroc(*sample(100_000, 3, 1, shift)[:2])
    covered = 0
    for seed in range(150):
        score, wrong, unit = sample(40, 3, 1000 + seed, shift)
        found = clustered_auroc(score, wrong, unit, seed, replicates=400)
        covered += found.low is not None and found.low <= truth <= known(found.high)
    assert covered / 150 >= 0.90


@pytest.mark.parametrize("units", [5, 8, 20, 200])
def test_an_interval_reaches_further_out_where_it_rests_on_few_units(units):
    """Otherwise twenty units would be as sure as the normal law of infinitely many."""
    drawn = np.linspace(0.0, 1.0, 100_001)
    found = estimate(0.5, drawn, 100, units)
    tail = stats.norm.cdf(-stats.t.ppf(0.975, units - 1) * math.sqrt(units / (units - 1)))
    assert found.low == pytest.approx(tail, abs=1e-4)
    assert found.high == pytest.approx(1 - tail, abs=1e-4)
    assert bool(found.note) == (units < 10)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(0, "not both"), (1, "rests on 1 units"), (4, "rests on 4 units"), (40, "not both")],
)
def test_without_enough_of_one_kind_there_is_no_interval(wrong, says):
    """Otherwise one lucky wrong answer would be a finding with an interval."""
    labels = np.arange(40) < wrong
    found = clustered_auroc(np.random.default_rng(0).normal(size=40), labels, np.arange(40), 0)
    assert (found.low, found.high) == (None, None)
    assert (found.value is None) == (wrong in (0, 40))
    assert says in found.note
    assert not found.above_zero


def test_a_perfect_score_has_no_interval_of_no_width():
    """Otherwise an AUROC of 1 on thirty answers would be sure to be 1."""
    wrong = np.arange(40) < 15
    found = clustered_auroc(wrong.astype(float), wrong, np.arange(40), 0)
    assert (found.value, found.low) == (1.0, None)
    assert "the same" in found.note


def test_infinite_scores_count_and_nan_is_left_out():
    """Otherwise the answers that a model was least sure of would vanish, or NaN would be a score."""
    score, wrong, unit = sample(60, 2, 3)
    score[wrong] = np.where(np.arange(wrong.sum()) % 2, np.inf, score[wrong])
    score[:6] = np.nan
    found = clustered_auroc(score, wrong, unit, 0)
    assert found.n == 114
    assert found.value == pytest.approx(auroc(np.clip(score[6:], -99, 99), wrong[6:]))


def test_a_difference_is_paired():
    """Otherwise two nearly equal scores would differ by the noise of both."""
    rng = np.random.default_rng(5)
    score, wrong, unit = sample(60, 3, 5)
    near = score + 0.05 * rng.normal(size=len(score))

    def of(column):
        ranking = Ranking.of(column, wrong)
        return lambda weights: auroc_of(ranking.counts(weights))

    rarer = minority(wrong, unit)
    difference = paired_difference(of(score), of(near), unit, 0, rarer=rarer)
    alone = clustered(of(score), unit, 0, rarer=rarer)
    assert difference.value == pytest.approx(auroc(score, wrong) - auroc(near, wrong))
    assert known(difference.high) - known(difference.low) < 0.2 * (known(alone.high) - known(alone.low))


def test_an_advantage_that_rests_on_few_units_is_not_above_zero():
    """Otherwise a combiner would be used because of six wrong answers."""
    drawn = np.linspace(0.1, 0.2, 1000)
    assert estimate(0.15, drawn, 100, 50).above_zero
    assert not estimate(0.15, drawn, 100, 6).above_zero
    assert not estimate(0.15, drawn - 0.11, 100, 50).above_zero


def test_no_answers_have_no_value():
    """Otherwise an empty group would be an error or a zero."""
    nothing = clustered_auroc(np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64), 0)
    assert (nothing.value, nothing.n) == (None, 0)
