"""Metrics for Prometheus, fed by the core's events; the list of all is in `cert.observability.catalogue`.

Nothing here touches the library's global registry: two monitors in one process use one registry, and then
share its metrics, or one each.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from functools import singledispatchmethod
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from cert.core.events import (
    BudgetBegun,
    BudgetRefused,
    BudgetSettled,
    CacheAsked,
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
    Observer,
    OutOfMemoryMet,
    PromiseVoid,
    RateLimitWaited,
    RetryScheduled,
)
from cert.observability.catalogue import CATALOGUE, LABELS, Metric
from cert.observability.collectors import OwnCollector
from cert.observability.exposition import MetricsServer, start_metrics_server
from cert.observability.labels import Fixed, Open, error_codes

__all__ = ["MetricsServer", "metrics_observer", "start_metrics_server"]

Instrument: TypeAlias = Counter | Gauge | Histogram

_KINDS: dict[str, type[Instrument]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
_made: weakref.WeakKeyDictionary[CollectorRegistry, _Metrics] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def metrics_observer(registry: CollectorRegistry, *, hub: EventHub | None = None) -> Observer:
    """Return the observer for `EventHub.observe` that keeps a registry's metrics.

    Asked again for the same registry it returns the same observer: its metrics are shared, not registered
    twice.

    Args:
        registry: where the metrics are registered; required, so that nothing is global by accident.
        hub: the hub whose lost events and failed observers are shown; once for each hub that is observed.
    """
    with _making:
        metrics = _made.get(registry)
        if metrics is None:
            metrics = _made[registry] = _Metrics(registry)
    if hub is not None:
        metrics.own.watch(hub)
    return metrics.observe


class _Metrics:
    """One registry's instruments, and what each event does to them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.own = OwnCollector()
        self._guards = {label: _guard(label) for label in LABELS}
        self._instruments = {metric.name: _make(metric) for metric in CATALOGUE if not metric.collected}
        for instrument in self._instruments.values():
            registry.register(instrument)
        registry.register(self.own)
        ProcessCollector(namespace="cert", registry=registry)
        # Bytes of each loaded copy: the event of its unloading does not say them.
        self._memory: defaultdict[str, deque[tuple[str, int]]] = defaultdict(deque)
        self._handlers: dict[type[Event], Callable[[_Metrics, Event], None]] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        self.observe = self._observe  # one bound method, so that asking twice gives the same observer

    def _observe(self, event: Event) -> None:
        self._counter("cert_events_total", event=event.name).inc()
        handle = self._handlers.get(type(event))
        if handle is None:
            handle = self._handlers[type(event)] = vars(_Metrics)["_handle"].dispatcher.dispatch(type(event))
        handle(self, event)

    @singledispatchmethod
    def _handle(self, event: Event) -> None:
        """Do nothing more for events that have no metric of their own."""

    @_handle.register
    def _(self, event: CallFinished) -> None:
        self._counter("cert_calls_total", operation=event.operation, outcome=event.outcome).inc()
        self._counter("cert_call_attempts_total", operation=event.operation).inc(event.attempts)
        self._measure("cert_call_duration_seconds", event.seconds, operation=event.operation)

    @_handle.register
    def _(self, event: RetryScheduled) -> None:
        self._counter("cert_retries_total", operation=event.operation, error=event.error).inc()
        waited = self._counter("cert_retry_wait_seconds_total", operation=event.operation)
        waited.inc(max(0.0, event.wait_seconds))

    @_handle.register
    def _(self, event: CircuitChanged) -> None:
        self._state("cert_circuit_state", "state", event.after, circuit=event.circuit)
        self._counter("cert_circuit_transitions_total", circuit=event.circuit, state=event.after).inc()

    @_handle.register
    def _(self, event: RateLimitWaited) -> None:
        self._measure("cert_rate_limit_wait_seconds", event.seconds, limit=event.limit)

    @_handle.register
    def _(self, event: BudgetSettled) -> None:
        settled = self._counter("cert_budget_settled_dollars_total", budget=event.budget)
        settled.inc(event.micro_dollars / 1e6)
        self._gauge("cert_budget_spent_dollars", budget=event.budget).set(event.spent_micro_dollars / 1e6)
        if event.limit_micro_dollars is not None:
            limit = self._gauge("cert_budget_limit_dollars", budget=event.budget)
            limit.set(event.limit_micro_dollars / 1e6)

    @_handle.register
    def _(self, event: BudgetBegun) -> None:
        self._counter("cert_budget_begun_total", budget=event.budget).inc()

    @_handle.register
    def _(self, event: BudgetRefused) -> None:
        self._counter("cert_budget_refused_total", budget=event.budget).inc()

    @_handle.register
    def _(self, event: ModelLoaded) -> None:
        model = self._guards["model"](event.model)
        self._memory[model].append((event.device, event.bytes_used or 0))
        self._gauge("cert_models_loaded", model=model).inc()
        self._measure("cert_model_load_duration_seconds", event.seconds, model=model)
        if event.bytes_used is not None:
            used = self._gauge("cert_model_memory_bytes", model=model, device=event.device)
            used.inc(event.bytes_used)

    @_handle.register
    def _(self, event: ModelUnloaded) -> None:
        model = self._guards["model"](event.model)
        if self._memory[model]:  # else the event of its loading was lost or came before the metrics
            device, bytes_used = self._memory[model].popleft()
            self._gauge("cert_models_loaded", model=model).dec()
            self._gauge("cert_model_memory_bytes", model=model, device=device).dec(bytes_used)

    @_handle.register
    def _(self, event: OutOfMemoryMet) -> None:
        out_of_memory = self._counter(
            "cert_out_of_memory_total", model=event.model, device=event.device, action=event.action
        )
        out_of_memory.inc()

    @_handle.register
    def _(self, event: CacheAsked) -> None:
        self._counter("cert_cache_requests_total", cache=event.cache, lookup=event.outcome).inc()

    @_handle.register
    def _(self, event: GenerationFinished) -> None:
        if event.cached:  # nothing was generated
            return
        self._counter("cert_generations_total", model=event.model, verdict=event.verdict).inc()
        self._counter("cert_generated_tokens_total", model=event.model).inc(event.tokens)
        self._measure("cert_generation_duration_seconds", event.seconds, model=event.model)
        if event.seconds > 0 and event.tokens > 0:
            speed = event.tokens / event.seconds
            self._measure("cert_generation_tokens_per_second", speed, model=event.model)
        for stage, seconds in event.stages:
            self._measure("cert_stage_duration_seconds", seconds, stage=stage)

    @_handle.register
    def _(self, event: CoordinationMeasured) -> None:
        system = self._guards["system"](event.system)
        self._counter("cert_coordination_measurements_total", system=system, finding=event.verdict).inc()
        self._counter("cert_coordination_tasks_total", system=system).inc(event.tasks)
        self._counter("cert_coordination_tasks_missing_total", system=system).inc(event.missing)
        if event.gamma_budget is not None:
            self._gauge("cert_coordination_gamma_budget", system=system).set(event.gamma_budget)
        costs = (
            ("team", event.team_micro_dollars),
            ("single", event.single_micro_dollars),
            ("judge", event.judge_micro_dollars),
        )
        for arm, cost in costs:
            spent = self._counter("cert_coordination_cost_dollars_total", system=system, arm=arm)
            spent.inc(cost / 1e6)
        self._measure("cert_coordination_duration_seconds", event.seconds, system=system)

    @_handle.register
    def _(self, event: JudgementFinished) -> None:
        evaluator = self._guards["evaluator"](event.evaluator)
        judged = "ok" if event.outcome == "ok" else "missing"
        self._counter("cert_judgements_total", evaluator=evaluator, judged=judged).inc()

    @_handle.register
    def _(self, event: DriftFound) -> None:
        self._counter("cert_drift_alarms_total", system=event.system, kind=event.kind).inc()

    @_handle.register
    def _(self, event: DriftStanding) -> None:
        self._gauge("cert_drift_alarms_standing", system=event.system, kind=event.kind).set(event.alarms)

    @_handle.register
    def _(self, event: GateShifted) -> None:
        self._counter("cert_gate_shifts_total", goal=event.goal).inc()

    @_handle.register
    def _(self, event: PromiseVoid) -> None:
        self._counter("cert_gate_promises_void_total", goal=event.goal).inc()

    @_handle.register
    def _(self, event: GateStanding) -> None:
        for state in ("shifted", "void"):
            now = getattr(event, state)
            self._gauge("cert_gate_state", certificate=event.certificate, gate_state=state).set(now)

    @_handle.register
    def _(self, event: HealthChanged) -> None:
        self._state("cert_health_state", "health", event.after, component=event.component)
        self._counter("cert_health_changes_total", component=event.component, health=event.after).inc()

    @_handle.register
    def _(self, event: ComponentDegraded) -> None:
        self._gauge("cert_component_degraded", component=event.component, mode=event.mode).set(event.active)
        if event.active:
            self._counter("cert_degradations_total", component=event.component, mode=event.mode).inc()

    def _child(self, name: str, labels: dict[str, str]) -> Any:
        place = (name, *labels.values())
        child = self._children.get(place)
        if child is None:
            guarded = {label: self._guards[label](value) for label, value in labels.items()}
            child = self._instruments[name].labels(**guarded)
            if guarded == labels:  # so that there are as few of them as there are series
                self._children[place] = child
        return child

    def _counter(self, name: str, **labels: str) -> Counter:
        child: Counter = self._child(name, labels)
        return child

    def _gauge(self, name: str, **labels: str) -> Gauge:
        child: Gauge = self._child(name, labels)
        return child

    def _measure(self, name: str, value: float, **labels: str) -> None:
        self._child(name, labels).observe(max(0.0, value), exemplar=_exemplar())

    def _state(self, name: str, label: str, now: str, **labels: str) -> None:
        states = LABELS[label][1]
        assert isinstance(states, tuple)
        for state in states:
            self._gauge(name, **labels, **{label: state}).set(state == now)


def _guard(label: str) -> Fixed | Open:
    bound = LABELS[label][1]
    if isinstance(bound, int):
        return Open(bound)
    return Fixed({*bound, *error_codes()} if label in ("outcome", "error") else bound)


def _make(metric: Metric) -> Instrument:
    options: dict[str, Any] = {"buckets": metric.buckets} if metric.kind == "histogram" else {}
    return _KINDS[metric.kind](metric.name, metric.help, metric.labels, registry=None, **options)


def _exemplar() -> dict[str, str] | None:
    # Where tracing is not in use, the library is not loaded, and this costs one look-up.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid or not span.trace_flags.sampled:
        return None
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
