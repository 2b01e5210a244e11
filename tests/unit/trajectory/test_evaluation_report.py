"""The evaluation of scores: what it counts, refuses and says, and its page."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib import resources

import jsonschema
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cert.core.errors import ConfigurationError, InfeasibleError, InputError
from cert.signals import GenerationSignals
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES
from cert.trajectory.evaluation import evaluate_scores, tally
from cert.trajectory.evaluation.bootstrap import clustered_auroc
from cert.trajectory.evaluation.cautions import cautions
from cert.trajectory.evaluation.metrics import prr
from cert.trajectory.evaluation.report import render_evaluation
from cert.trajectory.evaluation.words import best_of, figure, headline, ranged, signed

FIELDS = [field.name for field in dataclasses.fields(GenerationSignals)]


def labelled(n=200, per=2, seed=0, **changes):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    wrong = rng.random(n) < 1 / (1 + np.exp(1.0 - 1.5 * hidden))
    columns = {name: rng.normal(size=n) for name in FIELDS}
    for name in ("mean_surprisal", "max_surprisal"):
        columns[name] = hidden + rng.normal(size=n)
    columns["sequence_logprob"] = -np.exp(hidden + 0.5 * rng.normal(size=n) - 1)
    columns["n_tokens"] = rng.integers(1, 40, n)
    given = {
        "ids": tuple(map(str, range(n))), "correct": ~wrong, "columns": columns, "units": np.arange(n) // per,
    }  # fmt: skip
    return LabelledData(**(given | changes))


def changed(data, **columns):
    return dataclasses.replace(data, columns=dict(data.columns) | columns)


def known(value):
    """What must have been measured."""
    assert value is not None
    return value


@pytest.fixture(scope="module")
def data():
    groups = np.array(["en", "de <b>"])[np.arange(200) // 2 % 2]
    found = labelled(groups=groups, dropped={"no label": 3}, unchecked=("Nobody looked.",), sha256="ab" * 32)
    perplexity = np.array(found.columns["max_token_perplexity"])
    perplexity[:5] = np.inf
    length = found.columns["n_tokens"].astype(float)
    return changed(
        found, mean_self_certainty=np.full(200, np.nan), max_token_perplexity=perplexity, max_cusum=length
    )


@pytest.fixture(scope="module")
def report(data):
    return evaluate_scores(data, combiner=True, replicates=200, seed=3)


def test_figures_are_those_of_the_data(data, report):
    """Otherwise the table would be of something else than the file."""
    wrong = ~data.correct
    assert (report.n, report.n_units, report.n_wrong) == (200, 100, int(wrong.sum()))
    assert [one.name for one in report.scores] == [*SCORES, "combiner"]
    for one in report.scores:
        if one.name in ("combiner", "mean_self_certainty"):
            continue
        score = np.clip(SCORES[one.name].column_of(data.columns), -1e9, 1e9)
        assert one.auroc.value == pytest.approx(roc_auc_score(wrong, score))
        assert one.prr.value == pytest.approx(prr(score, wrong, max_rejection=report.max_rejection))
        assert one.auroc.low < one.auroc.value < one.auroc.high


def test_intervals_are_those_of_the_clustered_bootstrap(data, report):
    """Otherwise the report would have intervals that no test has looked at."""
    score = SCORES["mean_surprisal"].column_of(data.columns)
    alone = clustered_auroc(score, ~data.correct, data.units, 3, replicates=200)
    found = {one.name: one for one in report.scores}["mean_surprisal"].auroc
    assert found == alone


def test_infinite_scores_count_and_nan_is_counted(report):
    """Otherwise the answers that a model was least sure of would vanish in silence."""
    found = {one.name: one for one in report.scores}
    assert (found["max_token_perplexity"].n, found["max_token_perplexity"].infinite) == (200, 5)
    nothing = found["mean_self_certainty"]
    assert (nothing.n, nothing.not_measured) == (0, 200)
    assert (nothing.auroc.value, nothing.probability, nothing.curves) == (None, None, None)


def test_the_same_data_and_seed_give_the_same_report(data, report):
    """Otherwise a committed table cannot be regenerated."""
    again = evaluate_scores(data, combiner=True, replicates=200, seed=3)
    assert json.dumps(again.to_dict()) == json.dumps(report.to_dict())
    assert render_evaluation(again) == render_evaluation(report)


def test_the_order_of_answers_changes_no_value(data, report):
    """Otherwise sorting a file would change a number that somebody decides on."""
    order = np.random.default_rng(0).permutation(200)
    again = evaluate_scores(data.take(order), replicates=200)
    for one, other in zip(again.scores, report.scores, strict=False):
        for name in ("auroc", "auprc", "prr", "aurc", "excess_aurc"):
            assert getattr(one, name).value == pytest.approx(getattr(other, name).value)


def test_the_json_is_as_its_schema_says(report):
    """Programs of others read it; a field that comes or goes unseen breaks them."""
    schema = json.loads(
        resources.files("cert.trajectory").joinpath("schemas/evaluation-report.v1.json").read_text("utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    jsonschema.validate(data, schema)
    assert set(data) == set(schema["properties"])
    assert set(data["scores"][0]) == set(schema["$defs"]["ScoreEvaluation"]["properties"])


def test_length_stands_beside_every_auroc(data, report):
    """Otherwise a score that only measures length would look like one of uncertainty."""
    long = changed(data, max_surprisal=data.columns["n_tokens"].astype(float))
    found = evaluate_scores(long, ["max_surprisal", "max_cusum", "msp"], replicates=200)
    assert found.scores[0].length_correlation == pytest.approx(1.0)
    assert any("max_surprisal" in told and "length" in told for told in cautions(found))
    assert found.scores[0].auroc_within_length is not None
    without = dataclasses.replace(data, columns={"sequence_logprob": data.columns["sequence_logprob"]})
    alone = evaluate_scores(without, ["msp"], replicates=200).scores[0]
    assert (alone.length_correlation, alone.auroc_within_length) == (None, None)


def test_auroc_within_lengths_does_not_see_length():
    """Otherwise a pure measure of length would still be good there."""
    rng = np.random.default_rng(1)
    length = rng.integers(1, 5, 2000).astype(float)
    wrong = rng.random(2000) < length / 6
    data = LabelledData(
        tuple(map(str, range(2000))), ~wrong, {"max_cusum": length, "n_tokens": length}, np.arange(2000)
    )
    found = evaluate_scores(data, ["max_cusum"], replicates=200).scores[0]
    assert known(found.auroc.value) > 0.6
    assert found.auroc_within_length == pytest.approx(0.5, abs=1e-9)


def test_differences_are_against_the_baseline_and_paired(data, report):
    """Otherwise nobody would see that a clever signal adds nothing to the plain one."""
    found = {one.name: one for one in report.scores}
    assert report.baseline == "msp"
    assert found["msp"].difference is None
    better = found["mean_surprisal"].difference
    assert better.value == pytest.approx(found["mean_surprisal"].auroc.value - found["msp"].auroc.value)
    assert better.low < better.value < better.high
    missing = np.array(data.columns["max_cusum"])
    missing[0] = np.nan
    partly = evaluate_scores(changed(data, max_cusum=missing), ["msp", "max_cusum"], replicates=200)
    assert known(partly.scores[1].difference).value is None
    assert "same answers" in known(partly.scores[1].difference).note
    assert evaluate_scores(data, ["max_cusum"], replicates=200).scores[0].difference is None


def test_probabilities_are_stated_or_cross_fitted(data, report):
    """Otherwise a log-probability would be judged as if it were a probability."""
    found = {one.name: one for one in report.scores}
    assert report.stated.source == "stated"
    p = np.exp(data.columns["sequence_logprob"])
    assert report.stated.brier.value == pytest.approx(np.mean((p - data.correct) ** 2))
    assert found["msp"].probability.source == "logistic"
    assert found["msp"].probability.brier.low is not None
    assert sum(one.right.n for one in found["msp"].probability.bins) == 200
    isotonic = evaluate_scores(data, ["msp"], replicates=200, probabilities="isotonic")
    assert known(isotonic.scores[0].probability).source == "isotonic"
    no_column = dataclasses.replace(data, columns={"max_cusum": data.columns["max_cusum"]})
    assert evaluate_scores(no_column, ["max_cusum"], replicates=200).stated is None


def test_groups_have_figures_of_their_own(data, report):
    """Otherwise a score that is of no use in one language would hide behind the other."""
    assert [group.name for group in report.groups] == ["de <b>", "en"]
    mask = np.asarray(data.groups) == "en"
    alone = evaluate_scores(data.take(mask), ["msp"], replicates=200)
    en = report.groups[1]
    assert (en.n, en.n_wrong) == (100, int((~data.correct[mask]).sum()))
    assert en.auroc["msp"].value == pytest.approx(alone.scores[0].auroc.value)
    many = dataclasses.replace(data, groups=np.arange(200))
    with pytest.raises(InputError, match="groups"):
        evaluate_scores(many, ["msp"], replicates=200)


def test_a_group_of_one_kind_is_not_measured(data):
    """Otherwise one quiet group would stop the evaluation, or look perfect."""
    correct = np.array(data.correct)
    correct[np.asarray(data.groups) == "en"] = True
    found = evaluate_scores(dataclasses.replace(data, correct=correct), ["msp"], replicates=200)
    assert found.groups[1].auroc["msp"].value is None
    assert found.groups[1].auroc["msp"].note


@pytest.mark.parametrize("correct", [True, False])
def test_one_kind_of_answers_is_refused(data, correct):
    """Otherwise a file of right answers alone would say something of each signal."""
    one_kind = dataclasses.replace(data, correct=np.full(200, correct))
    with pytest.raises(InfeasibleError, match="nothing tells"):
        evaluate_scores(one_kind)
    with pytest.raises(InfeasibleError, match="no labelled"):
        evaluate_scores(data.take(np.zeros(200, dtype=bool)))


def test_few_wrong_answers_have_values_without_intervals():
    """Otherwise three wrong answers would be a finding."""
    data = labelled(n=60, per=1)
    few = dataclasses.replace(data, correct=np.arange(60) >= 3)
    found = evaluate_scores(few, ["msp"], replicates=200)
    assert found.scores[0].auroc.value is not None
    assert found.scores[0].auroc.low is None
    assert any("Only 3 units have a wrong answer" in told for told in cautions(found))
    assert "could not be measured" in headline(found)
    with pytest.raises(InfeasibleError, match="combiner"):
        evaluate_scores(few, ["msp"], combiner=True, replicates=200)


def test_two_answers_are_enough_to_say_that_nothing_is_known():
    """Otherwise the smallest file would be a crash."""
    data = labelled(n=2, per=1)
    found = evaluate_scores(dataclasses.replace(data, correct=np.array([True, False])), replicates=200)
    assert all(one.auroc.low is None for one in found.scores)
    assert "<html" in render_evaluation(found)
    one_unit = dataclasses.replace(data, correct=np.array([True, False]), units=np.zeros(2, dtype=np.int64))
    assert evaluate_scores(one_unit, ["msp"], replicates=200).scores[0].probability is None


def test_scores_that_there_are_not_are_refused(data):
    """Otherwise a typing error would be a missing row."""
    with pytest.raises(ConfigurationError, match="no score"):
        evaluate_scores(data, ["mps"])
    with pytest.raises(ConfigurationError, match="twice"):
        evaluate_scores(data, ["msp", SCORES["msp"]])
    with pytest.raises(ConfigurationError, match="no score is asked"):
        evaluate_scores(data, [])
    with pytest.raises(InputError, match="no column"):
        evaluate_scores(dataclasses.replace(data, columns={"n_tokens": data.columns["n_tokens"]}), ["msp"])
    with pytest.raises(ConfigurationError, match="replicates"):
        evaluate_scores(data, ["msp"], replicates=10)


def test_a_combiner_that_is_not_worth_it_is_not_the_best():
    """Otherwise the headline would recommend what the report itself rejects."""
    found = evaluate_scores(labelled(seed=9), combiner=True, replicates=200)
    told = dataclasses.replace(found, combiner=dataclasses.replace(known(found.combiner), used=False))
    assert known(best_of(told)).name != "combiner"
    assert any("not worth using" in one for one in cautions(told))


def test_merged_ranks_give_the_intervals_of_exact_ones(monkeypatch):
    """Otherwise large data would have other intervals than small ones."""
    data = labelled(n=3000, per=1)
    merged = evaluate_scores(data, ["mean_surprisal"], replicates=200).scores[0]
    monkeypatch.setattr(tally, "RANK_BLOCKS", 10**9)
    exact = evaluate_scores(data, ["mean_surprisal"], replicates=200).scores[0]
    for name in ("auroc", "auprc", "prr", "aurc", "excess_aurc"):
        one, other = getattr(merged, name), getattr(exact, name)
        assert one.value == other.value
        assert (one.low, one.high) == pytest.approx(
            (other.low, other.high), abs=0.02 * (other.high - other.low)
        )


def test_the_page_runs_nothing_and_loads_nothing(report):
    """Otherwise a group's name could run in the browser of whoever opens the report."""
    page = render_evaluation(report)
    assert "<script" not in page
    assert "de <b>" not in page
    assert "de &lt;b&gt;" in page
    assert not re.search(r"(src|href)=[\"'](?!#)", page)
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r'style="', page)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S).lower()


def test_every_chart_has_a_table_beside_it(report):
    """Otherwise somebody who cannot see the chart would not have its numbers."""
    page = render_evaluation(report)
    for part in re.findall(r"<figure>.*?</figure>", page, flags=re.S):
        assert "<table" in part
    drawn = page.count('class="field spread"')
    assert drawn == sum(one.curves is not None for one in report.scores)
    assert len(re.findall(r'aria-label="Spread of', page)) == drawn


def test_what_is_not_measured_is_said(report):
    """Otherwise an empty cell would be read as zero."""
    page = render_evaluation(report)
    row = known(re.search(r"<tr><th scope=\"row\">mean_self_certainty.*?</tr>", page, flags=re.S)).group()
    assert row.count("not measured") >= 6
    assert "Nobody looked." in page
    assert "3 no label" in page


@pytest.mark.parametrize(
    ("value", "text", "with_sign"),
    [(None, "not measured", "not measured"), (0.5, "0.500", "+0.500"), (-0.0001, "0.000", "0.000"),
     (-0.25, "−0.250", "−0.250")],
)  # fmt: skip
def test_figures_are_written_for_people(value, text, with_sign):
    """A difference has a sign, and nothing is minus zero."""
    assert figure(value) == text
    assert signed(value) == with_sign
    assert ranged(None) == "not measured"
