"""Settings that cannot be right are refused, and the served JSON keeps to its schema."""

import dataclasses
import json
import math
from importlib import resources

import jsonschema
import numpy as np
import pytest

from cert.backends.base import Generation, Message, ModelIdentity, Sampling
from cert.core.errors import ConfigurationError
from cert.signals import TokenSteps, reduce_logits
from cert.trajectory import TrajectoryConfig
from cert.trajectory.analysis import analyze_generation

SCHEMA = json.loads(
    resources.files("cert.trajectory")
    .joinpath("schemas/trajectory-analysis.v1.json")
    .read_text(encoding="utf-8")
)


class Letters:
    def text(self, token_id: int) -> str:
        return chr(97 + token_id % 26)


def generation(steps: TokenSteps, **changes) -> Generation:
    length = len(steps)
    made = Generation(
        prompt="Say",
        text="".join(Letters().text(i) for i in steps.token_ids.tolist()),
        steps=steps,
        offsets=np.stack((np.arange(length), np.arange(1, length + 1)), axis=1).reshape(length, 2),
        finish_reason="length",
        stop_step=None,
        prompt_tokens=3,
        sampling=Sampling(),
        model=ModelIdentity("made-up", None, "test", 30, 128),
        logprobs_mode="raw",
        vocabulary=Letters(),
        duration_s=0.25,
    )
    return dataclasses.replace(made, **changes)


def random_steps(length=6, top_k=4):
    rng = np.random.default_rng(length)
    return reduce_logits(rng.normal(scale=2, size=(length, 30)), rng.integers(0, 30, length), top_k)


def truncated(steps):
    nothing = np.full(len(steps), np.nan)
    return dataclasses.replace(steps, entropy=nothing, self_certainty=nothing, vocab_size=None)


@pytest.mark.parametrize(
    "made",
    [
        generation(random_steps()),
        generation(
            random_steps(), prompt=(Message("user", "Say"),), stop_step=random_steps(1), finish_reason="stop"
        ),
        generation(truncated(random_steps())),
        generation(TokenSteps.empty(4, 30)),
        generation(random_steps(), sampling=Sampling(0.7, 0.9, 5, 2**62)),
        generation(dataclasses.replace(random_steps(2), logprob=np.array([-900.0, -np.inf]))),
    ],
    ids=["plain", "chat with stop", "truncated", "no tokens", "sampled", "beyond a double"],
)
def test_the_json_of_every_kind_of_analysis_keeps_to_the_schema(made):
    """Whoever reads the JSON relies on the committed schema."""
    data = json.loads(json.dumps(analyze_generation(made, TrajectoryConfig()).to_dict(), allow_nan=False))
    jsonschema.validate(data, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert all(len(column) == len(made.steps) for column in (*data["tokens"].values(), *data["top"].values()))


def test_json_holds_the_recorded_floats_bit_for_bit():
    """Signals recomputed from a stored record must be the ones that were served."""
    steps = random_steps()
    data = json.loads(json.dumps(analyze_generation(generation(steps), TrajectoryConfig()).to_dict()))
    assert np.array(data["tokens"]["logprob"]).tobytes() == steps.logprob.tobytes()
    assert np.array(data["top"]["logprob"]).tobytes() == steps.top_logprobs.tobytes()
    assert np.array(data["tokens"]["entropy_lower"]).tobytes() == steps.entropy.tobytes()


def test_not_measured_is_null_and_never_a_number():
    """A stand-in number would be charted, averaged and believed."""
    config = TrajectoryConfig(entropy_threshold=3.3, perplexity_threshold=None, surprise_threshold=None)
    analysis = analyze_generation(generation(truncated(random_steps())), config)
    data = analysis.to_dict()
    assert data["signals"]["mean_self_certainty"] is None
    assert data["signals"]["mean_entropy_upper"] is None
    assert data["verdict"] == "undecided"
    assert math.isnan(analysis.avg_entropy)
    assert math.isnan(analysis.metrics[0].entropy)
    assert analysis.metrics[0].to_dict()["entropy"] is None


def test_rows_and_columns_tell_the_same():
    """The rows of version 3 are a view of the columns, not a second calculation."""
    analysis = analyze_generation(generation(random_steps()), TrajectoryConfig())
    assert [m.perplexity for m in analysis.metrics] == analysis.step.perplexity.tolist()
    assert [m.logit_gap for m in analysis.metrics] == analysis.step.margin.tolist()
    assert [m.token for m in analysis.metrics] == list(analysis.generation.tokens)
    assert analysis.metrics[-1].cumulative_surprise == analysis.final_surprise
    assert analysis.max_entropy == max(m.entropy for m in analysis.metrics)
    assert analysis.avg_perplexity == pytest.approx(np.mean([m.perplexity for m in analysis.metrics]))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"top_k_entropy_threshold": 2.5, "top_k": 10}, "2.303"),
        ({"top_k_entropy_threshold": math.log(20)}, "can never fail"),
        ({"perplexity_threshold": 1.0}, "above 1"),
        ({"perplexity_threshold": math.inf}, "finite"),
        ({"entropy_threshold": math.nan}, "finite"),
        ({"entropy_threshold": 0.0}, "above 0"),
        ({"surprise_threshold": -1.0}, "above 0"),
        ({"top_k": 0}, "at least 1"),
        ({"max_new_tokens": -1}, "at least 0"),
        ({"surprise_probability_threshold": 0.0}, "surprise_probability_threshold"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 5.0}, "top_p"),
        ({"top_k": 10**23}, "at most"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings, says):
    """A threshold that can never fail looks like a gate and is none."""
    with pytest.raises(ConfigurationError, match=says):
        TrajectoryConfig(**settings)


def test_an_entropy_threshold_above_the_vocabulary_is_refused():
    """Entropy never exceeds log V."""
    TrajectoryConfig(entropy_threshold=math.log(100) - 0.01).check_vocabulary(100)
    with pytest.raises(ConfigurationError, match=r"4\.605"):
        TrajectoryConfig(entropy_threshold=math.log(100)).check_vocabulary(100)


def test_default_thresholds_are_those_of_version_3_and_called_uncalibrated():
    """Users of version 3 keep their verdicts, and nobody takes them for a promise."""
    config = TrajectoryConfig()
    assert (config.perplexity_threshold, config.entropy_threshold, config.surprise_threshold) == (
        50.0,
        2.5,
        10.0,
    )
    decision = analyze_generation(generation(random_steps()), config).decision
    assert (decision.profile, decision.calibrated) == ("v3", False)
    assert dataclasses.replace(config, entropy_threshold=2.0).profile == "custom"


def test_columns_that_were_not_measured_are_null_and_infinities_keep_their_sign():
    """0 for a missing value, or null for an infinite one, would turn a verdict recomputed from the record."""
    steps = dataclasses.replace(random_steps(2), logprob=np.array([-np.inf, np.nan]))
    data = json.loads(json.dumps(analyze_generation(generation(steps), TrajectoryConfig()).to_dict()))
    assert data["tokens"]["logprob"] == ["-Infinity", None]
    assert data["tokens"]["surprisal"] == ["Infinity", None]
    assert data["tokens"]["perplexity"] == ["Infinity", None]
    assert data["signals"]["sequence_logprob"] is None


def test_what_counts_as_a_surprise_is_the_configured_probability():
    """A setting that nothing reads would be a promise that nobody keeps."""
    steps = dataclasses.replace(random_steps(2), logprob=np.log([0.3, 0.05]))
    usual = analyze_generation(generation(steps), TrajectoryConfig())
    wide = analyze_generation(generation(steps), TrajectoryConfig(surprise_probability_threshold=0.5))
    assert usual.final_surprise == pytest.approx(-math.log(0.05))
    assert wide.final_surprise == pytest.approx(-math.log(0.05) - math.log(0.3))


def test_the_energy_of_an_entropy_known_by_bounds_alone_is_not_measured():
    """One of its two terms would be a guess."""
    analysis = analyze_generation(generation(truncated(random_steps())), TrajectoryConfig())
    assert np.isnan(analysis.energy).all()


def test_a_top_k_entropy_threshold_beyond_a_small_vocabulary_is_refused():
    """K candidates out of V < K tokens are V candidates."""
    config = TrajectoryConfig(top_k_entropy_threshold=2.5)
    config.check_vocabulary(1000)
    with pytest.raises(ConfigurationError, match=r"2\.303"):
        dataclasses.replace(config, entropy_threshold=None).check_vocabulary(10)
