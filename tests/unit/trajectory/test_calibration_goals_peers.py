"""The same thresholds as MAPIE's and crepes', where their definition is the same."""

import numpy as np
import pytest
from crepes import ConformalClassifier, ConformalRegressor  # type: ignore[import-untyped]
from mapie.risk_control import BinaryClassificationController, precision  # type: ignore[import-untyped]
from mapie.risk_control.methods import get_r_hat_plus  # type: ignore[import-untyped]
from mapie.utils import _compute_classification_quantile  # type: ignore[import-untyped]

from cert.trajectory.calibration.goals import find_threshold
from cert.trajectory.calibration.goals.binomial import fixed_sequence, p_values, wrong_and_passed

RATES = [0.05, 0.1, 0.21, 0.34]


def answers(seed, n=211, error=0.15, apart=1.5):
    random = np.random.default_rng(seed)
    correct = random.random(n) >= error
    return random.normal(np.where(correct, 0.0, apart)), correct


@pytest.mark.parametrize("alpha", RATES)
@pytest.mark.parametrize("seed", range(3))
def test_false_flags_are_the_quantile_of_crepes_and_of_mapie(seed, alpha):
    """An interval of crepes, and a set of MAPIE, of confidence 1 − α end at our threshold."""
    scores, correct = answers(seed)
    value = find_threshold("false-flags", scores, correct, np.arange(211), alpha=alpha).value
    right = np.sort(scores[correct])
    _, upper = ConformalRegressor().fit(right + 10.0).predict_int(np.zeros(1), confidence=1 - alpha)[0]
    assert upper - 10.0 == pytest.approx(value, abs=1e-12)
    assert _compute_classification_quantile(right[:, None], np.array([alpha]))[0] == value


@pytest.mark.parametrize("alpha", RATES)
@pytest.mark.parametrize("goal", ["false-flags", "misses"])
def test_a_decision_is_a_conformal_p_value_of_crepes_with_ties(goal, alpha):
    """Flagged as "not like the right ones", or passed as "not like the wrong ones": p ≤ α in crepes."""
    random = np.random.default_rng(7)
    scores, correct = random.integers(0, 12, size=187).astype(float), random.random(187) < 0.6
    new = np.arange(-1.0, 13.0)
    value = find_threshold(goal, scores, correct, np.arange(187), alpha=alpha).value
    sign, kind = (1, correct) if goal == "false-flags" else (-1, ~correct)
    peer = ConformalClassifier().fit(sign * scores[kind])
    p = peer.predict_p(sign * new[:, None], smoothing=False)[:, 0]
    unlike = new > value if goal == "false-flags" else new <= value
    assert unlike.tolist() == (p <= alpha + 1e-12).tolist()


@pytest.mark.parametrize("alpha", RATES)
def test_undetected_errors_pass_where_mapies_risk_control_allows_it(alpha):
    """Conformal risk control of MAPIE, with the same loss, allows the same thresholds."""
    scores, correct = answers(3, error=0.5)
    value = find_threshold("undetected-errors", scores, correct, np.arange(211), alpha=alpha).value
    grid = np.sort(scores)
    losses = ((scores[:, None] <= grid) & ~correct[:, None]).astype(float)
    _, bound = get_r_hat_plus(losses, grid, "crc", None, None, None)
    assert (grid <= value).tolist() == (bound <= alpha + 1e-12).tolist()


@pytest.mark.filterwarnings("ignore:Fixed sequence testing requires")  # the order here is fixed beforehand
@pytest.mark.parametrize("seed", range(4))
def test_selective_risk_is_tested_as_by_mapie(seed):
    """Learn then test of MAPIE, for precision and in a fixed sequence, rejects the same thresholds."""
    scores, correct = answers(seed, n=600, error=0.2, apart=2.0)
    grid = np.quantile(scores, np.linspace(0.2, 1.0, 25), method="lower")

    def probabilities(values):
        passing = 1 / (1 + np.exp(np.asarray(values).ravel()))
        return np.column_stack([1 - passing, passing])

    peer = BinaryClassificationController(
        probabilities, precision, target_level=0.9, confidence_level=0.9,
        list_predict_params=probabilities(grid)[:, 1], fwer_method="fixed_sequence",
    ).calibrate(scores[:, None], correct.astype(int))  # fmt: skip
    wrong, passed = wrong_and_passed(scores, correct, grid)
    ours = p_values(wrong, passed, 0.1)
    # MAPIE rounds the number of errors up from a share in floats, to one more of them at times.
    theirs, one_more = np.ravel(peer.p_values), p_values(wrong + 1, passed, 0.1)
    assert (theirs >= ours * (1 - 1e-6)).all()
    assert (theirs <= one_more * (1 + 1e-6)).all()
    assert np.isclose(theirs, ours, rtol=1e-6).mean() >= 0.4
    valid = np.isin(probabilities(grid)[:, 1], peer.valid_predict_params)
    assert valid.tolist() == (np.arange(25) < fixed_sequence(theirs, 0.1)).tolist()
    assert 0 < fixed_sequence(one_more, 0.1) <= valid.sum() <= fixed_sequence(ours, 0.1)
