"""Spans and metrics of OpenTelemetry, made from the core's events.

An event comes when its work is over, so a span is made whole: it ends at the event's time and began the
event's seconds before, under the span that was active where the event was emitted.

Nothing is told twice. Requests to a service have their span from FastAPI's instrumentation, and calls of a
vendor have theirs from the vendor's; ours are of kind *internal*. A generation takes the GenAI names only
where no GenAI span is active already. No span holds a prompt or an output: events have none.

Which exporter, which sampling and which provider is the program's affair (``OTEL_…``).
"""

from __future__ import annotations

import weakref
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any

from cert import __version__
from cert.core.errors import ConfigurationError, DependencyMissingError
from cert.core.events import CallFinished, Event, GenerationFinished, ModelLoaded, Observer
from cert.observability.conventions import CONVENTIONS, Conventions, Version

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["trace_observer"]

_made: weakref.WeakKeyDictionary[Any, dict[tuple[Any, ...], Observer]] = weakref.WeakKeyDictionary()


def trace_observer(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    conventions: Version = "1.37",
    operation: str = "chat",
    provider: str = "cert",
) -> Observer:
    """Return an observer for `EventHub.observe` that makes spans and GenAI metrics.

    Asked again for the same providers it returns the same observer.

    Args:
        tracer_provider: the program's; by default the one that it made global.
        meter_provider: the same for metrics.
        conventions: version of the GenAI conventions whose names are used.
        operation: what a generation is called: ``chat``, ``text_completion`` or ``generate_content``.
        provider: who generates, as the conventions name it.

    Raises:
        DependencyMissingError: OpenTelemetry is not installed.
        ConfigurationError: an unknown version.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        raise DependencyMissingError(
            "traces need the package 'opentelemetry-api'", hint="pip install 'cert-framework[otel]'"
        ) from error
    if conventions not in CONVENTIONS:
        raise ConfigurationError(
            f"{conventions!r} is no known version of the GenAI conventions",
            hint=f"one of: {', '.join(CONVENTIONS)}",
        )
    tracers = tracer_provider or trace.get_tracer_provider()
    meters = meter_provider or metrics.get_meter_provider()
    known = _made.setdefault(tracers, {})
    key = (id(meters), conventions, operation, provider)
    if key not in known:
        names = CONVENTIONS[conventions]
        tracer = tracers.get_tracer("cert", __version__, schema_url=names.schema_url)
        meter = meters.get_meter("cert", __version__, schema_url=names.schema_url)
        known[key] = _Spans(tracer, meter, names, operation, provider).observe
    return known[key]


class _Spans:
    def __init__(self, tracer: Any, meter: Any, names: Conventions, operation: str, provider: str) -> None:
        self._tracer = tracer
        self._names = names
        self._common = {names.operation: operation, names.provider: provider}
        self._operation = operation
        self._duration = meter.create_histogram(
            names.duration,
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=list(names.duration_bounds),
        )
        self._tokens = meter.create_histogram(
            names.token_usage,
            unit="{token}",
            description="Number of output tokens used.",
            explicit_bucket_boundaries_advisory=list(names.token_bounds),
        )

    @singledispatchmethod
    def observe(self, event: Event) -> None:
        """Make the event's span, if it has one."""

    @observe.register
    def _(self, event: CallFinished) -> None:
        attributes = {
            "cert.operation": event.operation,
            "cert.outcome": event.outcome,
            "cert.attempts": event.attempts,
        }
        error = None if event.outcome == "ok" else event.outcome
        self._span(f"cert.call {event.operation}", event, event.seconds, attributes, error)

    @observe.register
    def _(self, event: ModelLoaded) -> None:
        attributes: dict[str, Any] = {"cert.model": event.model, "cert.device": event.device}
        if event.bytes_used is not None:
            attributes["cert.model.bytes"] = event.bytes_used
        self._span(f"cert.load {event.model}", event, event.seconds, attributes)

    @observe.register
    def _(self, event: GenerationFinished) -> None:
        if event.cached:  # nothing was generated
            return
        own: dict[str, Any] = {"cert.verdict": event.verdict, "cert.calibrated": event.calibrated}
        own |= {f"cert.stage.{stage}.seconds": seconds for stage, seconds in event.stages}
        if self._told_already():
            self._span(f"cert.watch {event.model}", event, event.seconds, own)
            return
        shared = {**self._common, self._names.request_model: event.model}
        whole = {**shared, self._names.output_tokens: event.tokens, **own}
        self._span(f"{self._operation} {event.model}", event, event.seconds, whole)
        self._duration.record(event.seconds, shared)
        self._tokens.record(event.tokens, {**shared, self._names.token_type: "output"})

    def _span(
        self, name: str, event: Event, seconds: float, attributes: dict[str, Any], error: str | None = None
    ) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        if event.correlation_id is not None:
            attributes = {**attributes, "cert.correlation_id": event.correlation_id}
        end = int(event.at * 1e9)
        start = end - int(max(0.0, seconds) * 1e9)
        span = self._tracer.start_span(name, kind=SpanKind.INTERNAL, attributes=attributes, start_time=start)
        if error is not None:
            span.set_attribute(self._names.error_type, error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=end)

    def _told_already(self) -> bool:
        from opentelemetry.trace import get_current_span

        active = getattr(get_current_span(), "attributes", None) or {}
        return self._names.operation in active
