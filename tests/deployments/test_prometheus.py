"""Rules, dashboards, discovery and the way of an alert, each with the real program."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import promql_parser
import pytest
import yaml
from tests.deployments.parts import DEPLOYMENTS, ROOT, TRIXIE, free_port, running, service, wait_for

from cert.observability.catalogue import CATALOGUE, HTTP_CATALOGUE, HTTP_LABELS, LABELS
from cert.testing import FaultServer, RecordedRequest, Reply, error, ok

pytestmark = pytest.mark.deployments

PROMETHEUS = DEPLOYMENTS / "prometheus"
DASHBOARDS = DEPLOYMENTS / "grafana" / "dashboards"
# What Prometheus itself adds to every series, and what our discovery adds.
TARGET_LABELS = {"job", "instance", "namespace", "pod", "le"}


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((PROMETHEUS / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found += group["rules"]
    return found


def panels() -> list[tuple[str, str]]:
    """Every expression of the dashboards, with the panel's name."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


def concrete(expression: str) -> str:
    return expression.replace("$__rate_interval", "1m")


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


# --- what is written ---


def test_rules_are_rules_and_each_alert_fires_and_is_quiet(tool):
    """An alert that cannot fire is worse than none: somebody relies on it."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    cases = PROMETHEUS / "tests" / "alerts.test.yml"
    for command in (["check", "rules", *map(str, files)], ["test", "rules", str(cases)]):
        done = subprocess.run([tool("promtool"), *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = yaml.safe_load((PROMETHEUS / "tests" / "alerts.test.yml").read_text())["tests"]
    names = {case["name"] for case in tested}
    for alert in ALERTS:
        assert f"{alert['alert']} fires" in names
        assert f"{alert['alert']} is quiet" in names


def test_the_cases_of_the_alerts_would_see_another_threshold(tool, tmp_path):
    """Cases that pass whatever the rules say prove nothing: every alert, inverted, must fail one."""
    for alert in ALERTS:
        folder = tmp_path / alert["alert"]
        (folder / "rules").mkdir(parents=True)
        (folder / "tests").mkdir()
        for path in (PROMETHEUS / "rules").glob("*.yml"):
            written = yaml.safe_load(path.read_text())
            for group in written["groups"]:
                for rule in group["rules"]:
                    if rule.get("alert") == alert["alert"]:
                        rule["expr"] = "vector(0) > 1"
            (folder / "rules" / path.name).write_text(yaml.safe_dump(written))
        case = (PROMETHEUS / "tests" / "alerts.test.yml").read_text()
        (folder / "tests" / "alerts.test.yml").write_text(case)
        done = subprocess.run(
            [tool("promtool"), "test", "rules", folder / "tests" / "alerts.test.yml"],
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0, alert["alert"]


def test_every_alert_says_what_to_do():
    """Whoever is woken at night has no time to find out what the number means."""
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        page = ROOT / alert["annotations"]["runbook_url"]
        text = page.read_text()
        for part in ("## Meaning", "## Impact", "## Look", "## Do"):
            assert part in text, page
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"]
    pages = {page.stem for page in (ROOT / "docs" / "runbooks").glob("Cert*.md")}
    assert pages == {alert["alert"] for alert in ALERTS}


def known() -> dict[str, set[str]]:
    """Every name that Prometheus may know, with its labels."""
    series: dict[str, set[str]] = {"up": set(), "ALERTS": set()}
    for metric in (*CATALOGUE, *HTTP_CATALOGUE):
        labels = set(metric.labels)
        series[metric.name] = labels
        if metric.kind == "histogram":
            for end in ("_bucket", "_sum", "_count"):
                series[metric.name + end] = labels
    for rule in rules():
        if "record" in rule:
            # The part before the first colon names the labels that are kept, by convention.
            series[rule["record"]] = set(rule["record"].partition(":")[0].split("_"))
    return series


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of series within an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        inner = getattr(node, name, None)
        if inner is not None and not isinstance(inner, str | float | int):
            yield from selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from selectors(inner)


@pytest.mark.parametrize(
    ("where", "expression"),
    [*panels(), *((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules())],
)
def test_every_expression_names_what_the_services_export(where, expression):
    """A misspelt metric draws an empty panel for ever, and an alert on it never fires."""
    parsed = promql_parser.parse(concrete(expression))
    series, bounded = known(), {**LABELS, **HTTP_LABELS}
    found = list(selectors(parsed))
    assert found, where
    for selector in found:
        assert selector.name in series, (where, selector.name)
        for matcher in selector.matchers.matchers:
            assert matcher.name in series[selector.name] | TARGET_LABELS, (where, matcher.name)
            values = bounded.get(matcher.name, ("", 0))[1]
            if isinstance(values, tuple) and matcher.op == promql_parser.MatchOp.Equal:
                assert matcher.value in values, (where, matcher.value)


def test_the_committed_dashboards_are_those_of_the_code(tmp_path):
    """A dashboard that was changed by hand would be lost at the next change of the code."""
    python = ROOT / ".venv-deployments" / "bin" / "python"
    subprocess.run([python, DEPLOYMENTS / "grafana" / "generate.py", tmp_path], check=True)
    for path in DASHBOARDS.glob("*.json"):
        assert (tmp_path / path.name).read_text() == path.read_text(), path.name
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in DASHBOARDS.glob("*.json")}


def test_configurations_are_valid(tool):
    """A Prometheus that does not start watches nothing."""
    for name in ("prometheus.yml", "prometheus-kubernetes.yml"):
        done = subprocess.run(
            [TRIXIE / "promtool", "check", "config", "--syntax-only", PROMETHEUS / name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    alertmanager = DEPLOYMENTS / "alertmanager" / "alertmanager.yml"
    done = subprocess.run(
        [tool("amtool"), "check-config", alertmanager], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- what runs ---


def asked(address: str, expression: str) -> list[dict[str, Any]]:
    answer = httpx2.get(f"http://{address}/api/v1/query", params={"query": expression}, timeout=10).json()
    assert answer["status"] == "success", answer
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def vendor(request: RecordedRequest) -> Reply:
    """Answer most calls, fail some."""
    if request.number % 7 == 3:
        return error(529)
    return ok("42")


# Nothing in the load makes these: what they show is a fault or needs a certificate, a GPU or a database.
EMPTY_UNDER_LOAD = re.compile(
    r"cert_gate_|cert_out_of_memory|cert_drift_|cert_component_degraded|cert_budget_refused|cert_rate_limit_wait|"
    r"cert_coordination_gamma_budget"
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_panel_has_data_under_load(tool, tmp_path):
    """An expression may be right in form and still join labels that never meet."""
    address = f"127.0.0.1:{free_port()}"
    with FaultServer(vendor) as scripted:
        coordination = {
            "CERT_MODELS": f"openai:scripted@{scripted.url}/v1",
            "CERT_PRICES": "scripted=1/1",
            "CERT_REQUESTS_PER_MINUTE": "100000",
            "CERT_CIRCUIT_FAILURES": "50",
        }
        with (
            service("hamiltonian", tmp_path, CERT_PRELOAD_MODELS="true") as (watched, at_hamiltonian),
            service("coordination", tmp_path, **coordination) as (measured, at_coordination),
            prometheus(tmp_path, address, {"hamiltonian": at_hamiltonian, "coordination": at_coordination}),
        ):
            deadline = time.monotonic() + 75
            job = {
                "tasks": [{"text": f"What is {n} and {n}?", "references": ["42"]} for n in range(3)],
                "systems": ["vote"],
            }
            empty: list[str] = []
            number = 0
            while time.monotonic() < deadline:
                for _ in range(6):
                    number += 1
                    body = {"prompt": "The birth city of", "max_new_tokens": 3, "seed": number % 9}
                    httpx2.post(f"{watched}/v1/analyze", json=body, timeout=30)
                httpx2.post(f"{watched}/v1/analyze", json={"prompt": 5}, timeout=30)
                httpx2.get(f"{watched}/health", timeout=30)  # as probes do
                httpx2.post(f"{measured}/v1/measurements", json=job, timeout=30)
                time.sleep(1.5)
                empty = [
                    where
                    for where, expression in panels()
                    if not EMPTY_UNDER_LOAD.search(expression) and not asked(address, concrete(expression))
                ]
                if not empty:
                    break
            assert not empty
            up = {one["metric"]["job"] for one in asked(address, "up == 1")}
            assert up == {"hamiltonian", "coordination"}


def prometheus(
    folder: Path, address: str, targets: dict[str, str | list[str]], alertmanager: str | None = None
) -> Any:
    """Run Prometheus on our rules, every two seconds, with shorter waits before alerts."""
    for path in (PROMETHEUS / "rules").glob("*.yml"):
        text = re.sub(r"^(\s*for:) .*$", r"\1 2s", path.read_text(), flags=re.MULTILINE)
        (folder / f"rules-{path.name}").write_text(text)
    config: dict[str, Any] = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [str(folder / "rules-*.yml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": found if isinstance(found, list) else [found]}]}
            for job, found in targets.items()
        ],
    }
    if alertmanager is not None:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command: list[str | Path] = [
        TRIXIE / "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
    ]
    return running(command, folder, "prometheus")


class Webhook(http.server.BaseHTTPRequestHandler):
    """Takes what Alertmanager sends."""

    seen: set[str]

    def do_POST(self) -> None:  # the library's name
        """Keep the names of the alerts."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).seen |= {alert["labels"]["alertname"] for alert in body["alerts"]}
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_fault_comes_through_to_whoever_is_told(tool, tmp_path):
    """A breaker opens, a budget is spent, errors, no memory, a service is gone: somebody has to hear."""
    Webhook.seen = set()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    manager, address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    config = yaml.safe_load((DEPLOYMENTS / "alertmanager" / "alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "1s", "group_interval": "2s"}
    config["receivers"][0]["webhook_configs"][0]["url"] = f"http://127.0.0.1:{server.server_port}/"
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command: list[str | Path] = [
        tool("prometheus-alertmanager"),
        f"--config.file={tmp_path / 'alertmanager.yml'}",
        f"--storage.path={tmp_path / 'alertmanager'}",
        f"--web.listen-address={manager}",
        "--cluster.listen-address=",
    ]
    environ = {
        "CERT_PRICES": "failing=1/1,dear=100000/100000",
        "CERT_MAX_COST_PER_HOUR": "0.5",
        "CERT_REQUESTS_PER_MINUTE": "100000",
        "CERT_RETRY_ATTEMPTS": "1",
    }
    expected = {"CertCircuitOpen", "CertCostLimitReached", "CertServiceAbsent"}
    expected |= {"CertErrorRateHigh", "CertOutOfMemoryFrequent"}
    with (
        FaultServer(lambda _: error(500)) as failing,
        FaultServer(lambda _: ok("42")) as dear,
        running(command, tmp_path, "alertmanager"),
        prometheus_of_faults(tmp_path, address, manager, environ, failing, dear) as (measured, watched),
    ):
        deadline = time.monotonic() + 120
        number = 0
        while time.monotonic() < deadline and not expected <= Webhook.seen:
            for model in ("failing", "dear"):
                number += 1
                job = {
                    "model": model,
                    "tasks": [{"text": f"{number}: what is 40 and 2?", "references": ["42"]}] * 1,
                    "systems": ["vote"],
                }
                httpx2.post(f"{measured}/v1/measurements", json=job, timeout=30)
            for _ in range(3):
                chat = {"model": "any", "messages": [{"role": "user", "content": "What?"}]}
                assert httpx2.post(f"{watched}/v1/chat/completions", json=chat, timeout=30).status_code >= 500
            time.sleep(1)
    server.shutdown()
    server.server_close()
    assert expected <= Webhook.seen, Webhook.seen


def prometheus_of_faults(
    folder: Path, address: str, manager: str, environ: dict[str, str], failing: FaultServer, dear: FaultServer
) -> Any:
    """Run both services on vendors and an engine that fail; Prometheus on them and on one that is gone."""

    @contextlib.contextmanager
    def both() -> Iterator[tuple[str, str]]:
        memory = free_port()
        models = f"openai:failing@{failing.url}/v1,openai:dear@{dear.url}/v1"
        with (
            service("coordination", folder, CERT_MODELS=models, **environ) as (url, metrics),
            service("hamiltonian", folder, CERT_UPSTREAM_URL="http://127.0.0.1:9/v1") as (watched, at),
            running([sys.executable, "-c", NO_MEMORY, str(memory)], folder, "no-memory"),
            prometheus(
                folder,
                address,
                {
                    "coordination": [metrics, f"127.0.0.1:{memory}"],
                    "hamiltonian": [at, f"127.0.0.1:{free_port()}"],
                },
                manager,
            ),
        ):
            yield url, watched

    return both()


# A program whose GPU has no memory left, as far as its metrics go: the event is the library's own.
NO_MEMORY = """
import sys, time
from prometheus_client import CollectorRegistry
from cert.core.events import OutOfMemoryMet, default_hub
from cert.observability.metrics import metrics_observer, start_metrics_server
registry = CollectorRegistry()
default_hub().observe(metrics_observer(registry, hub=default_hub()))
with start_metrics_server(registry, port=int(sys.argv[1])):
    while True:
        default_hub().emit(OutOfMemoryMet(model="reference", device="cuda:0", action="smaller_batch"))
        time.sleep(1)
"""


class Cluster(http.server.BaseHTTPRequestHandler):
    """As much of an API server as the discovery of pods asks for: a list, and a watch that stays open."""

    protocol_version = "HTTP/1.1"
    pods: list[dict[str, Any]]

    def do_GET(self) -> None:  # the library's name
        """Answer."""
        if "watch=true" in self.path or "watch=1" in self.path:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            time.sleep(60)
            return
        items = self.pods if "/pods" in self.path else []
        body = json.dumps(
            {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def pod(name: str, port: int, component: str, *, scraped: bool, ours: bool = True) -> dict[str, Any]:
    annotations = {"prometheus.io/port": str(port), "prometheus.io/path": "/metrics"}
    labels = {"app.kubernetes.io/component": component}
    return {
        "metadata": {
            "name": name,
            "namespace": "cert",
            "uid": name,
            "annotations": annotations | ({"prometheus.io/scrape": "true"} if scraped else {}),
            "labels": labels | ({"app.kubernetes.io/part-of": "cert-framework"} if ours else {}),
        },
        "spec": {
            "nodeName": "node",
            "containers": [
                {
                    "name": component,
                    "image": "x",
                    "ports": [
                        {"name": "http", "containerPort": 8000, "protocol": "TCP"},
                        {"name": "metrics", "containerPort": port, "protocol": "TCP"},
                    ],
                }
            ],
        },
        "status": {"phase": "Running", "podIP": "127.0.0.1", "hostIP": "127.0.0.1"},
    }


@pytest.mark.slow
def test_pods_that_are_annotated_are_found_and_scraped(tmp_path):
    """A new replica that nobody watches is the one that fails."""
    address = f"127.0.0.1:{free_port()}"
    with service("hamiltonian", tmp_path) as (_, metrics):
        port = int(metrics.rpartition(":")[2])
        pods = [
            pod("watched", port, "hamiltonian", scraped=True),
            pod("not-annotated", port, "hamiltonian", scraped=False),
            pod("of-others", port, "database", scraped=True, ours=False),
        ]
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Pods", (Cluster,), {"pods": pods}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = yaml.safe_load((PROMETHEUS / "prometheus-kubernetes.yml").read_text())
        config["global"] = {"scrape_interval": "1s"}
        config["rule_files"] = []
        for found in config["scrape_configs"][0]["kubernetes_sd_configs"]:
            found["api_server"] = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        command: list[str | Path] = [
            TRIXIE / "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address={address}",
        ]
        with running(command, tmp_path, "prometheus"):
            wait_for(
                f"http://{address}/api/v1/query?query=up",
                lambda answer: answer.status_code == 200 and bool(answer.json()["data"]["result"]),
            )
            time.sleep(3)
            found = asked(address, "up")
        server.shutdown()
        server.server_close()
    told = [(one["metric"]["pod"], one["metric"]["job"], one["value"][1]) for one in found]
    assert told == [("watched", "hamiltonian", "1")]
