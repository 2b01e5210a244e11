"""The compose file: read by docker-compose itself, and really brought up without an engine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from tests.deployments.parts import DEPLOYMENTS, PORTS, ROOT, TRIXIE, known_settings, wait_for

pytestmark = pytest.mark.deployments

FOLDER = DEPLOYMENTS / "docker"
SECRETS = {
    "REDIS_PASSWORD": "r",
    "POSTGRES_PASSWORD": "p",
    "GRAFANA_ADMIN_PASSWORD": "g",
    "CERT_JOBS_KEY": "k",
    "CERT_KEYS_FOLDER": "/keys",
}


def config(*files: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    named = [part for file in files for part in ("-f", str(file))]
    return subprocess.run(
        [TRIXIE / "docker-compose", *named, "config"],
        cwd=FOLDER,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_compose_takes_the_file_and_would_see_a_misspelt_key(tmp_path):
    """docker-compose ignores nothing: what it takes is what it runs."""
    assert config("docker-compose.yml").returncode == 0
    wrong = tmp_path / "wrong.yml"
    wrong.write_text((FOLDER / "docker-compose.yml").read_text().replace("mem_limit: 4g", "memory_limit: 4g"))
    done = config(wrong)
    assert done.returncode != 0
    assert "memory_limit" in done.stderr


@pytest.mark.parametrize("missing", SECRETS)
def test_production_asks_for_every_secret_by_its_name(missing):
    """A password of this repository in production is none."""
    files = ("docker-compose.yml", "docker-compose.production.yml")
    assert config(*files, **SECRETS).returncode == 0
    done = config(*files, **{name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr
    assert "cert_development" not in config(*files, **SECRETS).stdout
    assert "cert_admin" not in config(*files, **SECRETS).stdout


def test_the_stack_is_what_the_guide_says():
    """Ports that others reach, settings that nobody reads, an order that does not wait."""
    stack = yaml.safe_load(config("docker-compose.yml").stdout)["services"]
    assert set(stack) == {"hamiltonian", "coordination", "redis", "postgres", "prometheus", "grafana"}
    published = {}
    for name, one in stack.items():
        for port in one.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
            published[name] = (int(port["published"]), port["target"])
    assert published == {
        "hamiltonian": (8000, 8000),
        "coordination": (8001, 8001),
        "prometheus": (9092, 9090),
        "grafana": (3000, 3000),
    }
    for name in PORTS:
        one = stack[name]
        assert {key for key in one["environment"] if key.startswith("CERT_")} <= known_settings()
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["mem_limit"]
        assert {found["condition"] for found in one["depends_on"].values()} == {"service_healthy"}
    told = yaml.safe_load(Path(DEPLOYMENTS / "prometheus" / "prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in told["scrape_configs"]}
    assert targets == {name: [f"{name}:{metrics}"] for name, (_, metrics) in PORTS.items()}


def test_the_units_of_systemd_are_units(tool):
    """Systemd ignores a misspelt directive, and the service runs unconfined."""
    for path in sorted((DEPLOYMENTS / "systemd").glob("*.service")):
        text = path.read_text()
        for name in re_variables(text):
            assert name in known_settings() | {"HF_HOME"}, name
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
        )
        # The programs are not installed on this machine; every other complaint counts.
        told = [
            line
            for line in done.stderr.splitlines()
            if "is not executable" not in line and "/opt/cert" not in line and "Unit not found" not in line
        ]
        assert not [line for line in told if path.name in line], told


def re_variables(text: str) -> set[str]:
    line = next(line for line in text.splitlines() if line.startswith("Environment="))
    return {pair.partition("=")[0] for pair in line.removeprefix("Environment=").split()}


@contextlib.contextmanager
def stack(folder: Path) -> Iterator[None]:
    """Bring up both services as compose describes them, on networks that podman makes."""
    whole = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())
    services = {name: whole["services"][name] for name in PORTS}
    for name, one in services.items():
        one.pop("build")
        one.pop("depends_on")
        one.pop("security_opt", None)
        # No cgroups of one's own here; limits are read by docker-compose above.
        for limit in ("mem_limit", "cpus", "restart"):
            one.pop(limit, None)
        one["image"] = f"localhost/cert-framework/{name}:4.0.0"
        one["environment"] = {
            key: value
            for key, value in one["environment"].items()
            if key not in ("CERT_REDIS_URL", "CERT_DATABASE_URL", "CERT_JOBS_KEY")
        }
        one["ulimits"] = {"nofile": 4096, "nproc": 4096}
    (folder / "compose.yml").write_text(
        yaml.safe_dump(
            {"services": services, "volumes": {"hamiltonian-data": {}, "coordination-data": {}, "models": {}}}
        )
    )
    command: list[str | Path] = [
        ROOT / ".venv-deployments" / "bin" / "podman-compose",
        "--podman-args=--cgroup-manager=cgroupfs --runtime=runc",
        "--project-name=certtest",
        "-f",
        folder / "compose.yml",
    ]
    try:
        done = subprocess.run(
            [*command, "up", "-d"], capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield
    finally:
        subprocess.run(
            [*command, "down", "--volumes", "-t", "10"], capture_output=True, check=False, timeout=120
        )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_both_services_come_up_on_the_ports_of_compose(tmp_path):
    """What reads well may still not start: volumes that nobody may write, a port that nobody listens on."""
    with stack(tmp_path):
        wait_for("http://127.0.0.1:8000/health/ready", lambda found: found.status_code == 200)
        wait_for("http://127.0.0.1:8001/health/live", lambda found: found.status_code == 200)
        body = {"prompt": "The birth city of", "max_new_tokens": 3}
        assert httpx2.post("http://127.0.0.1:8000/v1/analyze", json=body, timeout=30).status_code == 200
        assert httpx2.get("http://127.0.0.1:8001/health").json()["status"] == "degraded"
