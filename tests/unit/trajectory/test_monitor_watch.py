"""A monitor with a gate watches the promise by itself, and no verdict hides that it is void."""

import asyncio
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cert.core.errors import ConfigurationError, InputError  # noqa: E402
from cert.core.events import EventHub, GateStanding  # noqa: E402
from cert.testing import captured_events  # noqa: E402
from cert.trajectory import HamiltonianMonitor  # noqa: E402
from cert.trajectory.calibration.watch import GateWatch  # noqa: E402

PROMPT = "The birth city of"


@pytest.fixture(scope="module")
def backend():
    with HamiltonianMonitor() as monitor, monitor.resource.acquire() as backend:
        yield backend


@pytest.fixture
def monitor(backend, gate_at):
    return HamiltonianMonitor(backend=backend, gate=gate_at(1e6, goal="false-flags"), hub=EventHub())


def refute(monitor):
    """Report right answers that were flagged until the promise is void."""
    for _ in range(100):
        monitor.report_label(1e9, True)
        if monitor.gate_watch.void:
            return
    raise AssertionError("the promise stands")


def test_each_live_answer_is_seen_once_however_it_is_asked_for(monitor):
    """A watch that somebody has to feed by hand is not fed."""

    def seen():
        return monitor.gate_watch.status.seen

    monitor.analyze(PROMPT)
    monitor.analyze(PROMPT)  # from the cache: no new answer
    assert seen() == 1
    asyncio.run(monitor.analyze_async(PROMPT + " A"))
    monitor.analyze_batch([PROMPT + " B", PROMPT + " C"])
    with monitor.stream(PROMPT + " D") as stream:
        list(stream)
    assert seen() == 5
    assert monitor.gate_watch.status.not_measured == 0


def test_answers_that_depend_on_each_other_or_on_nobody_are_not_watched(backend, labelled):
    """Ten samples of one question are no ten answers."""
    from cert.trajectory.calibration.calibrate import calibrate

    gate = calibrate(labelled([5.0] * 60), goal="false-flags", alpha=0.05)
    monitor: Any = HamiltonianMonitor(backend=backend, gate=gate, hub=EventHub())
    monitor.analyze_samples(PROMPT, 3, seed=1, max_new_tokens=4)
    asyncio.run(monitor.analyze_samples_async(PROMPT, 2, seed=5, max_new_tokens=4))
    assert monitor.gate_watch.status.seen == 0


def test_no_verdict_reads_as_of_a_promise_that_is_void(monitor):
    """An auditor must not take a void promise for a kept one, in fresh, kept, streamed or batched answers."""
    before = monitor.analyze(PROMPT)
    assert (before.verdict, before.decision.calibrated) == ("pass", True)
    refute(monitor)
    with monitor.stream(PROMPT) as stream:
        list(stream)
    after = [
        monitor.analyze(PROMPT), monitor.analyze(PROMPT + " A"), stream.analysis,
        asyncio.run(monitor.analyze_async(PROMPT)), *monitor.analyze_batch([PROMPT, PROMPT + " B"]),
    ]  # fmt: skip
    assert after[0].from_cache
    for analysis in after:
        decision: Any = analysis.decision
        assert (decision.verdict, decision.calibrated) == ("pass", False)
        assert decision.reasons[0] == decision.certificate.void == monitor.gate_watch.void
        assert "is void" in decision.reasons[0]
        gate = analysis.to_dict()["gate"]
        assert (gate["calibrated"], gate["certificate"]["void"]) == (False, monitor.gate_watch.void)
    assert before.decision.calibrated  # what was said stays as it was said


def test_health_says_what_is_in_doubt_and_answers_go_on(monitor):
    """A shift is looked at by somebody; it takes no replica out of service."""
    monitor.load()
    assert [check.name for check in monitor.health_check().checks] == ["model", "inference", "gate"]
    assert monitor.health_check().status == "healthy"
    while monitor.gate_watch.status.shifted_at is None:
        monitor.gate_watch.observe(1e9)
    assert (monitor.health_check().status, monitor.health_check().ready) == ("degraded", True)
    refute(monitor)
    report = monitor.health_check()
    assert (report.status, report.ready, report.checks[-1].code) == ("degraded", True, "promise_void")


def test_labels_come_with_the_analysis_or_with_its_score(monitor):
    """The label of an answer comes days later, when the score is all that was kept."""
    analysis = monitor.analyze(PROMPT)
    monitor.report_label(analysis, True)
    monitor.report_label(monitor.gate.score.of(analysis.signals), True)
    assert monitor.gate_watch.status.risks[0].counted == 2
    with pytest.raises(InputError):
        monitor.report_label(analysis, 1)


def test_a_watch_goes_on_where_the_last_process_ended(backend, gate_at, tmp_path):
    """Void must not become sound by a restart; metrics learn it at once."""
    gate = gate_at(1e6, goal="false-flags")
    first: Any = HamiltonianMonitor(backend=backend, gate=gate, hub=EventHub())
    refute(first)
    file, hub = first.gate_watch.save(tmp_path / "watch.json"), EventHub()
    with captured_events(hub) as events:
        watch = GateWatch.load(gate, file, hub=hub)
        again = HamiltonianMonitor(backend=backend, gate=gate, gate_watch=watch, hub=hub)
        assert not again.analyze(PROMPT).decision.calibrated
    assert [(e.shifted, e.void) for e in events.of(GateStanding)] == [(False, True)]
    other = gate_at(2e6, goal="false-flags")
    for wrong in ({"gate": other, "gate_watch": watch}, {"gate_watch": watch}):
        with pytest.raises(ConfigurationError):
            HamiltonianMonitor(backend=backend, **wrong)


def test_without_a_gate_there_is_nothing_to_watch(backend):
    """Labels that go nowhere would seem to be counted."""
    monitor = HamiltonianMonitor(backend=backend)
    assert monitor.gate_watch is None
    with pytest.raises(ConfigurationError, match="no promise"):
        monitor.report_label(1.0, True)
