"""What Prometheus reads: right numbers, few series, no collisions."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from cert.core.errors import CertError, ConfigurationError
from cert.core.events import (
    BudgetBegun,
    BudgetRefused,
    BudgetSettled,
    CallFinished,
    CircuitChanged,
    ComponentDegraded,
    CoordinationMeasured,
    DriftFound,
    DriftStanding,
    Event,
    EventHub,
    GateShifted,
    GateStanding,
    GenerationFinished,
    HealthChanged,
    JudgementFinished,
    ModelLoaded,
    ModelUnloaded,
    PromiseVoid,
    RateLimitWaited,
    RetryScheduled,
)
from cert.observability.catalogue import CATALOGUE, LABELS
from cert.observability.labels import OTHER, Open
from cert.observability.losses import count_lost_line, lost_lines
from cert.observability.metrics import metrics_observer, start_metrics_server

ROOT = Path(__file__).parents[3]

EVENTS: list[Event] = [
    CallFinished(operation="judge", outcome="ok", seconds=0.2, attempts=3),
    CallFinished(operation="judge", outcome="upstream_timeout", seconds=0.3, attempts=2),
    RetryScheduled(operation="judge", attempt=1, wait_seconds=0.5, error="upstream_timeout"),
    CircuitChanged(circuit="judge", before="closed", after="open"),
    RateLimitWaited(limit="requests", seconds=0.1),
    BudgetSettled(
        budget="hourly",
        micro_dollars=2_500_000,
        spent_micro_dollars=3_000_000,
        limit_micro_dollars=10_000_000,
    ),
    BudgetRefused(budget="hourly", micro_dollars=9),
    BudgetBegun(budget="hourly"),
    ModelLoaded(model="reference", device="cpu", seconds=1.5, bytes_used=1000),
    ModelLoaded(model="reference", device="cpu", seconds=1.5, bytes_used=500),
    ModelUnloaded(model="reference"),
    GenerationFinished(
        model="reference", verdict="pass", tokens=50, seconds=2.0, stages=(("prefill", 0.5), ("decode", 1.5))
    ),
    CoordinationMeasured(
        system="debate",
        verdict="not_worth_it",
        tasks=40,
        missing=2,
        gamma_budget=0.9,
        team_micro_dollars=1_500_000,
        single_micro_dollars=1_000_000,
        judge_micro_dollars=250_000,
        seconds=12.0,
    ),
    JudgementFinished(evaluator="QualityEvaluator", outcome="ok"),
    JudgementFinished(evaluator="QualityEvaluator", outcome="prose"),
    DriftFound(system="debate", family="arithmetic", kind="unclear"),
    DriftFound(system="debate", family="arithmetic", kind="judge"),
    DriftStanding(system="debate", kind="unclear", alarms=1),
    DriftStanding(system="debate", kind="unclear", alarms=0),
    DriftStanding(system="debate", kind="judge", alarms=1),
    GateShifted(goal="misses", certificate="0123456789ab", seen=70),
    GateStanding(goal="misses", certificate="0123456789ab", shifted=True, void=False),
    PromiseVoid(goal="misses", certificate="0123456789ab", alpha=0.05, bound=0.06, labels=300),
    GateStanding(goal="misses", certificate="0123456789ab", shifted=False, void=True),
    HealthChanged(component="redis", before="healthy", after="unhealthy"),
    ComponentDegraded(component="budget", mode="fail_closed", active=True),
]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def feed(registry: CollectorRegistry, *events: Event) -> None:
    observe = metrics_observer(registry)
    for event in events:
        observe(event)


EXPECTED = [
    ("cert_calls_total", {"operation": "judge", "outcome": "ok"}, 1),
    ("cert_calls_total", {"operation": "judge", "outcome": "upstream_timeout"}, 1),
    ("cert_call_duration_seconds_sum", {"operation": "judge"}, 0.5),
    ("cert_call_duration_seconds_count", {"operation": "judge"}, 2),
    ("cert_call_attempts_total", {"operation": "judge"}, 5),
    ("cert_retries_total", {"operation": "judge", "error": "upstream_timeout"}, 1),
    ("cert_retry_wait_seconds_total", {"operation": "judge"}, 0.5),
    ("cert_circuit_state", {"circuit": "judge", "state": "open"}, 1),
    ("cert_circuit_state", {"circuit": "judge", "state": "closed"}, 0),
    ("cert_circuit_state", {"circuit": "judge", "state": "half_open"}, 0),
    ("cert_circuit_transitions_total", {"circuit": "judge", "state": "open"}, 1),
    ("cert_rate_limit_wait_seconds_sum", {"limit": "requests"}, 0.1),
    ("cert_budget_settled_dollars_total", {"budget": "hourly"}, 2.5),
    ("cert_budget_spent_dollars", {"budget": "hourly"}, 3.0),
    ("cert_budget_limit_dollars", {"budget": "hourly"}, 10.0),
    ("cert_budget_refused_total", {"budget": "hourly"}, 1),
    ("cert_budget_begun_total", {"budget": "hourly"}, 1),
    ("cert_models_loaded", {"model": "reference"}, 1),
    ("cert_model_memory_bytes", {"model": "reference", "device": "cpu"}, 500),
    ("cert_model_load_duration_seconds_count", {"model": "reference"}, 2),
    ("cert_generations_total", {"model": "reference", "verdict": "pass"}, 1),
    ("cert_generated_tokens_total", {"model": "reference"}, 50),
    ("cert_generation_duration_seconds_sum", {"model": "reference"}, 2.0),
    ("cert_generation_tokens_per_second_sum", {"model": "reference"}, 25.0),
    ("cert_stage_duration_seconds_sum", {"stage": "decode"}, 1.5),
    ("cert_coordination_measurements_total", {"system": "debate", "finding": "not_worth_it"}, 1),
    ("cert_coordination_tasks_total", {"system": "debate"}, 40),
    ("cert_coordination_tasks_missing_total", {"system": "debate"}, 2),
    ("cert_coordination_gamma_budget", {"system": "debate"}, 0.9),
    ("cert_coordination_cost_dollars_total", {"system": "debate", "arm": "team"}, 1.5),
    ("cert_coordination_cost_dollars_total", {"system": "debate", "arm": "judge"}, 0.25),
    ("cert_coordination_duration_seconds_sum", {"system": "debate"}, 12.0),
    ("cert_judgements_total", {"evaluator": "QualityEvaluator", "judged": "ok"}, 1),
    ("cert_judgements_total", {"evaluator": "QualityEvaluator", "judged": "missing"}, 1),
    ("cert_drift_alarms_total", {"system": "debate", "kind": "judge"}, 1),
    ("cert_drift_alarms_standing", {"system": "debate", "kind": "unclear"}, 0),
    ("cert_drift_alarms_standing", {"system": "debate", "kind": "judge"}, 1),
    ("cert_gate_shifts_total", {"goal": "misses"}, 1),
    ("cert_gate_promises_void_total", {"goal": "misses"}, 1),
    ("cert_gate_state", {"certificate": "0123456789ab", "gate_state": "shifted"}, 0),
    ("cert_gate_state", {"certificate": "0123456789ab", "gate_state": "void"}, 1),
    ("cert_health_state", {"component": "redis", "health": "unhealthy"}, 1),
    ("cert_health_state", {"component": "redis", "health": "healthy"}, 0),
    ("cert_health_changes_total", {"component": "redis", "health": "unhealthy"}, 1),
    ("cert_component_degraded", {"component": "budget", "mode": "fail_closed"}, 1),
    ("cert_degradations_total", {"component": "budget", "mode": "fail_closed"}, 1),
    ("cert_events_total", {"event": "call_finished"}, 2),
]


@pytest.mark.parametrize(("name", "labels", "value"), EXPECTED)
def test_an_event_becomes_the_number_that_it_says(registry, name, labels, value):
    """An alert that watches a wrong number is worse than none."""
    feed(registry, *EVENTS)
    assert registry.get_sample_value(name, labels) == pytest.approx(value)


def test_states_follow_the_last_event(registry):
    """A gauge that stays on `open` or `degraded` after recovery calls somebody at night for nothing."""
    feed(
        registry,
        *EVENTS,
        CircuitChanged(circuit="judge", before="open", after="half_open"),
        ComponentDegraded(component="budget", mode="fail_closed", active=False),
        HealthChanged(component="redis", before="unhealthy", after="healthy"),
        ModelUnloaded(model="reference"),
        ModelUnloaded(model="reference"),
    )
    value = registry.get_sample_value
    assert value("cert_circuit_state", {"circuit": "judge", "state": "open"}) == 0
    assert value("cert_circuit_state", {"circuit": "judge", "state": "half_open"}) == 1
    assert value("cert_component_degraded", {"component": "budget", "mode": "fail_closed"}) == 0
    assert value("cert_health_state", {"component": "redis", "health": "healthy"}) == 1
    assert value("cert_models_loaded", {"model": "reference"}) == 0
    assert value("cert_model_memory_bytes", {"model": "reference", "device": "cpu"}) == 0


def test_names_and_units_are_as_prometheus_asks():
    """Dashboards and rules are written against the conventions: base units, `_total` for counters."""
    assert len(CATALOGUE) >= 20
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert re.fullmatch(r"cert_[a-z][a-z0-9_]*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not re.search(r"_(ms|millis|micro|kb|mb|percent|minutes)(_|$)", metric.name)
        assert set(metric.labels) <= set(LABELS)
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert bool(metric.buckets) == (metric.kind == "histogram")


def test_the_catalogue_is_what_is_exposed(registry):
    """A metric that is documented and absent, or there and not documented, misleads who writes an alert."""
    metrics_observer(registry, hub=EventHub())
    feed(registry, *EVENTS)
    families = list(text_string_to_metric_families(openmetrics(registry).decode()))
    shown = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert shown == {metric.name for metric in CATALOGUE}
    assert all(family.documentation for family in families)


def test_two_monitors_in_one_process_do_not_collide(registry):
    """The second monitor must not fail on the names of the first; the global registry stays clean."""
    first, second = metrics_observer(registry), metrics_observer(registry)
    assert first == second
    other = CollectorRegistry()
    metrics_observer(other)
    feed(registry, *EVENTS)
    assert other.get_sample_value("cert_events_total", {"event": "call_finished"}) is None
    assert not any(name.startswith("cert_") for name in REGISTRY._names_to_collectors)


def test_label_values_stay_few_under_attack(registry):
    """Ids of agents, texts of tasks or a buggy caller must not make a million time series."""
    feed(registry, *EVENTS)
    for number in range(300):
        junk = f"agent-{number}"
        feed(
            registry,
            CallFinished(operation=junk, outcome=junk, seconds=1, attempts=1),
            RetryScheduled(operation=junk, attempt=1, wait_seconds=1, error=junk),
            CircuitChanged(circuit=junk, before=junk, after=junk),
            RateLimitWaited(limit=junk, seconds=1),
            BudgetRefused(budget=junk, micro_dollars=1),
            ModelLoaded(model=junk, device=junk, seconds=1, bytes_used=1),
            GenerationFinished(model=junk, verdict=junk, tokens=1, seconds=1, stages=((junk, 1.0),)),
            HealthChanged(component=junk, before=junk, after=junk),
            ComponentDegraded(component=junk, mode=junk, active=True),
        )
    for family in registry.collect():
        for label in LABELS:
            values = {sample.labels[label] for sample in family.samples if label in sample.labels}
            bound = LABELS[label][1]
            most = bound if isinstance(bound, int) else len(bound) + 60
            assert len(values) <= most + 1, (family.name, label)
            if isinstance(bound, tuple):
                assert not any(value.startswith("agent-") for value in values)


@given(st.text(st.characters(codec=None)))
def test_what_is_no_name_is_no_label_value(text):
    """The text of a task, a path or an override must not become a series."""
    value = Open(32)(text)
    assert value == OTHER or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}", text)
    assert Open(32)("What is the capital of France?") == OTHER
    assert Open(32)("/srv/models/model") == OTHER
    assert Open(32)("org/model-7b:latest") == "org/model-7b:latest"


def test_every_error_code_is_an_outcome(registry):
    """An outcome that folds into `other` hides which error the calls end with."""
    codes = {kind.code for kind in CertError.__subclasses__()}
    feed(registry, *(CallFinished(operation="x", outcome=code, seconds=1, attempts=1) for code in codes))
    for code in codes:
        assert registry.get_sample_value("cert_calls_total", {"operation": "x", "outcome": code}) == 1


def test_what_the_observers_lose_is_shown(registry):
    """Numbers that are too low must say so."""
    hub = EventHub()
    metrics_observer(registry, hub=hub)
    metrics_observer(registry, hub=hub)
    hub.lost, hub.failures = 3, 2
    count_lost_line()
    assert registry.get_sample_value("cert_events_lost_total") == 3
    assert registry.get_sample_value("cert_observer_failures_total") == 2
    assert registry.get_sample_value("cert_log_lines_lost_total") == lost_lines()


def test_odd_numbers_do_not_break_the_observer(registry):
    """A clock that jumped back or a generation of no time must not end in an exception."""
    feed(
        registry,
        CallFinished(operation="x", outcome="ok", seconds=-1.0, attempts=0),
        RetryScheduled(operation="x", attempt=1, wait_seconds=-1.0, error="input"),
        GenerationFinished(model="m", verdict="not_measured", tokens=0, seconds=0.0),
        ModelLoaded(model="m", device="cpu", seconds=0.0, bytes_used=None),
        BudgetSettled(budget="b", micro_dollars=0, spent_micro_dollars=0, limit_micro_dollars=None),
        ModelUnloaded(model="never loaded"),
    )
    assert registry.get_sample_value("cert_call_duration_seconds_sum", {"operation": "x"}) == 0, (
        "sums never fall"
    )
    assert registry.get_sample_value("cert_retry_wait_seconds_total", {"operation": "x"}) == 0
    assert registry.get_sample_value("cert_budget_limit_dollars", {"budget": "b"}) is None
    assert registry.get_sample_value("cert_generation_tokens_per_second_count", {"model": "m"}) is None


@pytest.fixture
def url(registry: CollectorRegistry) -> Iterator[str]:
    feed(registry, *EVENTS)
    with start_metrics_server(registry, port=0) as server:
        yield f"http://127.0.0.1:{server.port}/metrics"


def test_the_port_serves_both_formats(url):
    """Prometheus asks for OpenMetrics when exemplars are on, and a person with curl for text."""
    with urllib.request.urlopen(url) as answer:
        assert b'cert_calls_total{operation="judge",outcome="ok"} 1.0' in answer.read()
    asked = urllib.request.Request(url, headers={"Accept": CONTENT_TYPE_LATEST})
    with urllib.request.urlopen(asked) as answer:
        assert answer.read().endswith(b"# EOF\n")


def test_a_port_in_use_is_said_clearly(registry):
    """A stack trace from a server thread does not tell an operator which setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=str(port)) as caught:
            start_metrics_server(registry, port=port)
    assert "CERT_METRICS_PORT" in (caught.value.hint or "")


@pytest.mark.parametrize("port", [-1, 65536, True, "9090"])
def test_what_is_no_port_is_refused(registry, port):
    """`OverflowError: bind()` names no setting."""
    with pytest.raises(ConfigurationError, match=re.escape(repr(port))):
        start_metrics_server(registry, port=port)


def test_closing_frees_the_port(registry):
    """A service that restarts in the same process needs its port again."""
    server = start_metrics_server(registry, port=0)
    server.close()
    server.close()
    start_metrics_server(registry, port=server.port).close()


def test_the_page_of_metrics_is_up_to_date():
    """A metric that the page does not know cannot be found; one that is gone misleads."""
    script = [sys.executable, str(ROOT / "scripts/metrics_reference.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
