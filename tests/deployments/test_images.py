"""The images: built by the real tools, run read-only as nobody, and asked."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.deployments.parts import DEPLOYMENTS, ROOT, free_port, wait_for

pytestmark = [pytest.mark.deployments, pytest.mark.slow, pytest.mark.timeout(900)]

# What works without an engine, a session bus and cgroups of one's own, and no right that is not needed.
PODMAN = ["podman", "--cgroup-manager=cgroupfs", "--runtime=runc"]
CONFINED = ["--network=host", "--no-healthcheck"]
CONFINED += ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"]
CONFINED += ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
NAMES = ("hamiltonian", "coordination")


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """Build both; what did not change since the last time is taken from the layers that are there."""
    script = ROOT / "scripts" / "deployments" / "build_images.sh"
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False, timeout=850)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def podman(*arguments: str, check: bool = True) -> str:
    """Run podman and return what it prints."""
    done = subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def image(name: str) -> str:
    return f"localhost/cert-framework/{name}:4.0.0"


class Container:
    """A container that runs."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"

    def logs(self) -> str:
        """Everything that it wrote."""
        return podman("logs", self.name, check=False)

    def exit_code(self) -> int:
        """Wait for its end."""
        return int(podman("wait", self.name).split()[-1])

    def run(self, *command: str) -> str:
        """Run a program within it."""
        return podman("exec", self.name, *command, check=False)


@contextlib.contextmanager
def container(which: str, *options: str, **environ: str) -> Iterator[Container]:
    """Run an image as it is meant to be run; ``options`` come last and win."""
    port, name = free_port(), f"cert-test-{uuid.uuid4().hex[:8]}"
    variables = {"CERT_PORT": str(port), "CERT_METRICS_ENABLED": "false", "CERT_ALLOW_ANONYMOUS": "true"}
    told = [f"--env={key}={value}" for key, value in (variables | environ).items()]
    podman("run", "--detach", f"--name={name}", *CONFINED, *told, *options, image(which))
    try:
        yield Container(name, port)
    finally:
        podman("rm", "--force", "--time=10", "--volumes", name, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_read_only_as_nobody_and_answers(name):
    """What only runs as root, or writes beside itself, is refused by a careful cluster."""
    begun = time.monotonic()
    with container(name, CERT_PRELOAD_MODELS="true" if name == "hamiltonian" else "") as running:
        answer = wait_for(f"{running.url}/health/ready", lambda found: found.status_code == 200)
        seconds = time.monotonic() - begun
        assert "uid=10001" in running.run("id")
        assert "Read-only file system" in running.run(
            "/opt/cert/bin/python", "-c", "open('/opt/cert/x', 'w')"
        )
        assert answer.json()["ready"] is True
        if name == "hamiltonian":
            body = {"prompt": "The birth city of", "max_new_tokens": 4}
            found = httpx2.post(f"{running.url}/v1/analyze", json=body, timeout=30).json()
            assert found["analysis"]["generated_text"]
        else:
            # No key of a vendor: it says so, and goes on.
            assert httpx2.get(f"{running.url}/health").json()["status"] == "degraded"
        assert httpx2.get(f"{running.url}/ui").status_code == 200
        podman("stop", "--time=20", running.name)
        assert podman("inspect", "--format={{.State.ExitCode}}", running.name).strip() == "0"
    # The target is ten seconds on a machine with nothing else to do; the guide has what was measured.
    assert seconds < 60


@pytest.mark.parametrize("name", NAMES)
def test_the_health_check_of_an_image_tells_a_live_service_from_a_dead_one(name):
    """A check that always succeeds keeps a dead container in service."""
    told = json.loads(podman("image", "inspect", image(name)))[0]
    health = told.get("HealthCheck") or told["Healthcheck"]
    command = health["Test"][1:]
    with container(name) as running:
        wait_for(f"{running.url}/health/live", lambda found: found.status_code == 200)
        done = subprocess.run([*PODMAN, "exec", running.name, *command], check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
        dead = [*PODMAN, "exec", "--env=CERT_PORT=1", running.name, *command]
        assert subprocess.run(dead, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("name", NAMES)
def test_an_image_holds_no_secret_no_installer_and_no_trace_of_the_builder(name):
    """Whoever has the image has every file of every layer."""
    told = json.loads(podman("image", "inspect", image(name)))[0]
    environ = dict(entry.split("=", 1) for entry in told["Config"]["Env"])
    assert not {key for key in environ if "KEY" in key or "TOKEN" in key or "PASSWORD" in key}
    history = podman("history", "--no-trunc", "--format={{.CreatedBy}}", image(name))
    assert "index-url http" not in history
    # Builders leave empty files where they mounted their own; what was in them must not be there.
    find = (
        "import pathlib, sys\n"
        "for p in pathlib.Path('/').rglob('*'):\n"
        "    if p.name not in sys.argv[1:]: continue\n"
        "    if p.is_dir() or p.stat().st_size: print(p)\n"
        "import importlib.util\n"
        "if importlib.util.find_spec('pip'): print('/opt/cert has pip')\n"
    )
    names = ["pip.conf", "constraints.txt", ".netrc", "id_rsa", ".env", ".git", ".aws"]
    with_python = ["run", "--rm", "--entrypoint=/opt/cert/bin/python", *CONFINED, image(name)]
    found = [line for line in podman(*with_python, "-c", find, *names).splitlines() if line.startswith("/")]
    assert [line for line in found if not line.startswith(("/proc", "/sys"))] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_bill_of_materials_is_valid_and_whole(name, tmp_path):
    """An auditor asks what is inside; a list that leaves something out misleads him."""
    reading = ["run", "--rm", "--entrypoint=/bin/cat", *CONFINED, image(name), "/opt/cert/sbom.cdx.json"]
    text = podman(*reading)
    (tmp_path / "sbom.json").write_text(text)
    check = (
        "import sys\n"
        "from cyclonedx.schema import SchemaVersion\n"
        "from cyclonedx.validation.json import JsonStrictValidator\n"
        "wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())\n"
        "sys.exit(str(wrong) if wrong else 0)\n"
    )
    python = ROOT / ".venv-deployments" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", check, tmp_path / "sbom.json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    listed = {one["name"]: one["version"] for one in json.loads(text)["components"]}
    lock = (ROOT / "requirements" / f"{name}.lock").read_text()
    pinned = dict(line.split("==") for line in lock.replace(" \\", "").splitlines() if "==" in line)
    build_tools = {
        "hatchling",
        "pathspec",
        "pluggy",
        "trove-classifiers",
        "packaging",
        "editables",
        "setuptools",
    }
    for package, version in pinned.items():
        assert listed.get(package) == version or package in build_tools, package
    assert ("torch" in listed) == (name == "hamiltonian")


def test_as_root_an_image_can_do_no_more(tmp_path):
    """Somebody overrides the user: the file system and the capabilities still hold."""
    with container("coordination", "--user=0:0") as running:
        wait_for(f"{running.url}/health/live", lambda found: found.status_code == 200)
        assert "uid=0" in running.run("id")
        told = running.run("/opt/cert/bin/python", "-c", "open('/opt/cert/x', 'w')")
        assert "Read-only file system" in told
        status = running.run("/bin/cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000" in status


def test_a_setting_that_is_wrong_ends_the_container_with_its_name():
    """A container that restarts for ever should say why in its last line."""
    with container("coordination", CERT_MAX_BODY_BYTES="many") as running:
        assert running.exit_code() == 2
        assert "CERT_MAX_BODY_BYTES" in running.logs()


def test_a_volume_that_cannot_be_written_is_told(tmp_path):
    """Jobs that cannot be kept must not be taken."""
    tmp_path.chmod(0o755)
    volume = f"--volume={tmp_path}:/data:ro"
    key = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
    with container(
        "coordination", volume, CERT_DATABASE_URL="sqlite:////data/jobs.db", CERT_JOBS_KEY=key
    ) as running:
        assert running.exit_code() != 0
        told = running.logs()
        assert "database" in told or "jobs" in told, told
        assert "Traceback" not in told


def test_a_full_disk_loses_no_job_that_was_accepted(tmp_path):
    """An accepted job that is gone is money and work lost; one that is refused can be sent again."""
    key = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
    small = "--tmpfs=/data:rw,size=700k,mode=1777"
    models = "openai:none@http://127.0.0.1:9/v1"
    with container(
        "coordination",
        small,
        CERT_DATABASE_URL="sqlite:////data/jobs.db",
        CERT_JOBS_KEY=key,
        CERT_MODELS=models,
        CERT_PRICES="none=1/1",
    ) as running:
        wait_for(f"{running.url}/health/live", lambda found: found.status_code == 200)
        accepted: list[str] = []
        refused: list[int] = []
        for number in range(40):
            task = {"text": f"{number} " + "word " * 3_900, "references": ["42"]}
            body: dict[str, Any] = {"tasks": [task], "systems": ["vote"]}
            answer = httpx2.post(f"{running.url}/v1/measurements", json=body, timeout=30)
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])
            else:
                refused.append(answer.status_code)
        assert refused, "the disk was not full"
        assert set(refused) <= {503, 429}, refused
        for identifier in accepted:
            found = httpx2.get(f"{running.url}/v1/measurements/{identifier}", timeout=30)
            assert found.status_code == 200, identifier


def test_postgres_that_comes_later_is_waited_for_or_told():
    """At the start of a whole stack the database is not there yet."""
    key = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
    with container(
        "coordination",
        CERT_DATABASE_URL="postgresql://cert:x@127.0.0.1:9/cert",
        CERT_JOBS_KEY=key,
        CERT_DATABASE_WAIT_SECONDS="3",
    ) as running:
        assert running.exit_code() != 0
        told = running.logs()
        assert told.count("waiting_for_database") >= 2
        assert "Traceback" not in told
        assert "CERT_DATABASE_URL" in told or "database" in told
        assert "cert:x@" not in told


@pytest.mark.parametrize("name", NAMES)
def test_hadolint_finds_nothing(tool, name):
    """The practice that others have agreed on."""
    path = DEPLOYMENTS / "docker" / f"Dockerfile.{name}"
    done = subprocess.run(
        [tool("hadolint"), "--failure-threshold=style", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_images_do_not_grow_unseen():
    """What an image weighs is part of what it costs; the guide has the figures."""
    for name in NAMES:
        size = int(podman("image", "inspect", "--format={{.Size}}", image(name)))
        assert size < (460e6 if name == "coordination" else 1.2e9)
