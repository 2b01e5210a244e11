"""Measures of scores: against scikit-learn, LM-Polygraph's formula, and what a weight and a tie mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from cert.core.errors import ConfigurationError, InputError
from cert.trajectory.evaluation.curves import histogram, risk_at, risk_coverage, roc
from cert.trajectory.evaluation.metrics import (
    aurc,
    auroc,
    auroc_of,
    average_precision,
    excess_aurc,
    prr,
    prr_of,
)
from cert.trajectory.evaluation.ranks import Packed, Ranking
from cert.trajectory.evaluation.shares import rank_correlation

INFINITE = st.sampled_from([-np.inf, np.inf])
ROWS = st.lists(
    st.tuples(st.integers(-3, 3).map(float) | INFINITE, st.booleans()), min_size=4, max_size=40
).filter(lambda rows: len({label for _, label in rows}) == 2)
RANK_MEASURES = [auroc, average_precision, prr, aurc, excess_aurc]


def columns(rows):
    return np.array([score for score, _ in rows]), np.array([label for _, label in rows])


def finite(score):
    """Infinite scores as numbers of the same order, for libraries that refuse them."""
    return np.clip(score, -99.0, 99.0)


@given(ROWS)
def test_auroc_and_average_precision_are_those_of_scikit_learn(rows):
    """Otherwise tables could not be compared with anybody else's."""
    score, wrong = columns(rows)
    assert auroc(score, wrong) == pytest.approx(roc_auc_score(wrong, finite(score)))
    assert average_precision(score, wrong) == pytest.approx(average_precision_score(wrong, finite(score)))


def polygraph_area(uncertainty, quality, max_rejection):
    """The area under the prediction–rejection curve, by LM-Polygraph's published definition."""
    n = len(uncertainty)
    rejected = int(max_rejection * n)
    kept_first = quality[np.argsort(uncertainty)]
    of_best = np.cumsum(kept_first) / np.arange(1, n + 1)
    return of_best[n - rejected :].mean()


@pytest.mark.parametrize("max_rejection", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("n", [11, 64, 251])
def test_prr_is_that_of_lm_polygraph(n, max_rejection):
    """Otherwise a PRR here and one in a paper that used LM-Polygraph would be different numbers."""
    rng = np.random.default_rng(n)
    score = rng.normal(size=n)
    wrong = rng.random(n) < 1 / (1 + np.exp(-score))
    quality = (~wrong).astype(float)
    area, best = (polygraph_area(u, quality, max_rejection) for u in (score, -quality))
    expected = quality.mean()  # what its 1,000 shuffles estimate
    if int(max_rejection * n) < 2:
        assert np.isnan(prr(score, wrong, max_rejection=max_rejection))
        return
    assert prr(score, wrong, max_rejection=max_rejection) == pytest.approx(
        (area - expected) / (best - expected)
    )


def test_shuffles_of_lm_polygraph_come_to_the_accuracy():
    """Otherwise the baseline of the ratio would be another one than theirs."""
    rng = np.random.default_rng(0)
    quality = (rng.random(40) < 0.7).astype(float)
    areas = [polygraph_area(rng.permutation(40), quality, 0.5) for _ in range(4000)]
    assert np.mean(areas) == pytest.approx(quality.mean(), abs=0.005)


@given(ROWS, st.integers(0, 2**32))
def test_ties_do_not_depend_on_the_order_of_the_data(rows, seed):
    """Otherwise sorting a file would change a number that somebody decides on."""
    score, wrong = columns(rows)
    order = np.random.default_rng(seed).permutation(len(score))
    for measure in RANK_MEASURES:
        assert measure(score, wrong) == pytest.approx(measure(score[order], wrong[order]), nan_ok=True)


@given(ROWS)
def test_a_tied_risk_is_the_mean_over_all_orders(rows):
    """Otherwise a score of few values would be judged by luck."""
    score, wrong = columns(rows)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(300):
        order = np.lexsort([rng.random(len(score)), score])
        drawn.append(np.mean(np.cumsum(wrong[order]) / np.arange(1, len(score) + 1)))
    assert aurc(score, wrong) == pytest.approx(np.mean(drawn), abs=5 * np.std(drawn) / 300**0.5 + 1e-9)


@given(ROWS, st.integers(0, 2**32))
def test_a_weight_counts_an_answer_so_many_times(rows, seed):
    """Otherwise the bootstrap resamples something else than units."""
    score, wrong = columns(rows)
    weight = np.random.default_rng(seed).integers(0, 4, len(score))
    again = np.repeat(score, weight), np.repeat(wrong, weight)
    for measure in RANK_MEASURES:
        expected = measure(*again) if len(again[0]) else float("nan")
        assert measure(score, wrong, weight.astype(float)) == pytest.approx(expected, nan_ok=True, abs=1e-12)


@given(ROWS)
def test_a_perfect_order_is_perfect_and_a_turned_one_is_not(rows):
    """Otherwise 1 and 0 would not mean what readers take them for."""
    _, wrong = columns(rows)
    score = wrong.astype(float)
    assert auroc(score, wrong) == 1.0
    assert average_precision(score, wrong) == pytest.approx(1.0)
    assert excess_aurc(score, wrong) == pytest.approx(0.0, abs=1e-12)
    assert prr(score, wrong, max_rejection=1.0) == pytest.approx(1.0)
    assert auroc(-score, wrong) == 0.0
    assert prr(-score, wrong, max_rejection=1.0) < 0


def test_a_constant_score_is_worth_what_chance_is():
    """Otherwise a signal that says nothing would look like one that says something."""
    wrong = np.arange(100) < 30
    score = np.zeros(100)
    assert auroc(score, wrong) == 0.5
    assert average_precision(score, wrong) == pytest.approx(0.3)
    assert aurc(score, wrong) == pytest.approx(0.3)
    assert prr(score, wrong) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("wrong", [np.zeros(9, dtype=bool), np.ones(9, dtype=bool)])
def test_one_kind_of_answers_has_no_ratio(wrong):
    """Otherwise a file of right answers alone would say 0.5 or 1.0 of every signal."""
    score = np.arange(9.0)
    assert np.isnan(auroc(score, wrong))
    assert np.isnan(prr(score, wrong))
    assert np.isnan(average_precision(score, wrong)) == (not wrong.any())


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_to_reject_that_is_none_is_refused(share):
    """Otherwise a typing error would be a number in a table."""
    with pytest.raises(ConfigurationError, match="share"):
        prr(np.arange(9.0), np.arange(9) < 3, max_rejection=share)


def test_what_is_no_score_label_or_weight_is_refused():
    """Otherwise NaN would be sorted last, and 0.5 would count as a label."""
    with pytest.raises(InputError, match="NaN"):
        auroc(np.array([0.0, np.nan]), np.array([True, False]))
    with pytest.raises(InputError, match="booleans"):
        auroc(np.array([0.0, 1.0]), np.array([1, 0]))
    with pytest.raises(InputError, match="whole"):
        aurc(np.arange(3.0), np.arange(3) < 1, np.array([0.5, 1.0, 1.0]))


@given(ROWS, st.integers(2, 6))
def test_merged_blocks_keep_the_order_and_equal_scores_together(rows, most):
    """Otherwise replicates of large data would be of another score."""
    score, wrong = columns(rows)
    exact = Ranking.of(score, wrong)
    merged = exact.merged(most)
    assert merged.blocks <= max(most, 1)
    order = np.argsort(score, kind="stable")
    assert np.all(np.diff(merged.place[order]) >= 0)
    for value in np.unique(score):
        assert len(np.unique(merged.place[score == value])) == 1
    assert merged.counts().size.sum() == len(score)


def test_many_weightings_at_once_give_what_one_by_one_gives():
    """Otherwise intervals would be of other numbers than values."""
    rng = np.random.default_rng(3)
    score, wrong = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4
    weights = rng.integers(0, 3, (7, 60)).astype(float)
    counts = Ranking.of(score, wrong).counts(weights)
    for row, found, ratio in zip(weights, auroc_of(counts), prr_of(counts), strict=True):
        assert found == pytest.approx(auroc(score, wrong, row))
        assert ratio == pytest.approx(prr(score, wrong, row))


@given(st.integers(1, 23), st.integers(0, 30), st.integers(0, 12), st.integers(0, 2**32))
def test_packed_weightings_count_exactly_what_single_ones_count(rows, n, largest, seed):
    """Otherwise intervals of large data would be wrong by carries that nobody sees."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 10**largest + 1, (rows, n)).astype(float)
    ranking = Ranking.of(rng.integers(0, 5, n).astype(float), rng.random(n) < 0.5)
    one, many = ranking.counts(weights), ranking.counts(Packed.of(weights))
    assert np.array_equal(one.bad, many.bad)
    assert np.array_equal(one.good, many.good)


@given(ROWS)
def test_correlation_is_that_of_scipy_and_infinite_values_count(rows):
    """Otherwise the answers that a model was least sure of would be left out in silence."""
    score, wrong = columns(rows)
    length = np.arange(len(score)) % 5.0 + wrong
    if np.ptp(finite(score)) == 0 or np.ptp(length) == 0:
        assert rank_correlation(score, length) is None
        return
    assert rank_correlation(score, length) == pytest.approx(spearmanr(finite(score), length).statistic)


def test_curves_end_where_they_must():
    """Otherwise the plot of a score would not agree with the numbers beside it."""
    rng = np.random.default_rng(1)
    score = rng.normal(size=300)
    score[:4] = np.inf
    wrong = rng.random(300) < 0.3
    counts = Ranking.of(score, wrong).counts()
    coverage, risk = risk_coverage(counts)
    assert coverage[-1] == 1.0
    assert risk[-1] == pytest.approx(wrong.mean())
    best = np.argsort(score)[:150]
    assert risk_at(counts, np.array([0.5]))[0] == pytest.approx(wrong[best].mean())
    alarms, found = roc(counts)
    assert (alarms[0], found[0], alarms[-1], found[-1]) == (0, 0, 1, 1)
    area = np.diff(alarms) @ (np.array(found)[1:] + np.array(found)[:-1]) / 2
    assert area == pytest.approx(auroc(score, wrong), abs=0.01)
    bars = histogram(score, wrong)
    assert bars is not None
    assert sum(bars.right) == pytest.approx(1.0)
    assert sum(bars.wrong) == pytest.approx(1.0)
    assert histogram(np.full(3, np.inf), wrong[:3]) is None
