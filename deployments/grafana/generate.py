"""Write the dashboards in ``dashboards/`` from this description of them.

    .venv-deployments/bin/python deployments/grafana/generate.py [FOLDER]

The JSON is committed, so that it can be imported by hand. A test generates it anew, and checks that every
expression parses, names metrics and labels that the services export, and returns data under load.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphThresholdsStyleMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

RATE = "[$__rate_interval]"
HAMILTONIAN = 'job="hamiltonian"'
COORDINATION = 'job="coordination"'


@dataclass(frozen=True)
class Panel:
    """One panel: a figure or curves.

    Attributes:
        queries: expression and legend of each.
        unit: in Grafana's names.
        limit: where red begins.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    about: str = ""
    limit: float | None = None
    figure: bool = False
    width: int = 8


def curve(title: str, expression: str, legend: str = "__auto", **options: Any) -> Panel:
    """Describe curves of one expression."""
    return Panel(title, [(expression, legend)], **options)


def figure(title: str, expression: str, **options: Any) -> Panel:
    """Describe a figure: the value of now."""
    return Panel(title, [(expression, "")], figure=True, width=options.pop("width", 4), **options)


UP = 'up{job=~"hamiltonian|coordination"}'
LOAD = "cert_model_load_duration_seconds_sum / cert_model_load_duration_seconds_count"
LOST = " + ".join(
    f"sum by (job) (increase(cert_{what}_total[1h]))"
    for what in ("events_lost", "log_lines_lost", "observer_failures")
)


def or_none(expression: str) -> str:
    """Return an expression that is 0 where nothing happened yet, and empty where no service is up."""
    return f"{expression} or 0 * count({UP} == 1)"


def per_second(metric: str, *by: str) -> str:
    """Return the rate of a counter, summed by labels."""
    return f"sum by ({', '.join(by)}) (rate({metric}{RATE}))"


def quantile(q: float, histogram: str, *by: str) -> str:
    """Return a quantile of a histogram by labels."""
    return f"histogram_quantile({q}, sum by ({', '.join([*by, 'le'])}) (rate({histogram}_bucket{RATE})))"


OVERVIEW = (
    figure(
        "Services", 'count by (job) (up{job=~"hamiltonian|coordination"} == 1)', about="Replicas that answer."
    ),
    figure("Unhealthy", or_none('sum(cert_health_state{health="unhealthy"})'), limit=1),
    figure("Generations a minute", f"60 * sum(rate(cert_generations_total{RATE}))"),
    figure(
        "Failing the gate", "max(model:cert_generations_failed:ratio_rate15m)", unit="percentunit", limit=0.2
    ),
    figure("Spent of the budget", "max(budget:cert_budget_spent:ratio)", unit="percentunit", limit=0.8),
    figure("Promises void", or_none('sum(cert_gate_state{gate_state="void"})'), limit=1),
    curve(
        "Requests",
        per_second("cert_http_requests_total", "job", "status"),
        "{{job}} {{status}}",
        unit="reqps",
    ),
    curve("Errors of ours", "job:cert_http_errors:ratio_rate5m", "{{job}}", unit="percentunit", limit=0.05),
    curve(
        "95 % of answers begin within",
        quantile(0.95, "cert_http_request_duration_seconds", "job"),
        "{{job}}",
        unit="s",
        limit=5,
    ),
    curve("Verdicts", per_second("cert_generations_total", "verdict"), "{{verdict}}", unit="ops"),
    curve(
        "Health",
        "max by (job, component, health) (cert_health_state) == 1",
        "{{job}} {{component}}: {{health}}",
    ),
    curve(
        "Dollars spent in the window",
        "max by (budget) (cert_budget_spent_dollars)",
        "{{budget}}",
        unit="currencyUSD",
    ),
)
GATE = (
    curve(
        "Verdicts by model",
        per_second("cert_generations_total", "model", "verdict"),
        "{{model}} {{verdict}}",
        unit="ops",
    ),
    curve(
        "Share that fails",
        "model:cert_generations_failed:ratio_rate15m",
        "{{model}}",
        unit="percentunit",
        limit=0.2,
    ),
    curve(
        "Gates: warning stands, promise void",
        "max by (certificate, gate_state) (cert_gate_state)",
        "{{certificate}} {{gate_state}}",
        about="1 while it is so.",
    ),
    curve(
        "Tokens a second, all generations", per_second("cert_generated_tokens_total", "model"), "{{model}}"
    ),
    curve(
        "Tokens a second of one generation (median)",
        quantile(0.5, "cert_generation_tokens_per_second", "model"),
        "{{model}}",
    ),
    curve(
        "Time of a generation (p50, p95)",
        quantile(0.95, "cert_generation_duration_seconds", "model"),
        "{{model}} p95",
        unit="s",
    ),
    curve(
        "Cache: what questions met",
        per_second("cert_cache_requests_total", "lookup"),
        "{{lookup}}",
        unit="ops",
    ),
    curve(
        "Cache: share that was there", "cache:cert_cache_hits:ratio_rate30m", "{{cache}}", unit="percentunit"
    ),
    curve(
        "Stages of an analysis (p95)",
        quantile(0.95, "cert_stage_duration_seconds", "stage"),
        "{{stage}}",
        unit="s",
    ),
    curve(
        "Models in memory",
        "sum by (model, device) (cert_model_memory_bytes)",
        "{{model}} {{device}}",
        unit="bytes",
    ),
    curve(
        "Out of memory",
        "sum by (model, action) (increase(cert_out_of_memory_total[1h]))",
        "{{model}} {{action}}",
        limit=3,
    ),
    curve("Time to load a model", LOAD, "{{model}}", unit="s"),
)
COST = (
    figure("Spent in the window", "max by (budget) (cert_budget_spent_dollars)", unit="currencyUSD"),
    figure("Limit", "max by (budget) (cert_budget_limit_dollars)", unit="currencyUSD"),
    figure("Calls refused, 24 h", or_none("sum(increase(cert_budget_refused_total[24h]))"), limit=1),
    figure("Measurements, 24 h", or_none("sum(increase(cert_coordination_measurements_total[24h]))")),
    figure("Drift alarms that stand", or_none("sum(cert_drift_alarms_standing)"), limit=1),
    figure("Circuits open", or_none('sum(cert_circuit_state{state="open"})'), limit=1),
    curve(
        "Dollars a hour, as settled",
        f"3600 * sum by (budget) (rate(cert_budget_settled_dollars_total{RATE}))",
        "{{budget}}",
        unit="currencyUSD",
    ),
    curve(
        "What measuring cost, by part",
        "sum by (system, arm) (increase(cert_coordination_cost_dollars_total[1h]))",
        "{{system}} {{arm}}",
        unit="currencyUSD",
    ),
    curve(
        "Quality over one agent with the same budget",
        "max by (system) (cert_coordination_gamma_budget)",
        "{{system}}",
        about="As last measured; above 1 the team was better. The measurement has the interval.",
    ),
    curve(
        "Calls to models",
        per_second("cert_calls_total", "operation", "outcome"),
        "{{operation}} {{outcome}}",
        unit="ops",
    ),
    curve(
        "Retries by error",
        per_second("cert_retries_total", "operation", "error"),
        "{{operation}} {{error}}",
        unit="ops",
    ),
    curve(
        "Time of a call (p95)",
        quantile(0.95, "cert_call_duration_seconds", "operation"),
        "{{operation}}",
        unit="s",
    ),
    curve(
        "Waiting for our rate limit (p95)",
        quantile(0.95, "cert_rate_limit_wait_seconds", "limit"),
        "{{limit}}",
        unit="s",
    ),
    curve(
        "Judgements",
        per_second("cert_judgements_total", "evaluator", "judged"),
        "{{evaluator}} {{judged}}",
        unit="ops",
    ),
    curve(
        "Tasks without a score",
        "sum by (system) (increase(cert_coordination_tasks_missing_total[1h]))",
        "{{system}}",
    ),
)
INTERNALS = (
    curve(
        "Requests by route",
        per_second("cert_http_requests_total", "job", "route"),
        "{{job}} {{route}}",
        unit="reqps",
    ),
    curve(
        "Time to an answer by route (p95)",
        quantile(0.95, "cert_http_request_duration_seconds", "route"),
        "{{route}}",
        unit="s",
    ),
    curve("Answers by status", per_second("cert_http_requests_total", "status"), "{{status}}", unit="reqps"),
    curve("At work", "sum by (job, instance) (cert_http_requests_in_flight)", "{{job}} {{instance}}"),
    curve(
        "Waiting for a place", "sum by (job, instance) (cert_http_requests_waiting)", "{{job}} {{instance}}"
    ),
    curve(
        "How full the queue is",
        "instance:cert_http_queue:ratio",
        "{{job}} {{instance}}",
        unit="percentunit",
        limit=0.8,
    ),
    curve("Memory", "cert_process_resident_memory_bytes", "{{job}} {{instance}}", unit="bytes"),
    curve("Processor", f"rate(cert_process_cpu_seconds_total{RATE})", "{{job}} {{instance}}", about="Cores."),
    curve("Open files", "cert_process_open_fds", "{{job}} {{instance}}"),
    curve("Events", per_second("cert_events_total", "event"), "{{event}}", unit="ops"),
    curve("Lost: events, log lines; failed observers", LOST, "{{job}}", limit=1),
    curve(
        "Working in a reduced way",
        "max by (job, component, mode) (cert_component_degraded)",
        "{{job}} {{component}} {{mode}}",
    ),
    curve(
        "Versions",
        "sum by (job, version, python) (cert_build_info)",
        "{{job}} {{version}}, Python {{python}}",
    ),
)
DASHBOARDS = {
    "cert-overview": ("CERT: overview", OVERVIEW),
    "cert-hamiltonian": ("CERT: Hamiltonian monitor and gate", GATE),
    "cert-coordination": ("CERT: Coordination monitor and cost", COST),
    "cert-internals": ("CERT: service internals", INTERNALS),
}
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def built(panel: Panel) -> Any:
    """Return the builder of one panel."""
    maker: Any = stat.Panel() if panel.figure else timeseries.Panel()
    maker = maker.title(panel.title).datasource(SOURCE).unit(panel.unit)
    maker = maker.span(panel.width).height(5 if panel.figure else 8)
    if panel.about:
        maker = maker.description(panel.about)
    colours = [Threshold(value=None, color="green")]
    if panel.limit is not None:
        colours.append(Threshold(value=panel.limit, color="red"))
    maker = maker.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(colours))
    if not panel.figure:
        maker = maker.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)).fill_opacity(8)
        if panel.limit is not None:
            style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
            maker = maker.thresholds_style(style)
    for expression, legend in panel.queries:
        query = prometheus.Dataquery().expr(expression).legend_format(legend).datasource(SOURCE)
        maker = maker.with_target(query.instant() if panel.figure else query.range())
    return maker


def dashboard_of(uid: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """Return one dashboard as JSON."""
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    whole = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["cert"])
        .editable()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(source)
    )
    for panel in panels:
        whole = whole.with_panel(built(panel))
    encoded: dict[str, Any] = json.loads(json.dumps(whole.build(), cls=JSONEncoder))
    return encoded


def main() -> None:
    """Write them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards"
    for uid, (title, panels) in DASHBOARDS.items():
        text = json.dumps(dashboard_of(uid, title, panels), indent=1, ensure_ascii=False, sort_keys=True)
        (folder / f"{uid}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
