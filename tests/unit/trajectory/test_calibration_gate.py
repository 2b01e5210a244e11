"""A certificate decides: one by one as in columns, for what it covers and for nothing else."""

import json
import math
import time
from dataclasses import fields, replace
from importlib import resources
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rfc8785")

from cert.backends.base import Capabilities, Generation, GenerationRequest, ModelIdentity, Sampling
from cert.backends.stored.own_analyses import RecordedTexts
from cert.core.errors import ConfigurationError, InputError
from cert.signals import GenerationSignals, analyze_steps, signal_columns
from cert.signals.distribution import reduce_logits
from cert.signals.steps import TokenSteps
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.certificate_parts import Quantiles, ScoreQuantiles
from cert.trajectory.calibration.combiner import FEATURES, Combiner
from cert.trajectory.calibration.gate import CalibratedGate, gate_of
from cert.trajectory.calibration.goals.types import Threshold
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.calibration.matching import CONDITIONS
from cert.trajectory.calibration.score_json import json_of, score_of
from cert.trajectory.calibration.scores import SCORES, needs_full_vocabulary
from cert.trajectory.calibration.settings import config_of, refuse_settings
from cert.trajectory.engine import HamiltonianEngine, refuse_unseen
from cert.trajectory.gate_columns import VERDICTS
from cert.trajectory.report import render_report
from cert.trajectory.types import TrajectoryConfig

NONE = Quantiles(0, ())
COMBINER = Combiner(FEATURES[:4], (0.0,) * 4, (1.0,) * 4, (0.5, -0.25, 1.0, 0.1), -0.5)
SCHEMA = json.loads(
    resources.files("cert.trajectory").joinpath("schemas/trajectory-analysis.v1.json").read_text()
)
KNOWN = Conditions(
    model="m",
    revision="abc",
    backend="transformers",
    sampling={"temperature": 0.0},
    logprobs_mode="raw",
    top_k=4,
    max_new_tokens=6,
    surprise_probability=0.1,
)


def certified(
    value: float | dict[str, float] = 1.0, score: Any = "msp", conditions: Conditions = KNOWN, **changes: Any
) -> Certificate:
    """A certificate with this threshold, or these by group."""
    goal, alpha = changes.get("goal", "false-flags"), changes.get("alpha", 0.05)

    def threshold(number: float) -> Threshold:
        return Threshold(goal, number, alpha, None, 100, 100, 20, {})

    used = SCORES[score] if isinstance(score, str) else score
    usual: dict[str, Any] = {
        "goal": "false-flags",
        "alpha": 0.05,
        "delta": None,
        "score": used.name,
        "combiner": json_of(used),
        "threshold": threshold(value) if isinstance(value, float) else None,
        "groups": None if isinstance(value, float) else {g: threshold(v) for g, v in value.items()},
        "conditions": conditions,
        "n": 100,
        "n_units": 100,
        "n_wrong": 20,
        "data_n": 100,
        "data_units": 100,
        "seed": 0,
        "created_at": "2026-02-03T04:05:06Z",
        "versions": {"cert-framework": "4"},
        "score_quantiles": ScoreQuantiles(NONE, NONE),
    }
    return Certificate(**usual | changes)


def steps_of(seed: int, length: int = 6, *, full: bool = True) -> TokenSteps:
    rng = np.random.default_rng(seed)
    steps = reduce_logits(rng.normal(size=(length, 40)) * rng.uniform(0.5, 6), rng.integers(0, 40, length), 4)
    if full:
        return steps
    nothing = np.full(length, np.nan)
    return replace(steps, entropy=nothing, self_certainty=nothing, vocab_size=None)


def generation(seed: int = 0, length: int = 6, **changes: Any) -> Generation:
    """A generation that was made as `KNOWN` says."""
    place = np.arange(length)
    usual: dict[str, Any] = {
        "prompt": "Say",
        "text": "x" * length,
        "steps": steps_of(seed, length),
        "offsets": np.stack([place, place + 1], axis=1).reshape(length, 2),
        "finish_reason": "stop",
        "stop_step": None,
        "prompt_tokens": 3,
        "sampling": Sampling(seed=5),
        "model": ModelIdentity("m", "abc", "transformers", 40, 128),
        "logprobs_mode": "raw",
        "vocabulary": RecordedTexts({}),
        "duration_s": 0.1,
    }
    return Generation(**usual | changes)


CONFIG = TrajectoryConfig(top_k=4, max_new_tokens=6)


def judged(gate: CalibratedGate, g: Generation, **options: Any):
    return analyze_generation(g, CONFIG, gate, **({"max_new_tokens": 6} | options))


# --- verdicts ---


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 7), st.booleans()), min_size=1, max_size=6),
    st.sampled_from([*SCORES.values(), COMBINER]),
    st.data(),
)
def test_columns_and_single_answers_get_the_same_verdict(made, score, data):
    """The same answer must not pass in a batch and fail alone; not at the threshold itself either."""
    parts = [steps_of(seed, length, full=full) for seed, length, full in made]
    found = [analyze_steps(part) for part in parts]
    rows = [signals for _, _, signals in found]
    columns = {f.name: np.array([getattr(s, f.name) for s in rows]) for f in fields(GenerationSignals)}
    for part, signals in zip(parts, rows, strict=True):  # these are the bits of the columns
        if len(part):
            alone = signal_columns(part, np.array([len(part)]))
            assert np.array_equal(alone[score_column(score)], [getattr(signals, score_column(score))], True)
    values = [score.of(signals) for signals in rows]
    assert np.array_equal(score.column_of(columns), values, equal_nan=True)
    thresholds = [value for value in values if not math.isnan(value)] + [0.0, math.inf, -math.inf]
    groups = data.draw(
        st.lists(st.sampled_from(["a", "b", "c", None]), min_size=len(rows), max_size=len(rows))
    )
    whole = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    one = data.draw(st.sampled_from(thresholds))
    for threshold in (one, {"a": one, "b": data.draw(st.sampled_from(thresholds))}):
        gate = CalibratedGate(certified(threshold, score))
        verdicts = gate.verdicts(columns, groups, whole=whole)
        for place, (step, running, signals) in enumerate(found):
            decision = gate.decide(
                step,
                running,
                signals,
                ["x"] * signals.n_tokens,
                groups[place],
                finish_reason="stop" if whole[place] else "timeout",
            )
            assert VERDICTS[verdicts[place]] == decision.verdict
            assert decision.calibrated
            assert decision.profile == gate.certificate.id
            if decision.verdict == "pass":
                assert whole[place]
                assert values[place] <= decision.checks[0].threshold
            if math.isnan(values[place]):
                assert decision.verdict == "not_measured"


def score_column(score: Any) -> str:
    return SCORES[COMBINER.features[0]].column if isinstance(score, Combiner) else score.column


def test_a_score_at_the_threshold_passes_and_the_next_number_fails():
    """The rank that the promise is proved with counts answers at the threshold as passed."""
    g = generation(1)
    value = SCORES["msp"].of(analyze_steps(g.steps)[2])
    assert judged(CalibratedGate(certified(value)), g).verdict == "pass"
    assert judged(CalibratedGate(certified(math.nextafter(value, 0.0))), g).verdict == "fail"


def test_the_verdict_says_which_certificate_decided_and_what_it_promises():
    """A number without its promise is another guess."""
    gate = CalibratedGate(certified(0.0))
    analysis = judged(gate, generation(1))
    (reason,) = analysis.decision.reasons
    assert gate.certificate.id[:12] in reason
    assert "false flags ≤ 5 % of the right answers" in reason
    assert "msp" in reason
    assert "above 0" in reason
    assert analysis.decision.certificate is not None
    assert analysis.decision.certificate.notes == ("conditions not checked: template",)


def test_where_the_score_is_a_largest_token_the_token_is_named():
    """Readers look for the place first."""
    g = generation(3)
    (check,) = judged(CalibratedGate(certified(0.0, "max_surprisal")), g).decision.checks
    assert check.token == int(np.argmax(-g.steps.logprob))
    assert f"at token {check.token}" in check.reason


def test_an_unknown_group_is_not_measured_and_never_passes():
    """A group without labels has no promise; another group's threshold would be a wrong one."""
    gate = CalibratedGate(certified({"law": math.inf}))
    assert judged(gate, generation(1), group="law").verdict == "pass"
    for group in ("art", None, ""):
        analysis = judged(gate, generation(1), group=group)
        assert analysis.verdict == "not_measured"
        assert math.isnan(analysis.decision.checks[0].threshold)
        jsonschema.validate(json.loads(json.dumps(analysis.to_dict(), allow_nan=False)), SCHEMA)


def test_a_part_of_an_answer_can_fail_and_never_pass():
    """The promise is about whole answers; and a sum that is too large already will not fall."""
    g = generation(1, finish_reason="timeout")
    assert judged(CalibratedGate(certified(math.inf)), g).verdict == "not_measured"
    assert judged(CalibratedGate(certified(0.0)), g).verdict == "fail"  # msp only rises
    assert judged(CalibratedGate(certified(-99.0, "mean_surprisal")), g).verdict == "not_measured"
    elsewhere = replace(g, model=replace(g.model, name="another"))
    cut = judged(CalibratedGate(certified(0.0)), elsewhere)
    assert cut.verdict == "not_measured"
    assert "another" in cut.decision.reasons[0]


def test_an_answer_without_a_token_is_not_measured():
    """There is nothing to be sure of."""
    assert judged(CalibratedGate(certified(math.inf)), generation(1, 0)).verdict == "not_measured"


# --- what it covers ---

OTHER: dict[str, tuple[dict[str, Any], str, str]] = {
    "model": ({"model": ModelIdentity("n", "abc", "transformers", 40, 128)}, "'n'", "'m'"),
    "revision": ({"model": ModelIdentity("m", "def", "transformers", 40, 128)}, "'def'", "'abc'"),
    "backend": ({"model": ModelIdentity("m", "abc", "vllm", 40, 128)}, "'vllm'", "'transformers'"),
    "sampling": ({"sampling": Sampling(0.7)}, "temperature 0.7", "temperature 0"),
    "logprobs_mode": ({"logprobs_mode": "processed"}, "'processed'", "'raw'"),
}


@pytest.mark.parametrize("name", OTHER)
def test_an_answer_that_was_made_otherwise_is_refused_by_name_and_both_values(name):
    """A threshold found for one model, put on another, is a guess with a seal on it."""
    changes, found, wanted = OTHER[name]
    with pytest.raises(ConfigurationError) as raised:
        judged(CalibratedGate(certified()), generation(1, **changes))
    assert name in raised.value.message
    assert found in raised.value.message
    assert wanted in raised.value.message
    assert raised.value.context["condition"] == name
    waived = judged(CalibratedGate(certified(), waive=(name,)), generation(1, **changes))
    assert waived.decision.certificate is not None
    assert waived.decision.certificate.waived == (name,)
    assert f"conditions waived: {name}" in waived.decision.certificate.notes


def test_other_numbers_of_the_settings_are_refused():
    """K, the limit and the surprise's probability change what the score is."""
    gate = CalibratedGate(certified())
    with pytest.raises(ConfigurationError, match=r"max_new_tokens is 7.* 6"):
        judged(gate, generation(1), max_new_tokens=7)
    with pytest.raises(ConfigurationError, match=r"surprise_probability is 0\.2.*0\.1"):
        analyze_generation(
            generation(1), replace(CONFIG, surprise_probability_threshold=0.2), gate, max_new_tokens=6
        )
    fewer = CalibratedGate(certified(conditions=replace(KNOWN, top_k=5)))
    with pytest.raises(ConfigurationError, match=r"top_k is 4.* 5"):
        judged(fewer, generation(1))


@pytest.mark.parametrize("name", ["revision", "sampling", "logprobs_mode", "model", "backend"])
def test_what_an_answer_does_not_tell_is_refused_unless_it_is_stated(name):
    """A record that does not say which model gave it may be of any."""
    unknown: dict[str, dict[str, Any]] = {
        "revision": {"model": ModelIdentity("m", None, "transformers", 40, 128)},
        "sampling": {"sampling": None},
        "logprobs_mode": {"logprobs_mode": "unknown"},
        "model": {"model": ModelIdentity("unknown", "abc", "transformers", 40, 128)},
        "backend": {"model": ModelIdentity("m", "abc", "stored", 40, 128)},
    }
    g = generation(1, **unknown[name])
    with pytest.raises(ConfigurationError, match=f"{name} is not known"):
        judged(CalibratedGate(certified()), g)
    stated = Conditions(**{name: getattr(KNOWN, name)})
    assert judged(CalibratedGate(certified(), stated=stated), g).decision.calibrated
    with pytest.raises(ConfigurationError, match="does not cover"):
        CalibratedGate(certified(), stated=Conditions(**{name: another(name)}))


def another(name: str) -> Any:
    return {"sampling": {"temperature": 1.0}, "logprobs_mode": "processed"}.get(name, "another")


def test_a_statement_that_an_answer_contradicts_is_refused():
    """What was stated would hide what is recorded."""
    open_ = replace(KNOWN, revision="abc")
    gate = CalibratedGate(certified(conditions=open_), stated=Conditions(revision="abc"))
    other = generation(1, model=ModelIdentity("m", "def", "transformers", 40, 128))
    with pytest.raises(ConfigurationError, match="stated as 'abc', and is 'def'"):
        judged(gate, other)


def test_a_certificate_that_names_a_template_asks_for_it():
    """Nothing that runs can tell the template: it is stated, or the certificate is of no use."""
    known = certified(conditions=replace(KNOWN, template="ab" * 32))
    with pytest.raises(ConfigurationError, match="template is not known"):
        CalibratedGate(known)
    with pytest.raises(ConfigurationError, match="template"):
        CalibratedGate(known, stated=Conditions(template="cd" * 32))
    assert CalibratedGate(known, stated=Conditions(template="ab" * 32)).unchecked == ()
    assert CalibratedGate(known, waive=("template",)).waived == ("template",)


def test_what_the_certificate_does_not_know_is_said_and_not_refused():
    """An unknown that nobody mentions is taken for a check that was made."""
    gate = CalibratedGate(certified(conditions=Conditions(model="m")))
    analysis = judged(gate, generation(1, sampling=Sampling(1.0)))
    assert analysis.decision.certificate is not None
    assert analysis.decision.certificate.unchecked == tuple(n for n in CONDITIONS if n != "model")
    (note,) = analysis.decision.certificate.notes
    assert note.startswith("conditions not checked: revision, backend")


@pytest.mark.parametrize("waive", [("temperature",), "model", ("model", "")])
def test_only_conditions_can_be_waived(waive):
    """A name that is misspelt must not look like a waiver that worked."""
    with pytest.raises(ConfigurationError, match="no condition to waive"):
        CalibratedGate(certified(), waive=waive)


def test_samples_are_compared_without_their_seed():
    """The seed of one sample is no condition of the promise; top-p is."""
    conditions = replace(KNOWN, sampling={"temperature": 0.7, "top_p": 0.9, "top_k": None})
    gate = CalibratedGate(certified(conditions=conditions))
    assert judged(gate, generation(1, sampling=Sampling(0.7, 0.9, seed=1))).decision.calibrated
    assert judged(gate, generation(1, sampling=Sampling(0.7, 0.9, seed=2))).decision.calibrated
    with pytest.raises(ConfigurationError, match="sampling"):
        judged(gate, generation(1, sampling=Sampling(0.7, 0.8)))
    request = GenerationRequest("x", 6, Sampling(0.7))
    gate.match.refuse_request(request)  # what is left to the model's own settings shows later
    with pytest.raises(ConfigurationError, match="sampling"):
        gate.match.refuse_request(replace(request, sampling=Sampling(0.7, 0.5)))


@pytest.mark.parametrize(
    ("finish_reason", "length", "right"),
    [("stop", 5, True), ("length", 6, True), ("length", 5, False), ("stop", 7, False), ("given", 5, False),
     ("unknown", 5, False)],
)  # fmt: skip
def test_an_unrecorded_limit_is_taken_for_the_certified_one_only_where_the_answer_shows_it(
    finish_reason, length, right
):
    """An answer that was cut at another length is one that the calibration never saw."""
    gate = CalibratedGate(certified())
    g = generation(1, length, finish_reason=finish_reason)
    if right:
        assert judged(gate, g, max_new_tokens=None).decision.calibrated
    else:
        with pytest.raises(ConfigurationError, match="max_new_tokens"):
            judged(gate, g, max_new_tokens=None)


def test_a_vocabulary_smaller_than_k_is_the_same_k():
    """With 40 tokens, 60 candidates are 40."""
    g = generation(1, steps=reduce_logits(np.random.default_rng(1).normal(size=(6, 40)), np.arange(6), 40))
    gate = CalibratedGate(certified(conditions=replace(KNOWN, top_k=60)))
    assert g.steps.top_k == 40
    assert judged(gate, g).decision.calibrated


# --- monitors ---


class _Shown:
    """A backend of which only what it shows is asked."""

    def __init__(self, identity: ModelIdentity, logprobs: Any = "full", mode: Any = "raw") -> None:
        self.identity = identity
        self.capabilities = Capabilities(logprobs, None, mode)


IDENTITY = ModelIdentity("m", "abc", "transformers", 40, 128)


def test_a_backend_is_refused_before_the_first_request():
    """What can be known when a monitor is made must not wait for a generation that is paid for."""
    gate = CalibratedGate(certified())
    refuse_unseen(_Shown(IDENTITY), CONFIG, gate)  # type: ignore[arg-type]
    for identity, mode, name in (
        (replace(IDENTITY, name="n"), "raw", "model"),
        (replace(IDENTITY, revision="def"), "raw", "revision"),
        (replace(IDENTITY, backend="vllm"), "raw", "backend"),
        (IDENTITY, "processed", "logprobs_mode"),
    ):
        with pytest.raises(ConfigurationError, match=name):
            refuse_unseen(_Shown(identity, "full", mode), CONFIG, gate)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="top_k"):
        refuse_unseen(_Shown(IDENTITY), replace(CONFIG, top_k=5), gate)  # type: ignore[arg-type]


def test_a_score_that_truncation_takes_away_is_refused_with_the_reason():
    """Every verdict would be 'not measured', and nobody would know why."""
    server = _Shown(IDENTITY, "top_k")
    for score in ("mean_self_certainty", Combiner(("mean_self_certainty",), (0.0,), (1.0,), (1.0,), 0.0)):
        gate = CalibratedGate(certified(score=score))
        refuse_unseen(_Shown(IDENTITY), CONFIG, gate)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="needs the full vocabulary"):
            refuse_unseen(server, CONFIG, gate)  # type: ignore[arg-type]
    for score in ("max_entropy", "msp", COMBINER):
        refuse_unseen(server, CONFIG, CalibratedGate(certified(score=score)))  # type: ignore[arg-type]
        assert not needs_full_vocabulary(SCORES[score] if isinstance(score, str) else score)


def test_the_lower_bound_of_an_entropy_decides_as_it_stands():
    """Fixed thresholds stay undecided between bounds; a threshold for the lower bound itself never does."""
    g = generation(1, steps=steps_of(1, full=False))
    lower = analyze_steps(g.steps)[2].max_entropy_lower
    for threshold, verdict in ((lower, "pass"), (lower * 0.99, "fail")):
        assert judged(CalibratedGate(certified(threshold, "max_entropy")), g).verdict == verdict


def test_the_settings_of_a_certificate_are_the_monitors_own_where_none_are_given():
    """Whoever has a certificate needs no list of the settings that it was made with."""
    sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 40}
    gate = CalibratedGate(certified(conditions=replace(KNOWN, sampling=sampling)))
    config = config_of(gate)
    assert (config.top_k, config.max_new_tokens, config.temperature) == (4, 6, 0.7)
    assert (config.top_p, config.sampling_top_k) == (0.9, 40)
    refuse_settings(gate, "m", config)
    for changes in ({"temperature": 0.0}, {"max_new_tokens": 7}, {"top_p": 0.5}, {"sampling_top_k": 5}):
        with pytest.raises(ConfigurationError, match="does not cover"):
            refuse_settings(gate, "m", replace(config, **changes))
    with pytest.raises(ConfigurationError, match="model is 'n'"):
        refuse_settings(gate, "n", config)
    assert config_of(CalibratedGate(certified(conditions=Conditions()))) == TrajectoryConfig()


def test_answers_of_another_gate_or_group_are_not_taken_from_the_cache():
    """A cached 'pass' of a looser gate would be given out as one of this."""
    request = GenerationRequest("x", 6)

    def key(gate: CalibratedGate | None, group: str | None = None) -> Any:
        engine: Any = object.__new__(HamiltonianEngine)
        engine.config, engine.gate = CONFIG, gate
        return engine.key(_Shown(IDENTITY), request, group)

    gate = CalibratedGate(certified())
    keys = [
        key(None),
        key(gate),
        key(gate, "a"),
        key(CalibratedGate(certified(2.0))),
        key(CalibratedGate(certified(), waive=("model",))),
        key(CalibratedGate(certified(created_at="2027-01-01T00:00:00Z"))),
    ]
    assert len(set(keys)) == len(keys)
    assert key(CalibratedGate(certified())) == key(gate)


def test_a_gate_is_a_certificate_its_file_or_itself(tmp_path):
    """Each of the three names the same promise."""
    certificate = certified()
    path = certificate.save(tmp_path / "c.json")
    gate = CalibratedGate(certificate)
    assert gate_of(gate) is gate
    for given_ in (certificate, path, str(path)):
        made = gate_of(given_)
        assert made is not None
        assert made.profile == certificate.id
    assert gate_of(None) is None
    with pytest.raises(ConfigurationError, match="a gate is a certificate"):
        gate_of(0.5)  # type: ignore[arg-type]


def test_a_certificate_with_a_score_of_another_version_is_refused():
    """Another number under a threshold is another promise."""
    with pytest.raises(ConfigurationError, match="does not have"):
        score_of("of_tomorrow", None)
    with pytest.raises(InputError):
        CalibratedGate(certified(combiner={"kind": "another"}))
    with pytest.raises(ConfigurationError, match="names the score 'msp'"):
        CalibratedGate(certified(combiner=COMBINER.to_dict()))


# --- what is shown ---


def test_json_and_report_show_that_it_is_calibrated_and_by_what():
    """Whoever reads a file later must see the promise, and whom it is of."""
    gate = CalibratedGate(certified(0.0), waive=("revision",))
    analysis = judged(gate, generation(1))
    data = json.loads(json.dumps(analysis.to_dict(), allow_nan=False))
    jsonschema.validate(data, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert data["gate"]["profile"] == gate.certificate.id
    assert data["gate"]["calibrated"] is True
    by = data["gate"]["certificate"]
    assert (by["id"], by["goal"], by["alpha"]) == (gate.certificate.id, "false-flags", 0.05)
    assert (by["unchecked"], by["waived"], by["signed_by"]) == (["template"], ["revision"], None)
    page = render_report(analysis)
    assert gate.certificate.id in page
    assert "false flags ≤ 5 % of the right answers" in page
    assert "not signed" in page
    assert "Conditions waived: revision" in page
    assert "uncalibrated" not in page
    assert "the rule is on" not in page  # the curves have no part in this verdict


def test_files_from_before_certificates_keep_to_the_schema():
    """An analysis that was written last year is still one."""
    data = json.loads(json.dumps(analyze_generation(generation(1), CONFIG).to_dict()))
    assert data["gate"]["certificate"] is None
    jsonschema.validate(data, SCHEMA)
    del data["gate"]["certificate"], data["early_stop"]
    jsonschema.validate(data, SCHEMA)


def test_infinite_thresholds_are_written_by_name():
    """JSON has no infinities, and a gate that passes everything is a finding."""
    data = judged(CalibratedGate(certified(math.inf)), generation(1)).to_dict()
    assert data["gate"]["checks"][0]["threshold"] == "Infinity"
    jsonschema.validate(json.loads(json.dumps(data, allow_nan=False)), SCHEMA)


def test_a_verdict_costs_microseconds():
    """The gate runs for every generation of a fleet."""
    gate, g = CalibratedGate(certified(1.0, "max_surprisal")), generation(1)
    step, running, signals = analyze_steps(g.steps)

    def once() -> None:
        gate.judge(g, step, running, signals, surprise_probability=0.1, max_new_tokens=6)

    once()
    best = min(_seconds(once, 200) for _ in range(5))
    assert best < 200e-6


def _seconds(call: Any, times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begun) / times
