"""Probabilities: calibration error, Brier score, reliability, and probabilities from scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from cert.core.errors import ConfigurationError, InputError
from cert.trajectory.evaluation.crossfit import cross_fitted, isotonic, logistic, unit_folds
from cert.trajectory.evaluation.probabilities import (
    brier,
    calibration_error,
    chance_error,
    mass_bins,
    reliability,
)
from cert.trajectory.evaluation.ranks import Ranking

ROWS = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=4, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


def test_brier_is_that_of_scikit_learn():
    """Otherwise it could not be compared with anybody else's."""
    rng = np.random.default_rng(0)
    p, weight = rng.random(200), rng.integers(0, 4, 200).astype(float)
    right = rng.random(200) < p
    assert brier(p, right) == pytest.approx(brier_score_loss(right, p))
    assert brier(p, right, weight) == pytest.approx(brier_score_loss(right, p, sample_weight=weight))


@given(ROWS, st.integers(0, 2**32), st.integers(1, 12))
def test_calibration_error_does_not_depend_on_the_order_of_ties(rows, seed, bins):
    """Otherwise sorting a file would change how calibrated a model looks."""
    p, right = np.array([r[0] / 8 for r in rows]), np.array([r[1] for r in rows])
    order = np.random.default_rng(seed).permutation(len(p))
    assert calibration_error(p, right, bins) == pytest.approx(calibration_error(p[order], right[order], bins))


@given(ROWS, st.integers(1, 12))
def test_equal_probabilities_share_a_bin_and_bins_are_in_order(rows, bins):
    """Otherwise one probability would be compared with two accuracies."""
    p = np.array([r[0] / 8 for r in rows])
    place = mass_bins(p, bins)
    for value in np.unique(p):
        assert len(np.unique(place[p == value])) == 1
    assert np.all(np.diff(place[np.argsort(p, kind="stable")]) >= 0)
    assert place.max() < bins
    assert set(place.tolist()) == set(range(place.max() + 1))


def test_bins_of_different_probabilities_have_equal_mass():
    """Otherwise it would not be the error over bins of equal mass."""
    p = np.random.default_rng(0).permutation(np.linspace(0, 1, 600))
    assert np.bincount(mass_bins(p, 15)).tolist() == [40] * 15
    # Nine equal ones of ten have their middle in the upper half.
    assert mass_bins(np.array([0.0] + [1.0] * 9), 2).tolist() == [0] + [1] * 9


def test_calibration_error_of_known_cases():
    """Otherwise an overconfident model could look calibrated."""
    right = np.array([True, False] * 50)
    assert calibration_error(np.full(100, 0.5), right) == pytest.approx(0.0)
    assert calibration_error(np.full(100, 1.0), right) == pytest.approx(0.5)
    weight = np.tile([3.0, 1.0], 50)
    assert calibration_error(np.full(100, 0.5), right, weight=weight) == pytest.approx(0.25)


@pytest.mark.parametrize("per", [1, 5])
def test_a_calibrated_probability_stays_below_chance_in_19_of_20(per):
    """Otherwise a perfectly honest probability would be called miscalibrated, or anything would pass."""
    rng = np.random.default_rng(4)
    units = np.repeat(np.arange(400 // per), per)
    below = 0
    for seed in range(300):
        p = rng.beta(2, 1, 400 // per)[units]
        noise = rng.random(400 // per)[units] if per > 1 else rng.random(400)
        right = noise < p  # answers about one unit are right or wrong together
        below += calibration_error(p, right) <= chance_error(p, right, units, seed=seed)
    assert 0.91 <= below / 300 <= 0.99


def test_an_overconfident_probability_is_above_chance():
    """Otherwise the threshold of chance would hide what it is there for."""
    rng = np.random.default_rng(5)
    p = rng.uniform(0.7, 1.0, 500)
    right = rng.random(500) < p - 0.2
    assert calibration_error(p, right) > chance_error(p, right, np.arange(500))


def test_what_is_no_probability_is_refused():
    """Otherwise a log-probability would get a Brier score."""
    right = np.array([True, False])
    for p in ([-0.1, 0.5], [0.5, 1.1], [np.nan, 0.5]):
        with pytest.raises(InputError, match="probability"):
            brier(np.array(p), right)
        with pytest.raises(InputError, match="probability"):
            calibration_error(np.array(p), right)
        with pytest.raises(InputError, match="probability"):
            reliability(np.array(p), right, np.arange(2))
    assert np.isnan(brier(np.empty(0), np.empty(0, dtype=bool)))


def test_the_reliability_diagram_is_what_the_calibration_error_sums():
    """Otherwise plot and number would disagree."""
    rng = np.random.default_rng(6)
    p = rng.random(300)
    right = rng.random(300) < p**2
    bins = reliability(p, right, np.arange(300))
    gaps = [
        abs(one.right.value - one.probability) * one.right.n for one in bins if one.right.value is not None
    ]
    assert sum(gaps) / 300 == pytest.approx(calibration_error(p, right))
    assert all(one.low <= one.probability <= one.high for one in bins)


@given(ROWS)
def test_isotonic_is_that_of_scikit_learn(rows):
    """Otherwise probabilities would not be the best that never fall."""
    score, wrong = np.array([float(r[0]) for r in rows]), np.array([r[1] for r in rows])
    ranking = Ranking.of(score, wrong)
    counts = ranking.counts()
    found = isotonic(counts.bad[0], counts.good[0])
    assert found[ranking.place] == pytest.approx(IsotonicRegression().fit_transform(score, wrong))


def test_isotonic_draws_a_line_where_no_answer_is():
    """Otherwise a score that no fit has seen would have no probability."""
    bad, good = np.array([0.0, 0.0, 3.0]), np.array([4.0, 0.0, 1.0])
    assert isotonic(bad, good).tolist() == [0.0, 0.375, 0.75]


def test_logistic_is_that_of_scikit_learn_on_platts_targets():
    """Otherwise the curve would not be the likeliest one."""
    rng = np.random.default_rng(7)
    bad, good = rng.integers(0, 6, 30).astype(float), rng.integers(0, 9, 30).astype(float)
    bad[15:] += 4
    size = bad + good
    rank = (np.cumsum(size) - size / 2 + 0.5) / (size.sum() + 1)
    x = np.log(rank / (1 - rank))[:, None]
    high, low = (bad.sum() + 1) / (bad.sum() + 2), 1 / (good.sum() + 2)
    target = bad * high + good * low
    model = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000).fit(
        np.vstack([x, x]), np.repeat([1, 0], 30), np.concatenate([target, size - target])
    )
    assert logistic(bad, good) == pytest.approx(model.predict_proba(x)[:, 1], abs=1e-5)


@pytest.mark.parametrize(
    ("bad", "good"),
    [([0, 0, 50], [50, 0, 0]), ([5], [5]), ([50, 0], [0, 50]), ([1, 0, 0], [0, 0, 1e5]), ([0, 1], [1e5, 0])],
)
def test_logistic_is_finite_and_never_falls_whatever_the_data(bad, good):
    """Otherwise separated classes, one value, or a score that is upside down would end in NaN."""
    found = logistic(np.array(bad, dtype=float), np.array(good, dtype=float))
    assert np.isfinite(found).all()
    assert np.all(np.diff(found) >= 0)
    assert np.all((found > 0) & (found < 1))


def test_folds_share_no_unit_and_do_not_depend_on_order():
    """Otherwise a probability would be fitted on answers about the same person."""
    rng = np.random.default_rng(8)
    units = rng.integers(0, 40, 200)
    fold = unit_folds(units, 5, 3)
    for unit in np.unique(units):
        assert len(np.unique(fold[units == unit])) == 1
    order = rng.permutation(200)
    assert np.array_equal(unit_folds(units[order], 5, 3), fold[order])
    with pytest.raises(ConfigurationError, match="two folds"):
        unit_folds(units, 1, 0)


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_a_probability_does_not_know_the_labels_of_its_own_fold(method):
    """Otherwise calibration would be judged on the answers that it was made of."""
    rng = np.random.default_rng(9)
    score = rng.normal(size=300)
    wrong = rng.random(300) < 1 / (1 + np.exp(-score))
    fold = unit_folds(np.arange(300), 5, 0)
    before = cross_fitted(Ranking.of(score, wrong), fold, method)
    turned = np.where(fold == 2, ~wrong, wrong)
    after = cross_fitted(Ranking.of(score, turned), fold, method)
    assert np.array_equal(before[fold == 2], after[fold == 2])
    assert not np.array_equal(before[fold != 2], after[fold != 2])


def test_without_both_kinds_in_the_other_folds_there_is_no_probability():
    """Otherwise the only wrong answer would get a probability that nothing speaks for."""
    wrong = np.arange(20) == 7
    fold = unit_folds(np.arange(20), 5, 0)
    found = cross_fitted(Ranking.of(np.arange(20.0), wrong), fold, "logistic")
    assert np.isnan(found[fold == fold[7]]).all()
    assert np.isfinite(found[fold != fold[7]]).all()
