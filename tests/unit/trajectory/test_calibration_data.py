"""What a gate is calibrated on: scores that are larger where it looks worse, and answers with their truth."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from cert.core.errors import ConfigurationError, InputError
from cert.signals import GenerationSignals, TokenSteps, analyze_steps
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES, score_named


def steps(probability: float, count: int = 20) -> TokenSteps:
    """Return a generation whose tokens all have one probability, of a vocabulary of 50."""
    rest = (1.0 - probability) / 49
    logprobs = np.log(np.array([probability] + [rest] * 49))
    entropy = -float(np.sum(np.exp(logprobs) * logprobs))
    return TokenSteps(
        token_ids=np.zeros(count, dtype=np.int64),
        logprob=np.full(count, logprobs[0]),
        top_ids=np.tile(np.arange(20), (count, 1)),
        top_logprobs=np.tile(logprobs[:20], (count, 1)),
        entropy=np.full(count, entropy),
        self_certainty=np.full(count, -float(logprobs.mean()) - np.log(50)),
        vocab_size=50,
    )


@pytest.mark.parametrize("name", [name for name in SCORES if "confidence" not in name])
def test_a_score_is_larger_where_the_model_was_less_sure(name):
    """A sign that is wrong would pass what should fail, with a certificate."""
    sure, unsure = (score_named(name).of(analyze_steps(steps(p))[2]) for p in (0.95, 0.05))
    assert sure < unsure


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_the_same_for_one_generation_and_for_many(name):
    """A threshold that was found on columns is applied to single answers."""
    score = SCORES[name]
    assert score.column in {field.name for field in fields(GenerationSignals)}
    signals = [analyze_steps(steps(p))[2] for p in (0.9, 0.3)]
    columns = {score.column: np.array([getattr(one, score.column) for one in signals])}
    assert score.column_of(columns).tolist() == [score.of(one) for one in signals]


def test_an_unknown_score_names_the_known_ones():
    """Whoever mistypes a name need not look for the list."""
    with pytest.raises(ConfigurationError) as error:
        score_named("mps")
    assert "msp" in str(error.value.hint)


def data(**changes):
    columns = {"mean_surprisal": np.array([0.1, 0.2, 0.3])}
    given: Any = {
        "ids": ("a", "b", "c"),
        "correct": np.array([True, False, True]),
        "columns": columns,
        "units": np.array([0, 0, 1]),
    }
    return LabelledData(**(given | changes))


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids": ("a", "b", "a")},
        {"ids": ("a", "b")},
        {"correct": np.array([1, 0, 2])},
        {"columns": {"mean_surprisal": np.array([0.1])}},
        {"groups": np.array(["x"])},
    ],
)
def test_data_that_cannot_be_right_is_refused(wrong):
    """An answer that counts twice, or a label of 2, would make a promise that does not hold."""
    with pytest.raises(InputError):
        data(**wrong)


def test_a_part_keeps_the_rows_together():
    """A label that slips to another answer is the worst of all errors here."""
    part = data(groups=np.array(["x", "y", "z"])).take(np.array([False, True, True]))
    assert part.ids == ("b", "c")
    assert part.correct.tolist() == [False, True]
    assert part.columns["mean_surprisal"].tolist() == [0.2, 0.3]
    assert (part.n_units, list(part.groups)) == (2, ["y", "z"])


@pytest.mark.parametrize("nothing", [[], np.zeros(3, dtype=bool)])
def test_nothing_can_be_taken(nothing) -> None:
    """An empty part is a part: whoever splits must not crash on it."""
    part = data().take(nothing)
    assert len(part) == 0
    assert part.n_units == 0
