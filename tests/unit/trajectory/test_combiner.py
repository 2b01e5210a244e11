"""The combiner: the same bits everywhere, honest about its advantage, strict about what it reads."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from cert.core.errors import ConfigurationError, InfeasibleError, InputError
from cert.signals import GenerationSignals
from cert.trajectory.calibration.combiner import FEATURES, Combiner, fit_combiner
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES
from cert.trajectory.evaluation.metrics import auroc

FIELDS = [field.name for field in dataclasses.fields(GenerationSignals)]
NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf])


def labelled(n=400, per=2, seed=0, useful=4, noise=1.5):
    """Answers of which several signals say each a part."""
    rng = np.random.default_rng(seed)
    unit = np.arange(n) // per
    hidden = rng.normal(size=(useful, n)) if useful else np.zeros((1, n))
    wrong = rng.random(n) < 1 / (1 + np.exp(1.0 - hidden.sum(axis=0)))
    columns = {name: rng.normal(size=n) for name in FIELDS}
    for place, score in enumerate([SCORES[name] for name in FEATURES][:useful]):
        columns[score.column] = score.sign * (hidden[place] + noise * rng.normal(size=n))
    columns["n_tokens"] = rng.integers(1, 40, n)
    return LabelledData(tuple(map(str, range(n))), ~wrong, columns, unit)


@pytest.fixture(scope="module")
def fit():
    return fit_combiner(labelled(), seed=1, replicates=300)


def example(**changes):
    return Combiner(("msp", "max_cusum"), (1.0, 2.0), (0.5, 3.0), (0.7, -0.2), -1.25, **changes)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS, NUMBERS)), min_size=1, max_size=9))
def test_one_generation_and_a_column_have_the_same_bits(fit, rows):
    """Otherwise a gate would decide live and offline about one answer differently."""
    columns = {name: np.array([row[name] for row in rows]) for name in FIELDS}
    of_columns = fit.combiner.column_of(columns)
    of_each = np.array([fit.combiner.of(GenerationSignals(**row)) for row in rows])
    assert of_columns.tobytes() == of_each.tobytes()


def test_it_is_the_formula_and_nothing_else():
    """Otherwise nobody could compute the score of a certificate by hand."""
    columns = {"sequence_logprob": np.array([-2.0, -900.0, np.nan, -np.inf]), "max_cusum": np.full(4, 5.0)}
    found = example().column_of(columns)
    assert found[0] == -1.25 + 0.7 * 2.0 - 0.2 * 1.0
    assert found[1] == found[3] == -1.25 + 0.7 * 5.0 - 0.2 * 1.0
    assert np.isnan(found[2])


def test_it_is_kept_as_plain_json_to_the_bit(fit):
    """Otherwise a certificate would hold another score than the one that was calibrated."""
    again = Combiner.of_dict(json.loads(json.dumps(fit.combiner.to_dict(), allow_nan=False)))
    assert again == fit.combiner


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("kind", "other"), ("schema_version", 2), ("schema_version", True), ("name", 3), ("name", "msp"),
        ("name", ""), ("features", "msp"), ("features", []), ("features", ["msp", "msp"]),
        ("features", ["msp", "no such"]), ("features", ["msp"]), ("features", [["msp"], "max_cusum"]),
        ("mean", [1.0]), ("mean", [1.0, float("nan")]), ("scale", [1.0, 0.0]), ("scale", [1.0, -1.0]),
        ("weights", [1.0, "2"]), ("weights", [1.0, True]), ("weights", {"a": 1}), ("weights", [1.0, 10**400]),
        ("intercept", None), ("intercept", float("inf")),
    ],
)  # fmt: skip
def test_what_is_no_combiner_is_refused(member, value):
    """Otherwise a damaged certificate would score answers with nonsense."""
    with pytest.raises(InputError):
        Combiner.of_dict(example().to_dict() | {member: value})


@pytest.mark.parametrize("data", [None, [], "x", {}, {"kind": "logistic_combiner"}])
def test_missing_and_unknown_members_are_refused(data):
    """Otherwise a typing error in a file would be a default."""
    with pytest.raises(InputError, match="members"):
        Combiner.of_dict(data)
    with pytest.raises(InputError, match="members"):
        Combiner.of_dict(example().to_dict() | {"more": 1})


def test_a_combination_that_is_worth_it_is_used(fit):
    """Otherwise several signals that each say a part would be thrown away."""
    assert fit.used
    assert fit.advantage.low is not None
    assert fit.advantage.low > 0
    assert fit.best_single in SCORES


@pytest.mark.parametrize("seed", range(4))
def test_a_combination_of_noise_is_not_used(seed):
    """Otherwise fitting seventeen weights to luck would be sold as an improvement."""
    fit = fit_combiner(labelled(useful=1, noise=0.3, seed=seed), replicates=300)
    assert not fit.used
    assert fit.best_single == FEATURES[0]


def test_scores_are_out_of_fold():
    """Otherwise the combiner would be judged on answers it was fitted to: noise would look like skill."""
    data = labelled(useful=0, n=300)
    fit = fit_combiner(data, strengths=(10.0,), replicates=300)
    wrong = ~data.correct
    assert abs(auroc(fit.out_of_fold, wrong) - 0.5) < 0.1
    assert auroc(fit.combiner.column_of(data.columns), wrong) > auroc(fit.out_of_fold, wrong) + 0.05


def test_the_fit_of_a_fold_does_not_see_its_units():
    """Otherwise answers about one person would be on both sides."""
    data = labelled(n=200)
    fold_of_first = data.units == data.units[0]
    turned = dataclasses.replace(data, correct=np.where(fold_of_first, ~data.correct, data.correct))
    one, other = (fit_combiner(each, replicates=200).out_of_fold for each in (data, turned))
    assert np.array_equal(one[fold_of_first], other[fold_of_first])


def test_the_weights_are_those_of_a_penalised_logistic_regression():
    """Otherwise it would be some other model than the documents say."""
    data = labelled()
    fit = fit_combiner(data, strengths=(0.1,), replicates=200)
    table = np.stack([SCORES[name].column_of(data.columns) for name in FEATURES], axis=1)
    x = np.clip((table - table.mean(axis=0)) / table.std(axis=0), -5, 5)
    model = LogisticRegression(C=0.1, solver="lbfgs", tol=1e-10, max_iter=5000).fit(x, ~data.correct)
    assert fit.combiner.weights == pytest.approx(model.coef_[0], abs=1e-5)
    assert fit.combiner.intercept == pytest.approx(model.intercept_[0], abs=1e-5)


def test_what_truncation_removes_plays_no_part():
    """Otherwise a server's answers would have no combined score."""
    assert "mean_self_certainty" not in FEATURES
    data = labelled(n=200)
    columns = dict(data.columns) | {"mean_self_certainty": np.full(200, np.nan)}
    fit = fit_combiner(dataclasses.replace(data, columns=columns), replicates=200)
    assert np.isfinite(fit.out_of_fold).all()


def test_not_measured_scores_are_left_out_and_counted():
    """Otherwise NaN would become a number, or one empty answer would cost a whole column."""
    data = labelled(n=400)
    columns = {name: column.astype(float) for name, column in data.columns.items()}
    columns["max_cusum"][:100] = np.nan  # a quarter: the column plays no part
    for name in FIELDS:
        columns[name][399] = np.nan  # one empty answer
    columns["max_surprisal"][7] = np.inf
    fit = fit_combiner(dataclasses.replace(data, columns=columns), replicates=200)
    assert fit.left_out == ("max_cusum",)
    assert fit.not_measured == 1
    assert np.isnan(fit.out_of_fold[399])
    assert np.isfinite(fit.out_of_fold[:399]).all()


def test_too_few_units_are_refused_with_how_many_are_missing():
    """Otherwise a model of seventeen weights would be fitted to six wrong answers."""
    data = labelled(n=60, per=2)
    wrong = np.zeros(60, dtype=bool)
    wrong[:12] = True
    with pytest.raises(InfeasibleError, match="15 units") as caught:
        fit_combiner(dataclasses.replace(data, correct=~wrong))
    assert caught.value.needed == 9
    nothing = dict.fromkeys(data.columns, np.full(60, np.nan))
    with pytest.raises(InfeasibleError, match="nothing to combine"):
        fit_combiner(dataclasses.replace(data, columns=nothing))


@pytest.mark.parametrize("strengths", [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),)])
def test_strengths_that_are_none_are_refused(strengths):
    """Otherwise a typing error would fit another model."""
    with pytest.raises(ConfigurationError, match="strengths"):
        fit_combiner(labelled(n=100), strengths=strengths)


def test_the_same_seed_gives_the_same_combiner(fit):
    """Otherwise a certificate could not be made again."""
    again = fit_combiner(labelled(), seed=1, replicates=300)
    assert (again.combiner, again.advantage) == (fit.combiner, fit.advantage)
