"""Objects of Kubernetes as the real tools render them, and services as their users start them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import yaml

from cert.core.config import Settings
from cert.core.environment import variables_of

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
KUBERNETES = DEPLOYMENTS / "kubernetes"
CHART = DEPLOYMENTS / "helm" / "cert"
TRIXIE = ROOT / ".venv-deployments" / "trixie" / "usr" / "bin"
PORTS = {"hamiltonian": (8000, 9090), "coordination": (8001, 9091)}

Objects = dict[tuple[str, str], dict[str, Any]]


def objects(text: str) -> Objects:
    """Return the objects of YAML documents, by kind and name."""
    return {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(text) if found}


def kustomized(folder: Path) -> str:
    """Return what ``kubectl kustomize`` makes of a folder."""
    done = subprocess.run(
        [TRIXIE / "kubectl", "kustomize", folder], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def helm(action: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm's engine on the chart."""
    python = ROOT / ".venv-deployments" / "bin" / "python"
    command: list[str | Path] = [python, ROOT / "scripts" / "deployments" / "helm.py", action, CHART]
    return subprocess.run(
        command, input=json.dumps(values or {}), capture_output=True, text=True, check=False, timeout=60
    )


def known_settings() -> set[str]:
    """Return the names of every environment variable that a service reads."""
    return {name for variable in variables_of(Settings) for name in (variable.name, *variable.aliases)}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(url: str, accept: Callable[[httpx2.Response], bool], seconds: float = 60.0) -> httpx2.Response:
    """Ask until an answer is accepted."""
    deadline, last = time.monotonic() + seconds, "nothing"
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            answer = httpx2.get(url, timeout=5)
            if accept(answer):
                return answer
            last = answer.text[:2000]
        time.sleep(0.2)
    raise AssertionError(f"{url} did not answer as it should within {seconds:g} s; last: {last}")


@contextlib.contextmanager
def running(
    command: list[str | Path], folder: Path, name: str, **environ: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background; its output is in ``FOLDER/NAME.log``."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environ,
            cwd=folder,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def service(name: str, folder: Path, **environ: str) -> Iterator[tuple[str, str]]:
    """Run one of the services; yields its address and that of its metrics."""
    port, metrics = free_port(), free_port()
    command: list[str | Path] = [sys.executable, "-c", "from cert.cli.main import main; main()"]
    command += ["serve", name, "--port", str(port), "--metrics-port", str(metrics)]
    url = f"http://127.0.0.1:{port}"
    with running(command, folder, f"{name}-{port}", **environ):
        wait_for(f"{url}/health/live", lambda answer: answer.status_code == 200)
        yield url, f"127.0.0.1:{metrics}"
