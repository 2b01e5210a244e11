from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cert.reference.scores import (
    auroc,
    calibration_error,
    clustered_auroc,
    clustered_share,
    rank_correlation,
)

RNG = np.random.default_rng(0)
LABELLED = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(rows=LABELLED)
def test_auroc_is_that_of_scikit_learn_ties_included(rows: list[tuple[int, bool]]) -> None:
    """Otherwise the model card compares signals by a number of its own making."""
    score = np.array([float(s) for s, _ in rows])
    wrong = np.array([w for _, w in rows])
    assert auroc(score, wrong) == pytest.approx(roc_auc_score(wrong, score))


@given(rows=LABELLED)
def test_a_weight_counts_an_answer_so_many_times(rows: list[tuple[int, bool]]) -> None:
    """Otherwise the bootstrap resamples something else than people."""
    score = np.array([float(s) for s, _ in rows])
    wrong = np.array([w for _, w in rows])
    weight = np.arange(len(rows)) % 3 + 1
    repeated = auroc(np.repeat(score, weight), np.repeat(wrong, weight))
    assert auroc(score, wrong, weight.astype(float)) == pytest.approx(repeated)


def test_an_interval_over_people_is_wider_than_one_over_answers() -> None:
    """Otherwise several facts about one person would count as independent evidence."""
    person = np.repeat(np.arange(40), 10)
    values = RNG.integers(0, 2, 40).astype(bool)[person]
    by_person = clustered_share(values, person)
    by_answer = clustered_share(values, np.arange(400))
    assert by_person.low is not None
    assert by_person.high is not None
    assert by_answer.low is not None
    assert by_answer.high is not None
    assert by_person.high - by_person.low > 2 * (by_answer.high - by_answer.low)


def test_an_interval_of_independent_answers_is_wilsons() -> None:
    """Otherwise the shares of the model card have an interval of its own making."""
    from scipy import stats

    hits = np.arange(50) < 12
    found = clustered_share(hits, np.arange(50))
    expected = stats.binomtest(12, 50).proportion_ci(method="wilson")
    assert found.low == pytest.approx(expected.low, abs=2e-3)
    assert found.high == pytest.approx(expected.high, abs=2e-3)


@pytest.mark.parametrize("truth", [0.01, 0.5, 0.99])
def test_intervals_of_shares_cover_the_truth(truth: float) -> None:
    """Otherwise "1.000 [1.000, 1.000]" would stand for a rate that is not 1."""
    rng = np.random.default_rng(5)
    person = np.repeat(np.arange(65), 2)
    covered = 0
    for _ in range(400):
        share = rng.beta(20 * truth, 20 * (1 - truth), 65)
        found = clustered_share(rng.random(130) < share[person], person)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / 400 >= 0.92


def test_the_same_seed_gives_the_same_interval() -> None:
    """Otherwise the committed model card cannot be reproduced."""
    score, people = RNG.normal(size=50), np.arange(50) // 2
    wrong = RNG.random(50) < 0.5
    assert clustered_auroc(score, wrong, people, 7) == clustered_auroc(score, wrong, people, 7)


def test_what_was_not_measured_is_left_out_and_not_guessed() -> None:
    """Otherwise a missing signal would count as one half."""
    score = np.array([0.1, np.nan, 0.9, 0.2])
    wrong = np.array([False, True, True, False])
    estimate = clustered_auroc(score, wrong, np.arange(4), 0)
    assert (estimate.value, estimate.n) == (1.0, 3)
    nothing = clustered_auroc(score[:1], wrong[:1], np.arange(1), 0)
    assert nothing.value is None
    assert clustered_share(np.empty(0, dtype=bool), np.empty(0, dtype=np.int64)).value is None


def test_calibration_error_of_known_cases() -> None:
    """Otherwise an overconfident model could look calibrated."""
    right = np.array([True, False] * 50)
    assert calibration_error(np.full(100, 0.5), right, bins=5) == pytest.approx(0.0)
    assert calibration_error(np.full(100, 1.0), right, bins=5) == pytest.approx(0.5)


def test_correlation_with_a_constant_is_not_measured() -> None:
    """Otherwise a warning or NaN would appear in the table where nothing can be said."""
    assert rank_correlation(np.ones(5), np.arange(5.0)) is None
    assert rank_correlation(np.arange(5.0), np.arange(5.0) ** 3) == pytest.approx(1.0)
