"""Every metric that CERT exposes: the one list from which they are made and documented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CATALOGUE", "HTTP_CATALOGUE", "HTTP_LABELS", "LABELS", "Metric"]

_CALL = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_HTTP = (0.001, 0.0025, *_CALL)
_LOAD = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_RUN = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)
_STAGE = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
_SPEED = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus shows it, with the unit at its end.
        help: what it counts or measures.
        labels: names of its labels, each explained in `LABELS`.
        buckets: upper bounds of a histogram.
        collected: read when Prometheus asks, and not fed by events.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    collected: bool = False


def _counter(name: str, text: str, *labels: str, collected: bool = False) -> Metric:
    return Metric(name=name, kind="counter", help=text, labels=labels, collected=collected)


def _gauge(name: str, text: str, *labels: str, collected: bool = False) -> Metric:
    return Metric(name=name, kind="gauge", help=text, labels=labels, collected=collected)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name=name, kind="histogram", help=text, labels=labels, buckets=buckets)


CATALOGUE: tuple[Metric, ...] = (
    _counter("cert_calls_total", "Calls through the resilience stack.", "operation", "outcome"),
    _histogram(
        "cert_call_duration_seconds", "Time of a call, waiting and retries included.", _CALL, "operation"
    ),
    _counter("cert_call_attempts_total", "Attempts that calls took.", "operation"),
    _counter(
        "cert_retries_total", "Attempts that failed and were followed by another.", "operation", "error"
    ),
    _counter("cert_retry_wait_seconds_total", "Time spent waiting before retries.", "operation"),
    _gauge("cert_circuit_state", "1 for the state that a circuit breaker is in, else 0.", "circuit", "state"),
    _counter("cert_circuit_transitions_total", "Circuit breakers entering a state.", "circuit", "state"),
    _histogram("cert_rate_limit_wait_seconds", "Time that calls waited for our rate limit.", _CALL, "limit"),
    _counter("cert_budget_settled_dollars_total", "Cost of the calls that were settled.", "budget"),
    _gauge("cert_budget_spent_dollars", "What counts against the budget now.", "budget"),
    _gauge("cert_budget_limit_dollars", "The budget's limit; no series without one.", "budget"),
    _counter("cert_budget_begun_total", "Shared books that began with nothing spent.", "budget"),
    _counter("cert_budget_refused_total", "Calls that the budget refused.", "budget"),
    _gauge("cert_models_loaded", "Copies of the model in memory.", "model"),
    _gauge("cert_model_memory_bytes", "Memory that loaded copies of the model took.", "model", "device"),
    _histogram("cert_model_load_duration_seconds", "Time to load the model.", _LOAD, "model"),
    _counter("cert_generations_total", "Watched generations.", "model", "verdict"),
    _counter("cert_generated_tokens_total", "Tokens of watched generations.", "model"),
    _histogram("cert_generation_duration_seconds", "Time of a watched generation.", _CALL, "model"),
    _histogram(
        "cert_generation_tokens_per_second", "Tokens a second of a watched generation.", _SPEED, "model"
    ),
    _histogram("cert_stage_duration_seconds", "Time of a stage of an analysis.", _STAGE, "stage"),
    _counter(
        "cert_out_of_memory_total",
        "Times that a device had no memory for a batch.",
        "model",
        "device",
        "action",
    ),
    _counter("cert_cache_requests_total", "Results asked of a cache.", "cache", "lookup"),
    _counter("cert_coordination_measurements_total", "Teams measured.", "system", "finding"),
    _counter("cert_coordination_tasks_total", "Tasks that teams were measured on.", "system"),
    _counter("cert_coordination_tasks_missing_total", "Tasks without a score on one side or both.", "system"),
    _gauge(
        "cert_coordination_gamma_budget",
        "Quality of the team over that of one agent with the same budget, as last measured.",
        "system",
    ),
    _counter("cert_coordination_cost_dollars_total", "What measuring cost, by its parts.", "system", "arm"),
    _histogram("cert_coordination_duration_seconds", "Time of a measurement.", _RUN, "system"),
    _counter("cert_judgements_total", "Answers evaluated, or that could not be.", "evaluator", "judged"),
    _counter("cert_drift_alarms_total", "Falls of scores and changes of judges found.", "system", "kind"),
    _gauge("cert_drift_alarms_standing", "Alarms that nobody has acknowledged.", "system", "kind"),
    _counter("cert_gate_shifts_total", "Warnings that scores are not those of the calibration.", "goal"),
    _counter("cert_gate_promises_void_total", "Promises of gates that labels have refuted.", "goal"),
    _gauge(
        "cert_gate_state",
        "1 while a warning about the gate stands, or its promise is void.",
        "certificate",
        "gate_state",
    ),
    _gauge("cert_health_state", "1 for the state that a component is in, else 0.", "component", "health"),
    _counter("cert_health_changes_total", "Components entering a state of health.", "component", "health"),
    _gauge("cert_component_degraded", "1 while a component works in a reduced way.", "component", "mode"),
    _counter("cert_degradations_total", "Times that a component went to a reduced way.", "component", "mode"),
    _counter("cert_events_total", "Events that the metrics saw.", "event"),
    _counter("cert_events_lost_total", "Events that no observer saw, the queue being full.", collected=True),
    _counter("cert_observer_failures_total", "Calls of an observer that raised.", collected=True),
    _counter("cert_log_lines_lost_total", "Log lines that could not be written.", collected=True),
    _gauge("cert_build_info", "1, with what runs as labels.", "version", "python", collected=True),
    _gauge("cert_process_resident_memory_bytes", "Resident memory of the process.", collected=True),
    _gauge("cert_process_virtual_memory_bytes", "Virtual memory of the process.", collected=True),
    _counter("cert_process_cpu_seconds_total", "User and system time of the process.", collected=True),
    _gauge("cert_process_start_time_seconds", "Start of the process, in seconds since 1970.", collected=True),
    _gauge("cert_process_open_fds", "Open file descriptors.", collected=True),
    _gauge("cert_process_max_fds", "The most file descriptors that may be open.", collected=True),
)

# What a label says, and how its values are bounded: a number for `labels.Open`, else a fixed list.
LABELS: dict[str, tuple[str, int | tuple[str, ...]]] = {
    "operation": ("what was called", 32),
    "outcome": ("`ok`, or the code of the error", ("ok", "cancelled", "error")),
    "error": ("the code of the error", ("cancelled", "error")),
    "circuit": ("the breaker's name", 32),
    "state": ("of a circuit breaker", ("closed", "open", "half_open")),
    "limit": ("the rate limit's name", 16),
    "budget": ("the budget's name", 16),
    "model": ("the model's name; a path is `other`", 16),
    "device": ("where the model is", 16),
    "verdict": ("of the generation", ("pass", "fail", "undecided", "not_measured")),
    "stage": ("part of an analysis", 32),
    "action": ("what was done", ("smaller_batch", "cpu", "failed")),
    "cache": ("the cache's name", 8),
    "lookup": (
        "`hit`, `miss`, `shared` (somebody was at work on it) or `bypassed`",
        ("hit", "miss", "shared", "bypassed"),
    ),
    "system": ("the team's name", 32),
    "finding": ("whether it is worth it", ("worth_it", "not_worth_it", "not_enough_data")),
    "arm": ("`team`, `single` (the agent with the same budget) or `judge`", ("team", "single", "judge")),
    "evaluator": ("the evaluator's name", 16),
    "judged": ("`ok`, or `missing` where there is no score", ("ok", "missing")),
    "kind": (
        "who changed, or `unclear`",
        ("system", "judge", "both", "unclear"),
    ),
    "goal": (
        "of the gate's promise",
        ("false-flags", "misses", "selective-risk", "undetected-errors", "streaming"),
    ),
    "certificate": ("the first 12 digits of its id", 16),
    "gate_state": ("`shifted`: scores are others; `void`: labels refute the promise", ("shifted", "void")),
    "component": ("part of the system", 32),
    "health": ("state of health", ("healthy", "degraded", "unhealthy", "unknown")),
    "mode": ("what it does instead", 16),
    "event": ("name of the event's class", 32),
    "version": ("of this package", 1),
    "python": ("the interpreter's version", 1),
}

# Of the services alone, and fed by them.
HTTP_CATALOGUE: tuple[Metric, ...] = (
    _counter("cert_http_requests_total", "Requests that were answered.", "method", "route", "status"),
    _histogram(
        "cert_http_request_duration_seconds",
        "Time from a request to the beginning of its answer, the wait for a place included.",
        _HTTP,
        "method",
        "route",
    ),
    _gauge("cert_http_requests_in_flight", "Requests and streams of events that are not at their end."),
    _gauge("cert_http_requests_waiting", "Requests that wait for a place at work."),
    _gauge("cert_http_queue_limit", "Requests that may wait; more are refused."),
)
HTTP_LABELS: dict[str, tuple[str, int | tuple[str, ...]]] = {
    "method": ("of the request", ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
    "route": ("the route's template, or `unmatched`", 64),
    "status": ("class of the answer's status", ("2xx", "3xx", "4xx", "5xx")),
}
