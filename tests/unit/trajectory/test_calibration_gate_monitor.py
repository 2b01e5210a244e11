"""A calibrated gate at work: on the reference model from labels to verdicts, and on stored records."""

import asyncio
import dataclasses
import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("cryptography")
pytest.importorskip("rfc8785")

from cert.backends.local import LocalBackend
from cert.backends.stored.parquet_write import GenerationWriter
from cert.core.errors import BatchError, ConfigurationError, GenerationTimeoutError, InputError
from cert.core.events import EventHub, GenerationFinished
from cert.reference.answers import write_answers
from cert.reference.world import load_world
from cert.testing.events import captured_events
from cert.trajectory import HamiltonianMonitor, TrajectoryConfig
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.calibration.reading import read_labelled
from cert.trajectory.calibration.signing import make_key_pair
from cert.trajectory.stored import StoredAnalysis, analyze_stored, summarise_stored
from cert.trajectory.types import TrajectoryAnalysis

TOKENS = 16


def whole(record: StoredAnalysis) -> TrajectoryAnalysis:
    """The analysis of a stored record that is not broken."""
    assert isinstance(record.outcome, TrajectoryAnalysis)
    return record.outcome


@pytest.fixture(scope="module")
def loaded():
    return LocalBackend.load("reference")


@pytest.fixture
def backend(loaded):
    backend = LocalBackend(loaded.model, loaded.tokenizer, name="reference")
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Answers of the reference model, labelled by its world."""
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    write_answers(path, people=30, facts=2, config=TrajectoryConfig(max_new_tokens=TOKENS))
    return path


@pytest.fixture(scope="module")
def data(answers):
    return read_labelled(answers, unit="person")


@pytest.fixture(scope="module")
def certificate(data):
    return calibrate(data, goal="undetected-errors", alpha=0.2)


@pytest.fixture
def monitor(backend, certificate):
    return HamiltonianMonitor(backend=backend, gate=certificate, hub=EventHub())


def questions(count):
    facts = [fact for fact in load_world().facts if not fact.person.question_person]
    return [[{"role": "user", "content": fact.question()}] for fact in facts[-count:]]


# --- from labels to verdicts ---


def test_a_certificate_of_labelled_answers_decides_on_new_ones(data, certificate, monitor):
    """The whole way: what was calibrated on records is what the live monitor compares with."""
    assert certificate.conditions.model == "reference"
    assert certificate.conditions.max_new_tokens == TOKENS
    assert certificate.n_units == len(set(data.units.tolist())) or certificate.achieved is not None
    assert monitor.config.max_new_tokens == TOKENS
    analysis = monitor.analyze(questions(1)[0])
    assert analysis.decision.calibrated
    assert analysis.decision.profile == certificate.id
    score = -analysis.signals.sequence_logprob + 0.0
    assert analysis.verdict == ("pass" if score <= certificate.threshold.value else "fail")
    assert analysis.decision.checks[0].lower == score


def test_every_way_of_asking_gives_the_same_verdict(monitor):
    """A stream, a batch and a task must not each have a gate of their own."""
    prompt = questions(1)[0]
    one = monitor.analyze(prompt)
    (batched,) = monitor.analyze_batch([prompt], use_cache=False)
    with monitor.stream(prompt) as stream:
        list(stream)
    later = asyncio.run(monitor.analyze_async(prompt, use_cache=False))
    for other in (batched, stream.analysis, later):
        assert other.decision == one.decision
    assert monitor.analyze(prompt).from_cache
    assert monitor.analyze(prompt).decision == one.decision


def test_events_say_whether_a_verdict_is_calibrated(backend, certificate):
    """A dashboard that mixes promises with guesses shows neither."""
    for gate in (certificate, None):
        hub = EventHub()
        with captured_events(hub) as events:
            HamiltonianMonitor(backend=backend, gate=gate, hub=hub).analyze(
                questions(1)[0], max_new_tokens=TOKENS
            )
            (finished,) = events.of(GenerationFinished)
        assert finished.calibrated is (gate is not None)


@pytest.mark.parametrize("options", [{"temperature": 0.7}, {"max_new_tokens": TOKENS + 1}])
def test_settings_of_one_call_are_refused_before_it_is_made(monitor, options):
    """A call that asks otherwise gets no verdict of this certificate, and costs no generation."""
    prompt = questions(1)[0]
    with pytest.raises(ConfigurationError, match="does not cover"):
        monitor.analyze(prompt, **options)
    with pytest.raises(ConfigurationError, match="does not cover"):
        monitor.stream(prompt, **options)
    with pytest.raises(BatchError, match="does not cover"):
        monitor.analyze_batch([prompt], **options)
    with pytest.raises(ConfigurationError, match="does not cover"):
        asyncio.run(monitor.analyze_async(prompt, **options))
    assert monitor.analyze(prompt, top_p=0.5).decision.calibrated  # greedy: it plays no part


def test_samples_are_refused_where_the_certificate_is_of_greedy_answers(monitor):
    """Samples are of another law than the one that was calibrated."""
    with pytest.raises(ConfigurationError, match="sampling"):
        monitor.analyze_samples(questions(1)[0], 2)


def test_a_given_text_is_refused_unless_somebody_vouches_for_how_it_was_made(backend, certificate):
    """A text of unknown origin read by the right model is not an answer of the right model."""
    prompt = questions(1)[0]
    monitor = HamiltonianMonitor(backend=backend, gate=certificate)
    with pytest.raises(ConfigurationError, match="sampling is not known"):
        monitor.score(prompt, "Rome")
    stated = Conditions(sampling={"temperature": 0.0}, max_new_tokens=TOKENS)
    vouched = HamiltonianMonitor(backend=backend, gate=CalibratedGate(certificate, stated=stated))
    assert vouched.score(prompt, "Rome").decision.calibrated


def test_another_model_or_setting_is_refused_when_the_monitor_is_made(backend, certificate, tmp_path):
    """The mistake has to show at the start of a service, not at its first customer."""
    changed = {
        "model": dataclasses.replace(certificate.conditions, model="another"),
        "backend": dataclasses.replace(certificate.conditions, backend="vllm"),
        "logprobs_mode": dataclasses.replace(certificate.conditions, logprobs_mode="processed"),
        "revision": dataclasses.replace(certificate.conditions, revision="abc"),
        "top_k": dataclasses.replace(certificate.conditions, top_k=5),
    }
    for name, conditions in changed.items():
        other = dataclasses.replace(certificate, conditions=conditions)
        config = TrajectoryConfig(max_new_tokens=TOKENS)
        if name == "revision" and backend.identity.revision is None:
            continue  # told at the first answer, which does not name one
        with pytest.raises(ConfigurationError, match=name):
            HamiltonianMonitor(backend=backend, gate=other, config=config)
    with pytest.raises(ConfigurationError, match="model is 'reference'"):
        HamiltonianMonitor("reference", gate=dataclasses.replace(certificate, conditions=changed["model"]))
    with pytest.raises(ConfigurationError, match="max_new_tokens is 150"):
        HamiltonianMonitor(backend=backend, gate=certificate, config=TrajectoryConfig())


def test_a_model_that_is_loaded_later_is_refused_then(certificate):
    """What only the loaded model tells is compared before the first prompt."""
    other = dataclasses.replace(
        certificate, conditions=dataclasses.replace(certificate.conditions, logprobs_mode="processed")
    )
    monitor = HamiltonianMonitor("reference", gate=other)
    with pytest.raises(ConfigurationError, match="logprobs_mode"):
        monitor.load()


def test_what_only_an_answer_tells_is_refused_at_the_first_one(backend, certificate):
    """No verdict is better than one whose promise does not apply."""
    unnamed = dataclasses.replace(certificate.conditions, revision="abc")
    if backend.identity.revision is not None:
        pytest.skip("the model names a revision")
    monitor = HamiltonianMonitor(backend=backend, gate=dataclasses.replace(certificate, conditions=unnamed))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="revision is not known"):
            monitor.analyze(questions(1)[0])
    waived = CalibratedGate(monitor.gate.certificate, waive=("revision",))  # type: ignore[union-attr]
    analysis = HamiltonianMonitor(backend=backend, gate=waived).analyze(questions(1)[0])
    assert analysis.decision.certificate is not None
    assert analysis.decision.certificate.waived == ("revision",)


def test_what_ran_out_of_time_is_not_passed(backend, certificate):
    """A part of an answer is not the answer that the promise is about."""
    loose = dataclasses.replace(
        certificate, threshold=dataclasses.replace(certificate.threshold, value=float("inf"))
    )
    monitor = HamiltonianMonitor(backend=backend, gate=loose)
    with pytest.raises(GenerationTimeoutError) as raised:
        monitor.analyze(questions(1)[0], timeout=0.004)
    if raised.value.partial is not None:
        assert raised.value.partial.verdict == "not_measured"


def test_a_gate_from_a_file_must_be_whole_and_may_have_to_be_signed(backend, certificate, tmp_path):
    """The file lies where others can write."""
    path = certificate.save(tmp_path / "c.json")
    assert HamiltonianMonitor(backend=backend, gate=path).gate.profile == certificate.id  # type: ignore[union-attr]
    text = path.read_text()
    path.write_text(text.replace('"alpha": 0.2', '"alpha": 0.02'))
    with pytest.raises(InputError, match="damaged or edited"):
        HamiltonianMonitor(backend=backend, gate=path)
    key = make_key_pair(tmp_path / "k.pem", tmp_path / "k.pub.pem")
    signed = certificate.sign(key)
    analysis = HamiltonianMonitor(backend=backend, gate=signed).analyze(questions(1)[0])
    assert analysis.decision.certificate is not None
    assert analysis.decision.certificate.signed_by == signed.signature.public_key.hex()


# --- stored records ---


def test_records_get_the_verdicts_that_the_live_answers_had(answers, data, certificate):
    """Calibrated on these very records, the gate covers each of them."""
    analyses = [whole(record) for record in analyze_stored(answers, gate=certificate)]
    assert len(analyses) == len(data)
    scores = -data.columns["sequence_logprob"]
    for analysis, score in zip(analyses, scores, strict=True):
        assert isinstance(analysis, TrajectoryAnalysis)
        assert analysis.verdict == ("pass" if score <= certificate.threshold.value else "fail")
    verdicts = [v for table in summarise_stored(answers, gate=certificate) for v in table.verdicts]
    assert verdicts == [analysis.verdict for analysis in analyses]


def test_tables_of_generations_agree_with_single_records(answers, certificate, tmp_path):
    """A Parquet file is judged by columns; what it does not cover is an error in the same places."""
    generations = [whole(record).generation for record in analyze_stored(answers)][:12]
    odd: dict[int, Any] = {
        2: {"model": dataclasses.replace(generations[2].model, name="another")},
        3: {"finish_reason": "timeout"},
        4: {"finish_reason": "cancelled", "logprobs_mode": "processed"},
        5: {"sampling": None},
        6: {"logprobs_mode": "processed"},
        7: {"finish_reason": "unknown"},
    }
    path = tmp_path / "g.parquet"
    with GenerationWriter(path) as writer:
        for place, generation in enumerate(generations):
            writer.write(dataclasses.replace(generation, **odd.get(place, {})), key=f"k{place}")
    groups = {f"k{place}": "ab"[place % 2] for place in range(8)}
    by_group = dataclasses.replace(
        certificate,
        threshold=None,
        groups={"a": certificate.threshold, "b": dataclasses.replace(certificate.threshold, value=0.0)},
    )
    for gate, named in ((certificate, None), (by_group, groups), (by_group, "a"), (by_group, None)):
        single = [r.outcome for r in analyze_stored(path, gate=gate, groups=named)]
        (table,) = summarise_stored(path, gate=gate, groups=named)
        assert set(table.errors) == {2, 5, 6, 7}
        for place, outcome in enumerate(single):
            if place in table.errors:
                assert isinstance(outcome, ConfigurationError)
                assert outcome.message == table.errors[place].message
            else:
                assert isinstance(outcome, TrajectoryAnalysis)
                assert table.verdicts[place] == outcome.verdict
        assert table.verdicts[4] == "not_measured"
        if gate is by_group and named == groups:
            assert table.verdicts[9] == "not_measured"  # its key has no group


def test_a_gate_for_other_signals_is_refused_before_a_file_is_read(answers, certificate):
    """What counts as a surprise is a setting here, not of the records."""
    config = TrajectoryConfig(surprise_probability_threshold=0.5)
    for function in (analyze_stored, summarise_stored):
        with pytest.raises(ConfigurationError, match="surprise_probability"):
            function(answers, config, gate=certificate)


def test_without_a_gate_stored_verdicts_are_those_of_before(answers):
    """Fixed thresholds stay what they were."""
    single = [whole(record).verdict for record in analyze_stored(answers)]
    table = [v for part in summarise_stored(answers) for v in part.verdicts]
    assert single == table
    first = json.loads(answers.read_text().splitlines()[0])
    assert single[0] == first["analysis"]["verdict"]


def test_what_was_achieved_is_found_again_by_the_gate(data, certificate):
    """The certificate's own figures, recomputed through the gate that is used."""
    again = Certificate.of_dict(json.loads(json.dumps(certificate.to_dict())))
    gate = CalibratedGate(again)
    passed = gate.verdicts(data.columns) == 3  # the place of 'pass'
    scores = gate.score.column_of(data.columns)
    assert np.array_equal(passed, scores <= again.threshold.value)  # type: ignore[union-attr]
