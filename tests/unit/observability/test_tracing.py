"""Traces: spans with the right times under the right parents, each thing told once."""

from __future__ import annotations

import builtins
import re

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from cert.core.correlation import correlated
from cert.core.errors import ConfigurationError, DependencyMissingError
from cert.core.events import CallFinished, EventHub, GenerationFinished, ModelLoaded, RetryScheduled
from cert.observability.conventions import CONVENTIONS
from cert.observability.metrics import metrics_observer
from cert.observability.tracing import trace_observer


class Telemetry:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def observer(self, **options):
        return trace_observer(self.tracers, self.meters, **options)

    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def points(self):
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: list(metric.data.data_points) for metric in metrics}


@pytest.fixture
def telemetry():
    made = Telemetry()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


GENERATION = GenerationFinished(
    model="reference", verdict="pass", tokens=50, seconds=2.0, stages=(("prefill", 0.5),), at=1000.0
)


def test_a_span_has_the_times_of_the_work_and_its_place(telemetry):
    """A span at the time of its reporting, or without a parent, cannot be read in a trace."""
    hub = EventHub()
    hub.observe(telemetry.observer())
    with telemetry.tracers.get_tracer("app").start_as_current_span("request") as parent, correlated("req-1"):
        hub.emit(CallFinished(operation="judge", outcome="ok", seconds=2.0, attempts=3, at=1000.0))
    assert hub.flush()
    span = telemetry.spans()["cert.call judge"]
    assert (span.start_time, span.end_time) == (998 * 10**9, 1000 * 10**9)
    assert span.parent.span_id == parent.get_span_context().span_id
    assert span.kind is SpanKind.INTERNAL
    assert dict(span.attributes) == {
        "cert.operation": "judge", "cert.outcome": "ok", "cert.attempts": 3, "cert.correlation_id": "req-1",
    }  # fmt: skip


def test_a_failed_call_is_an_error(telemetry):
    """Backends find failures by status and `error.type`."""
    telemetry.observer()(CallFinished(operation="judge", outcome="budget_exceeded", seconds=0, attempts=1))
    span = telemetry.spans()["cert.call judge"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "budget_exceeded"


@pytest.mark.parametrize(
    ("version", "provider", "absent"),
    [("1.36", "gen_ai.system", "gen_ai.provider.name"), ("1.37", "gen_ai.provider.name", "gen_ai.system")],
)
def test_one_switch_decides_all_names(telemetry, version, provider, absent):
    """A backend that knows one version of the conventions must not get a mixture."""
    telemetry.observer(conventions=version)(GENERATION)
    span = telemetry.spans()["chat reference"]
    assert {key: value for key, value in span.attributes.items() if key.startswith("gen_ai")} == {
        "gen_ai.operation.name": "chat",
        provider: "cert",
        "gen_ai.request.model": "reference",
        "gen_ai.usage.output_tokens": 50,
    }
    assert span.instrumentation_scope.schema_url.endswith(f"/{version}.0")
    points = telemetry.points()
    assert set(points) == {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}
    for name, [point] in points.items():
        assert point.attributes[provider] == "cert"
        assert absent not in point.attributes
        assert point.sum == (2.0 if name.endswith("duration") else 50)
        assert ("gen_ai.token.type" in point.attributes) == name.endswith("usage")
    assert points["gen_ai.client.operation.duration"][0].explicit_bounds[-1] == pytest.approx(81.92)


def test_the_names_are_those_of_the_conventions():
    """A typing error in a name would go unseen: no backend complains about an attribute it does not know."""
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI")}
    for names in CONVENTIONS.values():
        used = {names.provider, names.operation, names.request_model, names.output_tokens, names.token_type}
        assert used <= known
        assert names.duration == gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION
        assert names.token_usage == gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE


def test_a_generation_that_somebody_else_tells_is_not_told_twice(telemetry):
    """Two GenAI spans for one generation double the tokens in every bill and dashboard."""
    attributes = {"gen_ai.operation.name": "chat"}
    tracer = telemetry.tracers.get_tracer("vendor")
    with tracer.start_as_current_span("chat reference", attributes=attributes):
        telemetry.observer()(GENERATION)
    own = telemetry.spans()["cert.watch reference"]
    assert not any(key.startswith("gen_ai") for key in own.attributes)
    assert own.attributes["cert.verdict"] == "pass"
    assert telemetry.points() == {}


def test_asking_twice_gives_the_same_observer(telemetry):
    """Two monitors in one process that both set up tracing must not make each span twice."""
    assert telemetry.observer() is telemetry.observer()
    assert telemetry.observer() is not Telemetry().observer()


def test_no_content_and_no_span_without_duration(telemetry):
    """A trace goes to a third party: it holds names and numbers only."""
    observe = telemetry.observer()
    observe(GENERATION)
    observe(ModelLoaded(model="reference", device="cpu", seconds=1.0, bytes_used=None))
    observe(RetryScheduled(operation="judge", attempt=1, wait_seconds=1.0, error="upstream"))
    assert set(telemetry.spans()) == {"chat reference", "cert.load reference"}
    keys = {key for span in telemetry.spans().values() for key in span.attributes}
    assert not {key for key in keys if re.search(r"prompt|message|content|completion|instructions", key)}
    assert telemetry.spans()["chat reference"].attributes["cert.stage.prefill.seconds"] == 0.5


def test_a_histogram_shows_the_trace_of_an_example(telemetry):
    """From a slow bucket on a dashboard one clicks to a trace that was slow."""
    registry, hub = CollectorRegistry(), EventHub()
    hub.observe(metrics_observer(registry))
    with telemetry.tracers.get_tracer("app").start_as_current_span("request") as span:
        hub.emit(CallFinished(operation="traced", outcome="ok", seconds=0.2, attempts=1))
    with (
        TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("app").start_as_current_span("request")
    ):
        hub.emit(CallFinished(operation="unsampled", outcome="ok", seconds=0.2, attempts=1))
    hub.emit(CallFinished(operation="plain", outcome="ok", seconds=0.2, attempts=1))
    assert hub.flush()
    lines = openmetrics(registry).decode().splitlines()
    marked = [line for line in lines if f'trace_id="{span.get_span_context().trace_id:032x}"' in line]
    assert len(marked) == 1
    assert 'operation="traced"' in marked[0]
    assert len([line for line in lines if "trace_id" in line]) == 1, "a trace that nobody kept is no example"


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    """`No module named opentelemetry` does not say what to install."""
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("opentelemetry"):
            raise ImportError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyMissingError) as caught:
        trace_observer()
    assert "[otel]" in (caught.value.hint or "")


def test_an_unknown_version_is_refused(telemetry):
    """A typing error in the switch must not fall back to some version in silence."""
    with pytest.raises(ConfigurationError, match=re.escape("1.99")):
        telemetry.observer(conventions="1.99")
